"""What the files of a model or an adapter must be before anything loads them, and one line for what went wrong."""

import json
import os
from pathlib import Path
from typing import Final

from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.command.errors import ModelError, causes_of

ADAPTER_CONFIG: Final = "adapter_config.json"

_WEIGHTS: Final = ("model.safetensors", "model.safetensors.index.json")
_PICKLED: Final = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def check_model_folder(folder: Path, shown: str) -> None:
    """Raise ModelError where a folder is not a model in safetensors, or names files outside of it."""
    if not folder.is_dir():
        raise _problem(shown, "is a file; name the folder that holds config.json")
    if not (folder / "config.json").is_file():
        if (folder / ADAPTER_CONFIG).is_file():
            raise _problem(shown, "is an adapter, not a whole model; name it as the adapter")
        raise _problem(shown, "holds no config.json, so it is not a model")
    if "model_type" not in read_json(folder / "config.json"):
        raise _problem(shown, "its config.json names no model_type, so it is not a model")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        pickled = any((folder / name).is_file() for name in _PICKLED)
        found = "only pickled weights, which can run code when they are read" if pickled else "no weights"
        raise _problem(shown, f"holds {found}; choose a model with model.safetensors")
    index = folder / _WEIGHTS[1]
    if index.is_file():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise _problem(shown, f"its {index.name} names no weights; the file is damaged")
        for shard in {str(name) for name in shards.values()}:
            if Path(shard).name != shard or "\\" in shard:
                raise _problem(shown, f"its {index.name} names a file outside the folder ({shard}), which is not read")


def read_json(file: Path) -> dict[str, object]:
    """Return the object in a JSON file; ModelError where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ModelError(f"{file} is not JSON; the file is damaged or not what its name says") from None
    except OSError as problem:
        raise ModelError(f"{file} cannot be read ({problem.strerror})") from None
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds no JSON object; the file is damaged or not what its name says")
    return content


def is_offline() -> bool:
    """Tell whether the Hub is not to be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def loading_error(what: str, model: str, problem: Exception, *, source: str = "") -> ModelError:
    """Say in one line what could not be loaded (a model, a tokenizer), from where, and what to do."""
    names = {type(link).__name__ for link in causes_of(problem)}
    reason = one_line(problem)
    folder = Path(source or model).expanduser()
    if "trust_remote_code" in str(problem) or _has_own_code(folder):
        return _problem(
            model, "comes with Python code of its own, which runs only with `trust_remote_code`; read it first"
        )
    if folder.exists() or model == DEFAULT_MODEL:
        return _problem(model, f"its {what} cannot be read ({reason}); the folder is damaged or incomplete")
    if "GatedRepoError" in names or "gated repo" in reason:
        return _problem(model, "is gated; accept its terms on the Hub and log in with `hf auth login`")
    if "RepositoryNotFoundError" in names or "not a valid model identifier" in reason:
        return _problem(model, "there is no such folder and no such model on the Hub; check the name")
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectionError"} or is_offline():
        return _problem(
            model,
            "there is no such folder, it is not in the local Hub cache, and the Hub cannot be reached; check the name "
            f"and the network, or choose {DEFAULT_MODEL} or a folder",
        )
    return _problem(model, f"its {what} cannot be loaded ({reason})")


def one_line(problem: BaseException, longest: int = 200) -> str:
    """Return an exception's message as one line that is not too long."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _has_own_code(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map"))
    except (OSError, ValueError, AttributeError):
        return False


def _problem(model: str, text: str) -> ModelError:
    return ModelError(f"{model}: {text}", setting="model")
