"""The settings of `export`: every field is a flag, a recipe key and a line of `--help` at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orpo.command.errors import SettingsError
from orpo.command.settings import setting

FORMATS: Final = ("merged", "adapter", "gguf", "gguf-adapter", "ollama")
GGUF_FORMATS: Final = ("gguf", "gguf-adapter", "ollama")


@dataclass(kw_only=True)
class ExportSettings:
    """What `export` can be told."""

    to: str = setting(
        "merged",
        "merged: one model in safetensors; adapter: a plain PEFT folder; gguf, gguf-adapter: for llama.cpp; "
        "ollama: GGUF and Modelfile",
        choices=FORMATS,
    )
    adapter: Path | None = setting(None, "folder of the adapter; the newest one in trained/ if not given")
    model: str | None = setting(None, "where the adapter's base model is, if not where the adapter says")
    out: Path | None = setting(None, "folder to write to (default: exported/ADAPTER-FORMAT)", short="-o")
    overwrite: bool = setting(False, "replace an earlier export")
    dtype: str = setting(
        "keep",
        "number format of merged weights; keep takes the base model's",
        choices=("keep", "float32", "bfloat16", "float16"),
    )
    quantization: str = setting("f16", "number format of a GGUF file's weights", choices=("f32", "f16", "q8_0"))
    device: str = setting("auto", "where the models answer for the check: auto, cpu, cuda, cuda:1, mps")
    check: bool = setting(True, "ask before and after, and keep nothing that answers otherwise")
    check_prompts: int = setting(20, "held-out prompts that the check asks", at_least=1)
    check_tokens: int = setting(48, "the most tokens of a reply in the check", at_least=1)
    push: str | None = setting(None, "upload the result to this repository of the Hub, NAME or OWNER/NAME; asks before")
    public: bool = setting(False, "let everybody see what --push uploads; a new repository is private otherwise")
    yes: bool = setting(False, "do not ask before --push uploads")

    def __post_init__(self) -> None:
        for flag, value in (("--public", self.public), ("--yes", self.yes)):
            if value and self.push is None:
                raise SettingsError(f"{flag}: is for --push; name the repository with it, or leave this out")
        if self.dtype != "keep" and self.to != "merged":
            raise SettingsError(f"--dtype {self.dtype}: is for --to merged; --to {self.to} does not read it")
        if self.quantization != "f16" and self.to not in GGUF_FORMATS:
            raise SettingsError(f"--quantization {self.quantization}: is for GGUF; --to {self.to} does not read it")
