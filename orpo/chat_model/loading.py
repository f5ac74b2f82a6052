"""Loading a base model, its tokenizer and an adapter: safetensors only, no remote code unless told, one clear error.

A model is the default one by its name, a local folder, a GGUF file, or an id on the Hugging Face Hub.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from orpo.chat_model.default_model import DEFAULT_MODEL, default_model_folder
from orpo.chat_model.gguf import convert_gguf, is_gguf
from orpo.command.errors import InputError, ModelError, SettingsError

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device of that name; `auto` takes CUDA, then MPS, then the CPU."""
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"--device {name}: not a device; give one of {', '.join(DEVICES)}") from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise SettingsError(f"--device {name}: this machine has no such CUDA device; give --device cpu or auto")
    if device.type == "mps" and not has_mps:
        raise SettingsError(f"--device {name}: this machine has no MPS device; give --device cpu or auto")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the number format; `auto` takes bfloat16 on CUDA that computes in it, and float32 elsewhere."""
    if name not in DTYPES:
        raise SettingsError(f"--dtype {name}: not one of {', '.join(DTYPES)}")
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def resolve_reply_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the number format to write replies in; `auto` takes bfloat16 on CPUs too that multiply fast in it.

    Measured on a core with AMX: 2.5 times the replies a second of float32. Training keeps float32 there, because its
    small steps would be lost in the rounding of 8 bits.
    """
    if name == "auto" and device.type == "cpu" and _multiplies_bfloat16():
        return torch.bfloat16
    return resolve_dtype(name, device)


def _multiplies_bfloat16() -> bool:
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public name for them
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def locate_model(model: str) -> str:
    """Return what transformers can load: a folder that is there, or a Hub id; ModelError for anything else.

    Cheap, so that commands can call it before they load anything.
    """
    if not model.strip():
        raise ModelError(f"--model '': give {DEFAULT_MODEL}, a folder, a GGUF file or a Hub id")
    if model == DEFAULT_MODEL:
        return str(default_model_folder())
    folder = Path(model).expanduser()
    if is_gguf(model) and not folder.is_dir():
        return str(convert_gguf(folder))
    if folder.exists():
        _check_model_folder(folder, model)
        return str(folder)
    if _looks_like_path(model):
        raise ModelError(
            f"--model {model}: there is no such folder; give {DEFAULT_MODEL}, a folder, a GGUF file or a Hub id"
        )
    return model


def load_tokenizer(model: str, *, trust_remote_code: bool = False, chat_template: Path | None = None) -> Any:
    """Return a model's tokenizer, set for left padding, with a chat template.

    Args:
        model: The default model's name, a folder, a GGUF file or a Hub id.
        trust_remote_code: Run Python code that comes with the model.
        chat_template: A Jinja file that replaces the tokenizer's own template.
    """
    from transformers import AutoTokenizer

    source = locate_model(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, padding_side="left", trust_remote_code=trust_remote_code, local_files_only=_is_offline()
        )
    except Exception as problem:  # every library under it has errors of its own
        raise _loading_error("tokenizer", model, problem) from problem
    return prepare_tokenizer(tokenizer, model, chat_template)


def prepare_tokenizer(tokenizer: Any, name: str, chat_template: Path | None = None) -> Any:
    """Give a tokenizer left padding, a pad token and a chat template, or raise ModelError with the remedy."""
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    if not tokenizer.chat_template:
        raise ModelError(f"the tokenizer of {name} has no chat template; give one with --chat-template FILE (Jinja)")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {name} has neither a pad nor an EOS token, so it cannot be used")
        tokenizer.pad_token = tokenizer.eos_token  # masked wherever it pads, so any token serves
    return tokenizer


