"""Putting a LoRA adapter on a base model, and saving it so that it can be moved."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orpo.chat_model.adapters import adapter_base_name, attach_adapter
from orpo.chat_model.default_model import DEFAULT_MODEL
from orpo.chat_model.generation import context_length
from orpo.command.errors import InputError, ModelError, SettingsError
from orpo.command.output_folder import write_whole
from orpo.training.examples import Example
from orpo.training.settings import TrainSettings

_ALL_LINEAR = "all-linear"
_MOST_NAMES = 12


def add_adapter(base: PreTrainedModel, settings: TrainSettings, added_tokens: Sequence[int] = ()) -> PeftModel:
    """Return the base model with a fresh LoRA adapter (W' = W + alpha/r * B A), of which only A and B are trained.

    Args:
        base: The base model, with room for the added tokens.
        settings: The run's settings.
        added_tokens: Tokens whose vectors are trained too.
    """
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    switch_dropout_off(base)
    if getattr(base, "is_loaded_in_4bit", False):  # norms in fp32, frozen weights
        # Trainer switches checkpointing on.
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    targets: str | list[str] = list(settings.lora.targets)
    config = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=_ALL_LINEAR if targets == [_ALL_LINEAR] else targets,
        task_type=TaskType.CAUSAL_LM,
        trainable_token_indices=_vectors_of(base, added_tokens) if added_tokens else None,
    )
    try:
        model = get_peft_model(base, config)
    except ValueError as problem:
        names = sorted({name.rsplit(".", 1)[-1] for name, part in base.named_modules() if isinstance(part, nn.Linear)})
        raise SettingsError(
            f"{' '.join(settings.lora.targets)}: does not fit the model ({_first_line(problem)}); its "
            f"linear layers are {', '.join(names[:_MOST_NAMES])}",
            setting="lora_targets",
        ) from problem
    if settings.compute.gradient_checkpointing:
        model.enable_input_require_grads()  # else no gradient passes through the frozen embeddings
    if added_tokens:  # their vectors are in the adapter; peft would save every other token's too
        model.save_pretrained = partial(model.save_pretrained, save_embedding_layers=False)  # type: ignore[method-assign]
    return model


def make_room(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, added_tokens: Sequence[int]) -> None:
    """Give the base model vectors for added tokens: each begins as the mean of those that spelled it out before."""
    embeddings = cast(nn.Embedding, base.get_input_embeddings())
    if added_tokens and max(added_tokens) >= embeddings.num_embeddings:
        base.resize_token_embeddings(max(added_tokens) + 1, mean_resizing=False)
    head = base.get_output_embeddings()  # type: ignore[no-untyped-call]
    for token in added_tokens:
        text = str(tokenizer.convert_ids_to_tokens(token))
        pieces = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        for layer in (base.get_input_embeddings(), head):
            weight = getattr(layer, "weight", None)
            if isinstance(weight, Tensor):
                weight.data[token] = weight.data[pieces].mean(dim=0)


def _vectors_of(base: PreTrainedModel, tokens: Sequence[int]) -> dict[str, list[int]]:
    """Return which rows of which layers are trained; one layer where the head shares the embedding's weights."""
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()  # type: ignore[no-untyped-call]
    is_tied = head is None or head.weight is embeddings.weight
    layers = [embeddings] if is_tied else [embeddings, head]
    names = [name for name, part in base.named_modules() if any(part is layer for layer in layers)]
    return {name.rsplit(".", 1)[-1]: list(tokens) for name in names}


def continue_adapter(base: PreTrainedModel, settings: TrainSettings) -> PeftModel:
    """Return the base model with the adapter of an earlier run, to be trained further."""
    assert settings.from_adapter is not None
    switch_dropout_off(base)
    model = attach_adapter(base, settings.from_adapter)
    for name, weight in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name or "trainable_tokens" in name:
            weight.requires_grad_(True)
            if not bool(weight.isfinite().all()):
                raise ModelError("holds numbers that are not finite; take another adapter", setting="from_adapter")
    for config in model.peft_config.values():
        config.inference_mode = False
    if settings.compute.gradient_checkpointing:
        model.enable_input_require_grads()
    return model


def starting_model(settings: TrainSettings) -> str:
    """Return the base model's name: the one given, or that of the adapter that is trained further."""
    if settings.from_adapter is None:
        return settings.model
    name = adapter_base_name(settings.from_adapter)
    if settings.model not in (DEFAULT_MODEL, name):
        raise InputError(
            f"{settings.from_adapter}: was trained on {name}, not on {settings.model}; leave the model out",
            setting="from_adapter",
        )
    return name


def switch_dropout_off(model: nn.Module) -> None:
    """Switch the base model's own dropout off: chosen and rejected must be judged by the same network."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def check_fit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Example]) -> None:
    """Raise where the pairs do not fit the model: ids beyond its vocabulary, or more tokens than it can hold."""
    embeddings = model.get_input_embeddings()
    # An adapter that holds vectors of tokens puts a module around the embedding.
    size = cast(nn.Embedding, getattr(embeddings, "original_module", embeddings)).num_embeddings
    highest = max(max(ids) for pair in pairs for ids in (pair.prompt_ids, *pair.replies))
    if highest >= size:
        raise ModelError(f"the tokenizer ({len(tokenizer)} entries) does not fit the model, which has {size}")
    limit = context_length(model)
    longest = max(pairs, key=lambda pair: pair.longest)
    if limit and longest.longest > limit:
        raise InputError(
            f"{longest.source.file}: row {longest.row} has {longest.longest} tokens, and the model's context holds "
            f"{limit}; allow {limit} or less with the length limit"
        )


def save_adapter(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    settings: TrainSettings,
    *,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write adapter, tokenizer and chat template; the base model is named so that another machine finds it.

    `weights` is the model's whole state, where its own tensors are only this process's share of it.
    """
    model.save_pretrained(str(folder), state_dict=weights)
    tokenizer.save_pretrained(str(folder))
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base_model_name(settings)
    write_whole(file, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    adapter_base_name(folder)  # whole, as inference will see it


def base_model_name(settings: TrainSettings) -> str:
    """Return the base model's name as an adapter records it: a folder as its full path."""
    name = starting_model(settings)
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name != DEFAULT_MODEL and folder.exists() else name


def _first_line(problem: BaseException) -> str:
    return str(problem).strip().split("\n")[0][:200]
