"""The head of a causal language model: what turns hidden states into logits."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Head:
    """A module, then a scale and a soft cap where the model has them."""

    module: nn.Module
    softcap: float | None = None
    scale: float = 1.0

    @property
    def is_frozen_linear(self) -> bool:
        """Whether it is a plain linear layer that is not trained, so that its gradient is known in the forward pass."""
        module = self.module
        return (
            isinstance(module, nn.Linear)  # FSDP derives a class of its own from it
            and type(module).forward is nn.Linear.forward
            and not any(parameter.requires_grad for parameter in module.parameters())
            and module.weight.is_floating_point()
            and not hasattr(module.weight, "ds_id")  # a ZeRO-3 shard is only whole inside the module's own forward
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [N, V] of hidden states [N, D], in the head's own precision where nothing bends them."""
        logits: Tensor = self.module(hidden)
        if self.scale == 1.0 and self.softcap is None:
            return logits
        return bend(logits.float() * self.scale, self.softcap)


def bend(logits: Tensor, softcap: float | None) -> Tensor:
    """Return logits under a soft cap: c tanh(z / c)."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def causal_model_of(model: nn.Module) -> PreTrainedModel:
    """Return the causal language model inside a PEFT model, or the model itself."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return cast(PreTrainedModel, inner)


def head_of(model: PreTrainedModel) -> Head:
    """Return the head with the caps and scales that the usual models put on their logits."""
    config = model.config.get_text_config()
    divisor = getattr(config, "logits_scaling", None)  # Granite divides
    scale = (getattr(config, "logit_scale", None) or 1.0) / (divisor or 1.0)  # Cohere multiplies
    module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    assert isinstance(module, nn.Module)
    return Head(module, softcap=getattr(config, "final_logit_softcapping", None), scale=scale)
