"""How a model on this machine is loaded and answers: a group of settings of every command that has one answer.

Light: `--help` reads this and nothing more of this folder.
"""

from dataclasses import dataclass
from pathlib import Path

from orpo.command.settings import setting


@dataclass(kw_only=True)
class LocalModelSettings:
    """Where models compute, in which numbers, and how many prompts at once."""

    batch_size: int = setting(64, "prompts answered at once; changes the speed, not the replies", at_least=1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps")
    dtype: str = setting("auto", "number format of the weights", choices=["auto", "float32", "bfloat16", "float16"])
    chat_template: Path | None = setting(None, "Jinja file that replaces the model's chat template")
    trust_remote_code: bool = setting(False, "run Python code that comes with a model")
