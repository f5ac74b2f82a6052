"""Adapters: checked before they are loaded, put on their base model, which is resized where they were trained so."""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.chat_model.model_files import ADAPTER_CONFIG, one_line, read_json
from orpo.chat_model.settings import LocalModelSettings
from orpo.command.errors import InputError, ModelError

if TYPE_CHECKING:  # a folder is checked before the seconds that the libraries take
    import torch
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WEIGHTS: Final = "adapter_model.safetensors"
_CONVERTED_DEFAULT: Final = re.compile(rf"{re.escape(DEFAULT_MODEL)}-[0-9a-f]{{16}}")


def load_chat_model(
    model: str, adapter: Path | None, settings: LocalModelSettings
) -> "tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]":
    """Return a model ready to answer, with an adapter on where there is one, and its tokenizer."""
    from orpo.chat_model.loading import load_model, load_tokenizer

    template, remote = settings.chat_template, settings.trust_remote_code
    if adapter is not None:
        return load_with_adapter(
            model,
            adapter,
            device=settings.device,
            dtype=settings.dtype,
            trust_remote_code=remote,
            chat_template=template,
        )
    tokenizer = load_tokenizer(model, trust_remote_code=remote, chat_template=template)
    return load_model(model, device=settings.device, dtype=settings.dtype, trust_remote_code=remote), tokenizer


def load_with_adapter(
    model: str | None,
    adapter: Path,
    *,
    device: "torch.device | str",
    dtype: "torch.dtype | str",
    trust_remote_code: bool = False,
    chat_template: Path | None = None,
) -> "tuple[PeftModel, PreTrainedTokenizerBase]":
    """Return (PeftModel, tokenizer): one model in memory, with the adapter on; `disable_adapter()` gives the base.

    Without a model's name it is the one that the adapter was trained on.
    """
    from orpo.chat_model.loading import load_model

    name = adapter_base_name(adapter) if model is None else model
    tokenizer = load_adapter_tokenizer(name, adapter, trust_remote_code=trust_remote_code, chat_template=chat_template)
    base = load_model(name, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    return attach_adapter(base, adapter), tokenizer


def load_adapter_tokenizer(
    model: str, adapter: Path, *, trust_remote_code: bool = False, chat_template: Path | None = None
) -> "PreTrainedTokenizerBase":
    """Return an adapter's own copy of the tokenizer, whose template it was trained with, or else the base model's."""
    from orpo.chat_model.loading import load_tokenizer, read_tokenizer

    if (adapter / "tokenizer_config.json").is_file():
        return read_tokenizer(str(adapter), str(adapter), trust_remote_code, chat_template)
    return load_tokenizer(model, trust_remote_code=trust_remote_code, chat_template=chat_template)


def attach_adapter(base: "PreTrainedModel | PeftModel", adapter: Path, *, name: str = "default") -> "PeftModel":
    """Put a trained adapter on a loaded model and return the PeftModel, in evaluation mode.

    A model that has adapters already gets one more, under a name of its own; those that are on stay on.
    """
    from peft import PeftModel

    check_adapter_folder(adapter)
    try:
        _resize_to(base, adapter)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if isinstance(base, PeftModel):
                tuned = base
                tuned.load_adapter(str(adapter), adapter_name=name, is_trainable=False)
            else:
                tuned = PeftModel.from_pretrained(base, str(adapter), adapter_name=name, is_trainable=False)
    except ModelError:
        raise
    except Exception as problem:  # peft, safetensors and torch have errors of their own
        raise _problem(
            adapter,
            f"does not fit the base model or is damaged ({one_line(problem)}); name the model that it was trained on, "
            "or another adapter",
        ) from problem
    if any("missing adapter keys" in str(warning.message) for warning in caught):
        raise _problem(adapter, f"its weights are not those that its {ADAPTER_CONFIG} describes")
    tuned.train(False)
    return tuned


def check_adapter_folder(adapter: Path) -> dict[str, object]:
    """Return an adapter's configuration; InputError or ModelError where the path is not an adapter in safetensors."""
    if not adapter.exists():
        raise _input(adapter, "there is no such folder; `uv run orpo/train.py` makes an adapter")
    if not adapter.is_dir():
        raise _input(adapter, f"is a file; name the folder that holds {ADAPTER_CONFIG}")
    config_file = adapter / ADAPTER_CONFIG
    if not config_file.is_file():
        hint = "is a model, not an adapter" if (adapter / "config.json").is_file() else "is not an adapter"
        raise _input(adapter, f"holds no {ADAPTER_CONFIG}, so it {hint}")
    config = read_json(config_file)
    if "peft_type" not in config:
        raise InputError(f"{config_file}: names no peft_type, so it is not the configuration of an adapter")
    if not (adapter / _WEIGHTS).is_file():
        pickled = " (only pickled weights, which can run code when they are read)" if any(adapter.glob("*.bin")) else ""
        raise _problem(adapter, f"holds no {_WEIGHTS}{pickled}; choose an adapter in safetensors")
    return config


def adapter_base_name(adapter: Path) -> str:
    """Return the name of the base model that an adapter was trained on.

    The default model goes by its name: other programs write down the folder of its conversion, which is elsewhere on
    another machine.
    """
    name = check_adapter_folder(adapter).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ModelError(f"{adapter / ADAPTER_CONFIG} names no base model; name it yourself")
    return DEFAULT_MODEL if _CONVERTED_DEFAULT.fullmatch(name.replace("\\", "/").rpartition("/")[2]) else name


def _resize_to(base: "PreTrainedModel | PeftModel", adapter: Path) -> None:
    """Check an adapter's weights, and give the base as many tokens as the adapter was trained with.

    Training with added tokens saves the embedding whole; the base that is loaded here does not have those tokens yet.
    One that has an adapter already keeps its tokens: they are what that adapter was trained with.
    """
    from safetensors import safe_open

    rows = 0
    broken = []
    with safe_open(adapter / _WEIGHTS, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - it is no dict
            weight = file.get_tensor(key)
            if not bool(weight.isfinite().all()):
                broken.append(key)
            if re.search(r"(embed_tokens|lm_head|wte|embed_out)(\.modules_to_save)?(\.base_layer)?\.weight$", key):
                rows = max(rows, weight.shape[0])
    if broken:
        raise _problem(
            adapter,
            f"holds numbers that are not finite in {len(broken)} of its weights, the first {broken[0]}; its training "
            "ran away, choose an earlier checkpoint",
        )
    size = cast("nn.Embedding", base.get_input_embeddings()).num_embeddings
    rows = rows or max(size, 1 + max(_added_tokens(adapter), default=0))
    if rows != size and hasattr(base, "peft_config"):
        raise _problem(
            adapter, f"was trained with {rows} tokens, and the adapters loaded before it with {size}; load it by itself"
        )
    if rows != size:
        base.resize_token_embeddings(rows, mean_resizing=False)


def _added_tokens(adapter: Path) -> list[int]:
    """Return the ids of the tokens whose vectors an adapter holds instead of a whole embedding."""
    indices = read_json(adapter / ADAPTER_CONFIG).get("trainable_token_indices") or []
    lists = indices.values() if isinstance(indices, dict) else [indices]
    return [number for part in lists if isinstance(part, list) for number in part if isinstance(number, int)]


def _problem(adapter: Path, text: str) -> ModelError:
    return ModelError(f"{adapter}: {text}", setting="adapter")


def _input(adapter: Path, text: str) -> InputError:
    return InputError(f"{adapter}: {text}", setting="adapter")
