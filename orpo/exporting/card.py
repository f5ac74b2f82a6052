"""The model card of an export: what it is, what the check found, the line that runs it, the report's table."""

from pathlib import Path
from typing import Final

from huggingface_hub import ModelCard, ModelCardData

from orpo.command.markdown import table
from orpo.command.output_folder import write_whole
from orpo.command.paths import public_name
from orpo.comparing.card import CARD_NAME, report_section
from orpo.exporting.checking import CheckResult
from orpo.exporting.settings import ExportSettings
from orpo.exporting.source import Source

_ABOUT: Final = {
    "merged": ("transformers", "A whole model in safetensors, with the adapter in its weights.", "vllm serve ."),
    "adapter": (
        "peft",
        "A LoRA adapter as PEFT reads it; it needs its base model.",
        "vllm serve BASE_MODEL --enable-lora --lora-modules emoji=.",
    ),
    "gguf": (
        "gguf",
        "A whole model for llama.cpp, with the adapter in its weights.",
        "llama-server --jinja --model {model}",
    ),
    "gguf-adapter": (
        "gguf",
        "A LoRA adapter for llama.cpp, and the base model that it belongs to.",
        "llama-server --jinja --model {model} --lora {adapter}",
    ),
    "ollama": (
        "gguf",
        "A whole model for Ollama, with the adapter in its weights, and its Modelfile.",
        "ollama create emoji --file Modelfile && ollama run emoji",
    ),
}
"""Each format's library, what it is, and the line that runs it within its folder."""

_CARD: Final = """\
# {name}

{what} It uses emojis as its adapter was taught to, on the base model `{base}`.

## Use

```
{use}
```

## Check

{check}
"""


def line_that_runs_it(folder: Path, to: str) -> str:
    """Return the line that another program runs an export with, within its folder."""
    files = sorted((file.name for file in folder.glob("*.gguf")), key=lambda name: name.endswith("-adapter.gguf"))
    return _ABOUT[to][2].format(model=files[0] if files else "", adapter=files[-1] if files else "")


def write_card(folder: Path, settings: ExportSettings, source: Source, check: CheckResult | None) -> None:
    """Write README.md, with the report's table where the adapter's own card has one."""
    library, what, _ = _ABOUT[settings.to]
    is_hub_id = source.model.count("/") == 1 and not Path(source.model).expanduser().exists()
    data = ModelCardData(
        library_name=library,
        pipeline_tag="text-generation",
        tags=["emoji", "preference-optimisation"],
        base_model=source.model if is_hub_id else None,
    )
    text = _CARD.format(
        name=source.adapter.name,
        what=what,
        base=public_name(source.model),
        use=line_that_runs_it(folder, settings.to),
        check=table(("asked before and after", "found"), check.as_rows()) if check else "None was made.",
    )
    card = f"---\n{data.to_yaml()}\n---\n\n{text}\n{report_section(source.adapter)}".rstrip()
    write_whole(folder / CARD_NAME, f"{ModelCard(card)}\n")
