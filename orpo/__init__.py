"""Teach a chat model to use emojis well: preference pairs, LoRA training with ORPO, and the proof beside it.

The files beside this one are the commands (`uv run orpo/NAME.py`); the folders hold what they share. Imports run one
way: `running` <- `scoring`, `chat_model` <- `preferences` <- `training`, `evaluation`, `web` <-
the commands.
"""

__version__ = "0.1.0"
