"""Loading a base model and its tokenizer: safetensors only, no remote code unless told, one clear error.

A model is the default one by its name, a local folder, a GGUF file, or an id on the Hugging Face Hub.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

from orpo.chat_model.chat_template import PLAIN_TEMPLATE, missing_markers
from orpo.chat_model.default_model import DEFAULT_MODEL, default_model_folder
from orpo.chat_model.gguf import LoadingInfo, convert_gguf, is_gguf
from orpo.chat_model.model_files import check_model_folder, is_offline, loading_error
from orpo.chat_model.options import resolve_device, resolve_reply_dtype
from orpo.command.display import console_err
from orpo.command.errors import InputError, ModelError, SettingsError


def locate_model(model: str) -> str:
    """Return what transformers can load: a folder that is there, or a Hub id; ModelError for anything else.

    Cheap, so that commands can call it before they load anything; but a GGUF file is converted where it never was.
    """
    choices = f"{DEFAULT_MODEL}, a folder, a GGUF file or a Hub id"
    if not model.strip():
        raise ModelError(f"'': is empty; name {choices}", setting="model")
    if model == DEFAULT_MODEL:
        return str(default_model_folder())
    folder = Path(model).expanduser()
    if is_gguf(model) and not folder.is_dir():
        return str(convert_gguf(folder))
    if folder.exists():
        check_model_folder(folder, model)
        return str(folder)
    if model.startswith((".", "/", "~", os.sep)) or model.count("/") > 1 or "\\" in model:
        raise ModelError(f"{model}: there is no such folder; name {choices}", setting="model")
    return model


def load_tokenizer(
    model: str, *, trust_remote_code: bool = False, chat_template: Path | None = None, adds_markers: bool = False
) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer, set for left padding, with a chat template: its own, or that of a Jinja file.

    `adds_markers` says that the caller adds the markers that it lacks, so nobody has to be warned of them.
    """
    return read_tokenizer(locate_model(model), model, trust_remote_code, chat_template, adds_markers)


def read_tokenizer(
    source: str,
    name: str,
    trust_remote_code: bool = False,
    chat_template: Path | None = None,
    adds_markers: bool = False,
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder or Hub id; `name` is what the user calls it."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, padding_side="left", trust_remote_code=trust_remote_code, local_files_only=is_offline()
        )
    except Exception as problem:  # every library under it has errors of its own
        raise loading_error("tokenizer", name, problem, source=source) from problem
    return prepare_tokenizer(cast(PreTrainedTokenizerBase, tokenizer), name, chat_template, adds_markers)


def prepare_tokenizer(
    tokenizer: PreTrainedTokenizerBase, name: str, chat_template: Path | None = None, adds_markers: bool = False
) -> PreTrainedTokenizerBase:
    """Give a tokenizer left padding, a pad token and a chat template, or raise ModelError with the remedy."""
    if chat_template is not None:
        tokenizer.chat_template = _read_template(chat_template)
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
        console_err.print(
            f"{name} has no chat template: it is asked in a plain text form, which works best with examples; a chat "
            "template of your own replaces it",
            soft_wrap=True,
        )
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {name} has neither a pad nor an EOS token, so it cannot be used")
        tokenizer.pad_token = tokenizer.eos_token  # masked wherever it pads, so any token serves
    if not adds_markers and (unknown := _unknown_markers(tokenizer)):
        console_err.print(
            f"{name}: its tokenizer does not know {', '.join(unknown)} of the chat template; the model has to spell "
            "them out and may show them in its replies; choose another template or a model trained with this one, or "
            "have training add them as tokens",
            soft_wrap=True,
        )
    return tokenizer


def add_markers(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Add the chat template's markers that a tokenizer does not know as special tokens, and return their ids."""
    missing = _unknown_markers(tokenizer)
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
    known = tokenizer.get_vocab()
    return [known[text] for text in missing]


def _unknown_markers(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    try:
        return missing_markers(tokenizer)
    except ModelError:  # a template that cannot be applied says so when it is
        return []


def load_model(
    model: str,
    *,
    device: torch.device | str,
    dtype: torch.dtype | str,
    trust_remote_code: bool = False,
    attention: str = "auto",
    quantize: str = "none",
) -> PreTrainedModel:
    """Return a causal language model in evaluation mode on the device.

    Device and dtype may be names for `resolve_device` and `resolve_reply_dtype`; `attention` is named as transformers
    does; `quantize="4bit"` keeps the weights of linear layers in NF4 (QLoRA, arXiv 2305.14314, section 3).
    """
    from transformers import AutoModelForCausalLM

    device = resolve_device(device) if isinstance(device, str) else device
    dtype = resolve_reply_dtype(dtype, device) if isinstance(dtype, str) else dtype
    source = locate_model(model)
    special: dict[str, object] = {} if attention == "auto" else {"attn_implementation": attention}
    if quantize == "4bit":
        special |= {"quantization_config": _four_bit(dtype), "device_map": {"": device}}
    try:
        with no_library_bar(source):
            load = cast("Callable[..., tuple[PreTrainedModel, LoadingInfo]]", AutoModelForCausalLM.from_pretrained)
            loaded, info = load(
                source,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                local_files_only=is_offline(),
                output_loading_info=True,
                **special,
            )
    except Exception as problem:  # every library under it has errors of its own
        raise loading_error("model", model, problem, source=source) from problem
    # Transformers fills what a checkpoint lacks with random numbers and goes on.
    if lacking := sorted(map(str, info["missing_keys"])) + sorted(map(str, info["mismatched_keys"])):
        raise ModelError(
            f"{model}: its weights do not fit its config.json ({len(lacking)} missing or of another shape, "
            f"the first {lacking[0]}); it is not a whole causal language model",
            setting="model",
        )
    broken = [name for name, weight in loaded.named_parameters() if not bool(weight.isfinite().all())]
    if broken:
        raise ModelError(
            f"{model}: holds numbers that are not finite in {len(broken)} of its weights, the first {broken[0]}; "
            "fetch it again, or choose another model",
            setting="model",
        )
    placed = loaded if special.get("device_map") else loaded.to(device)  # type: ignore[arg-type]
    return cast(PreTrainedModel, placed.eval())


def _four_bit(dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation, computed in the model's dtype."""
    if find_spec("bitsandbytes") is None:
        raise SettingsError(
            "4bit: needs the package bitsandbytes; `uv sync --extra qlora` installs it", setting="quantize"
        )
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


@contextmanager
def no_library_bar(source: str) -> Iterator[None]:
    """Keep transformers' bar over the weights of a folder off stderr, where it would stand among our lines.

    A model from the Hub keeps its bars: the same switch rules those of a download, which may take minutes.
    """
    from transformers.utils import logging

    quiet = Path(source).is_dir() and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if quiet:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _read_template(file: Path) -> str:
    from jinja2 import Environment, TemplateSyntaxError

    problem = ""
    try:
        text = file.read_text(encoding="utf-8")
        if not text.strip():
            problem = "is empty"
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except FileNotFoundError:
        problem = "there is no such file"
    except IsADirectoryError:
        problem = "is a folder; name a Jinja file"
    except UnicodeDecodeError:
        problem = "is not UTF-8 text; name a Jinja file"
    except TemplateSyntaxError as wrong:
        # transformers' own {% generation %} tag is no standard Jinja; the real renderer will judge.
        if "generation" not in str(wrong.message):
            problem = f"is not a Jinja template (line {wrong.lineno}: {wrong.message})"
    if problem:
        raise InputError(f"{file}: {problem}", setting="chat_template")
    return text
