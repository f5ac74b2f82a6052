"""Lines to copy: what repeats a reply on the command line, and what trains on votes or reviewed pairs."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from orpo.command.errors import as_flag
from orpo.command.paths import default_training_folder
from orpo.records.messages import Message, system_message
from orpo.records.replies import Sampling
from orpo.serving.service import Service

_COMMAND: Final = ("uv", "run", "orpo/inference.py")
_FILE: Final = "conversation.jsonl"


def repeat_line(service: Service, model: str, messages: Sequence[Message], sampling: Sampling, seed: int) -> str:
    """Return a shell line whose `inference.py` gives the reply of this model to this conversation, token by token.

    A conversation of several turns goes through a file, which the line writes first.
    """
    flags = [*_model_flags(service, model), _flag("seed", seed), *_sampling_flags(sampling)]
    system = system_message(messages)
    # A system prompt that begins with @ would be read as the name of a file.
    if len(messages) == 1 + bool(system) and not system.startswith("@"):
        said = [_flag("prompt", messages[-1]["content"]), *([_flag("system", system)] if system else [])]
        return shlex.join([*_COMMAND, *said, *flags])
    row = json.dumps({"prompt": list(messages)}, ensure_ascii=False)
    line = shlex.join([*_COMMAND, _flag("prompts", _FILE), *flags])
    return f"printf '%s\\n' {shlex.quote(row)} > {_FILE} && {line}"


def training_line(pairs: Path) -> str:
    """Return the shell line that trains on a folder of pairs, into a run folder of the same name."""
    flags = [_flag("data", _shown(pairs)), _flag("out", _shown(default_training_folder() / pairs.name))]
    return shlex.join(["uv", "run", "orpo/train.py", *flags])


def _model_flags(service: Service, model: str) -> list[str]:
    catalogue, base = service.catalogue, service.base
    adapter = catalogue.adapters.get(model)
    flags = [as_flag("base_only") if adapter is None else _flag("adapter", _shown(adapter))]
    flags.append(_flag("model", _shown(Path(catalogue.base)) if Path(catalogue.base).exists() else catalogue.base))
    flags.append(_flag("dtype", service.engine.dtype))
    if base.device != "auto":
        flags.append(_flag("device", base.device))
    if base.chat_template is not None:
        flags.append(_flag("chat_template", _shown(base.chat_template)))
    if base.trust_remote_code:
        flags.append(as_flag("trust_remote_code"))
    return flags


def _sampling_flags(sampling: Sampling) -> list[str]:
    """Name what decides the reply, since the defaults here may be others than those of `inference`."""
    usual = asdict(Sampling())
    always = ("temperature", "max_new_tokens")
    return [_flag(name, value) for name, value in asdict(sampling).items() if name in always or value != usual[name]]


def _flag(name: str, value: object) -> str:
    """Return `--name=value`, in which the value may begin with a hyphen."""
    return f"{as_flag(name)}={value}"


def _shown(path: Path) -> str:
    """Return a path as the line names it: from the working folder where it lies below it."""
    whole = path.expanduser().absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)
