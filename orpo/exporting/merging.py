"""The adapter's weights added into the base model's: W' = W + (alpha / r) B A, in float32."""

import warnings
from typing import TYPE_CHECKING, cast

from torch import nn
from transformers import PreTrainedModel

from orpo.chat_model.model_files import one_line
from orpo.command.errors import ExportError

if TYPE_CHECKING:
    from peft import PeftModel


def merge_adapter(tuned: "PeftModel") -> PreTrainedModel:
    """Return the base model with the adapter in its weights; PEFT merges in place, so `tuned` is used up.

    Where input and output embedding share one weight and the adapter changes only one of them, the other keeps its own:
    the merged model is no longer tied, and its configuration says so.

    Raises:
        ExportError: The adapter holds what cannot be merged, or was merged before.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in tuned.modules() if isinstance(module, BaseTunerLayer)]
    if not layers:
        raise ExportError("the model holds no adapter any more; it was merged before")
    if any(getattr(layer, "merged", False) for layer in layers):
        raise ExportError("the adapter is merged already; merged twice it would count twice")
    _untie(tuned)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that tied weights are no longer tied, which is what was asked for
            merged = cast(PreTrainedModel, tuned.merge_and_unload(safe_merge=True))
    except (ValueError, NotImplementedError) as problem:
        raise ExportError(f"the adapter cannot be merged ({one_line(problem)})") from problem
    merged.train(False)
    return merged


def _untie(tuned: "PeftModel") -> None:
    """Give the output embedding a weight of its own, where it shares one that the adapter changes in one place."""
    from peft.tuners.lora import LoraLayer

    base = cast(PreTrainedModel, tuned.get_base_model())
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not any(isinstance(layer, LoraLayer) for layer in (embedding, head)):
        return
    inner, outer = (
        cast(nn.Embedding, layer.get_base_layer() if isinstance(layer, LoraLayer) else layer)
        for layer in (embedding, head)
    )
    if outer is not None and inner.weight is outer.weight:
        outer.weight = nn.Parameter(outer.weight.detach().clone(), requires_grad=False)