def load_model(
    model: str,
    *,
    device: torch.device | str,
    dtype: torch.dtype | str,
    trust_remote_code: bool = False,
    attention: str = "auto",
    quantize: str = "none",
) -> Any:
    """Return a causal language model in evaluation mode on the device.

    Args:
        model: The default model's name, a folder, a GGUF file or a Hub id.
        device: A torch device, or a name for `resolve_device`.
        dtype: A torch dtype, or a name for `resolve_reply_dtype`.
        trust_remote_code: Run Python code that comes with the model.
        attention: The attention implementation, as transformers names it; `auto` is the model's own default.
        quantize: `4bit` keeps the weights of its linear layers in NF4 (QLoRA, arXiv 2305.14314, section 3).
    """
    from transformers import AutoModelForCausalLM

    device = resolve_device(device) if isinstance(device, str) else device
    dtype = resolve_reply_dtype(dtype, device) if isinstance(dtype, str) else dtype
    source = locate_model(model)
    factory: Any = AutoModelForCausalLM  # whose types do not know output_loading_info
    special: dict[str, Any] = {} if attention == "auto" else {"attn_implementation": attention}
    if quantize == "4bit":
        special |= {"quantization_config": _four_bit(dtype), "device_map": {"": device}}
    try:
        with _no_loading_bar(source):
            loaded, info = factory.from_pretrained(
                source,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                local_files_only=_is_offline(),
                output_loading_info=True,
                **special,
            )
    except Exception as problem:  # every library under it has errors of its own
        raise _loading_error("model", model, problem) from problem
    # Transformers fills what a checkpoint lacks with random numbers and goes on.
    if lacking := sorted(map(str, info["missing_keys"])) + sorted(map(str, info["mismatched_keys"])):
        raise ModelError(
            f"--model {model}: its weights do not fit its config.json ({len(lacking)} missing or of another shape, "
            f"the first {lacking[0]}); it is not a whole causal language model"
        )
    return (loaded if special.get("device_map") else loaded.to(device)).eval()


def _four_bit(dtype: torch.dtype) -> Any:
    """NF4 with double quantisation, computed in the model's dtype."""
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise SettingsError("--quantize 4bit: needs the package bitsandbytes; `uv sync --extra qlora` installs it")
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def load_with_adapter(
    model: str | None,
    adapter: Path,
    *,
    device: torch.device | str,
    dtype: torch.dtype | str,
    trust_remote_code: bool = False,
    chat_template: Path | None = None,
) -> tuple[Any, Any]:
    """Return (PeftModel, tokenizer): one model in memory, with the adapter on; `disable_adapter()` gives the base.

    Args:
        model: The base model; None takes the one that the adapter was trained on.
        adapter: A folder with adapter_config.json and adapter_model.safetensors.
        device: A torch device, or a name for `resolve_device`.
        dtype: A torch dtype, or a name for `resolve_reply_dtype`.
        trust_remote_code: Run Python code that comes with the base model.
        chat_template: A Jinja file that replaces the tokenizer's own template.
    """
    name = adapter_base_name(adapter) if model is None else model
    has_tokenizer = (adapter / "tokenizer_config.json").is_file()
    # The adapter's own copy first: its template is the one that the adapter was trained with.
    if has_tokenizer:
        tokenizer = _load_adapter_tokenizer(adapter, trust_remote_code, chat_template)
    else:
        tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code, chat_template=chat_template)
    base = load_model(name, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    return attach_adapter(base, adapter), tokenizer


def attach_adapter(base: Any, adapter: Path) -> Any:
    """Put a trained adapter on a loaded base model and return the PeftModel, in evaluation mode."""
    from peft import PeftModel

    check_adapter_folder(adapter)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tuned = PeftModel.from_pretrained(base, str(adapter), is_trainable=False)
    except Exception as problem:  # peft, safetensors and torch have errors of their own
        reason = _one_line(problem)
        raise ModelError(
            f"--adapter {adapter}: does not fit the base model or is damaged ({reason}); give the model it was "
            f"trained on with --model, or another adapter"
        ) from problem
    if any("missing adapter keys" in str(warning.message) for warning in caught):
        raise ModelError(f"--adapter {adapter}: its weights are not those that its {_ADAPTER_CONFIG} describes")
    return tuned.eval()


def check_adapter_folder(adapter: Path) -> dict[str, Any]:
    """Return an adapter's configuration; InputError or ModelError where the path is no adapter in safetensors."""
    if not adapter.exists():
        raise InputError(f"--adapter {adapter}: there is no such folder; `uv run orpo/train.py` makes an adapter")
    if not adapter.is_dir():
        raise InputError(f"--adapter {adapter}: is a file; give the folder that holds {_ADAPTER_CONFIG}")
    config_file = adapter / _ADAPTER_CONFIG
    if not config_file.is_file():
        hint = "is a model, give it with --model" if (adapter / "config.json").is_file() else "is not an adapter"
        raise InputError(f"--adapter {adapter}: holds no {_ADAPTER_CONFIG}, so it {hint}")
    config = _read_json(config_file)
    if "peft_type" not in config:
        raise InputError(f"{config_file}: names no peft_type, so it is not the configuration of an adapter")
    if not (adapter / _ADAPTER_WEIGHTS).is_file():
        pickled = " (only pickled weights, which can run code when they are read)" if any(adapter.glob("*.bin")) else ""
        raise ModelError(f"--adapter {adapter}: holds no {_ADAPTER_WEIGHTS}{pickled}; give an adapter in safetensors")
    return config


def adapter_base_name(adapter: Path) -> str:
    """Return the name of the base model that an adapter was trained on."""
    name = check_adapter_folder(adapter).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ModelError(f"{adapter / _ADAPTER_CONFIG} names no base model; give it with --model")
    return name


def _load_adapter_tokenizer(adapter: Path, trust_remote_code: bool, chat_template: Path | None) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(adapter), padding_side="left", trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as problem:  # every library under it has errors of its own
        raise _loading_error("tokenizer", str(adapter), problem) from problem
    return prepare_tokenizer(tokenizer, str(adapter), chat_template)


def _check_model_folder(folder: Path, shown: str) -> None:
    if not folder.is_dir():
        raise ModelError(f"--model {shown}: is a file; give the folder that holds config.json")
    if not (folder / "config.json").is_file():
        if (folder / _ADAPTER_CONFIG).is_file():
            raise ModelError(
                f"--model {shown}: is an adapter, not a whole model; `uv run orpo/inference.py --adapter` takes one"
            )
        raise ModelError(f"--model {shown}: holds no config.json, so it is not a model")
    if "model_type" not in _read_json(folder / "config.json"):
        raise ModelError(f"--model {shown}: its config.json names no model_type, so it is not a model")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        pickled = any((folder / name).is_file() for name in _PICKLED)
        found = "only pickled weights, which can run code when they are read" if pickled else "no weights"
        raise ModelError(f"--model {shown}: holds {found}; give a model with model.safetensors")


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "/", "~", os.sep)) or model.count("/") > 1 or "\\" in model


