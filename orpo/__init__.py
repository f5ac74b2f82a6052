"""Teach a chat model to use emojis well: preference pairs, LoRA training with ORPO, and the proof beside it.

The files beside this one are the commands (`uv run orpo/NAME.py`); the folders hold what they share. Imports run one
way: `command` <- `records`, `scoring` <- `chat_model` <- `generating`, `training`, `comparing` <- the commands.
"""

from orpo.command.signals import is_own_command, take_signals

__version__ = "0.1.0"

if is_own_command():  # before anything else is imported, which takes its time
    take_signals()