@contextmanager
def _no_loading_bar(source: str) -> Iterator[None]:
    """Keep transformers' bar over weights off stderr, where it would stand among our lines.

    A model from the Hub keeps its bars: the same switch rules those of a download, which may take minutes.
    """
    from transformers.utils import logging

    switch: Any = logging  # untyped
    quiet = Path(source).is_dir() and switch.is_progress_bar_enabled()
    if quiet:
        switch.disable_progress_bar()
    try:
        yield
    finally:
        if quiet:
            switch.enable_progress_bar()


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise ModelError(f"{file} is not JSON; the file is damaged or not what its name says") from None
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds no JSON object; the file is damaged or not what its name says")
    return content


def _read_template(file: Path) -> str:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        text = file.read_text(encoding="utf-8")
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except FileNotFoundError:
        raise InputError(f"--chat-template {file}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"--chat-template {file}: is a folder; give a Jinja file") from None
    except UnicodeDecodeError:
        raise InputError(f"--chat-template {file}: is not UTF-8 text; give a Jinja file") from None
    except TemplateSyntaxError as problem:
        reason = f"line {problem.lineno}: {problem.message}"
        # transformers' own {% generation %} tag is no standard Jinja; the real renderer will judge.
        if "generation" not in str(problem.message):
            raise InputError(f"--chat-template {file}: is not a Jinja template ({reason})") from None
    if not text.strip():
        raise InputError(f"--chat-template {file}: is empty")
    return text


def _loading_error(what: str, model: str, problem: Exception) -> ModelError:
    """Say in one line what could not be loaded, from where, and what to do."""
    names = {type(link).__name__ for link in _causes(problem)}
    reason = _one_line(problem)
    if Path(model).expanduser().exists() or model == DEFAULT_MODEL:
        return ModelError(f"--model {model}: its {what} cannot be read ({reason}); the folder is damaged or incomplete")
    if "GatedRepoError" in names or "gated repo" in reason:
        return ModelError(f"--model {model}: is gated; accept its terms on the Hub and log in with `hf auth login`")
    if "RepositoryNotFoundError" in names or "not a valid model identifier" in reason:
        return ModelError(f"--model {model}: there is no such folder and no such model on the Hub; check the name")
    if names & {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectionError"} or _is_offline():
        return ModelError(
            f"--model {model}: there is no such folder, it is not in the local Hub cache, and the Hub cannot be "
            f"reached; check the name and the network, or give {DEFAULT_MODEL} or a folder"
        )
    return ModelError(f"--model {model}: its {what} cannot be loaded ({reason})")


def _causes(problem: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    link: BaseException | None = problem
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _one_line(problem: BaseException, longest: int = 200) -> str:
    text = " ".join(str(problem).split()) or type(problem).__name__
    return text if len(text) <= longest else text[: longest - 1] + "…"
