"""LoRA layers in fewer passes over memory: the same numbers, without PEFT's three intermediate tensors a layer.

PEFT computes `base(x) + lora_B(lora_A(x)) * scaling` as separate operations: beyond the product itself that is a tensor
of the output's size written for B's product, one for the scaling, one for the sum, and again for their gradients. Here
one autograd function adds B's product onto the base's result in place, and its backward adds A's share onto the
gradient in place; only x and the (tokens, rank) product are kept. That is only the same when nothing random or unusual
stands between, so every other case runs PEFT's own forward.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


def fold(model: nn.Module) -> int:
    """Let the plain LoRA layers of a PEFT model compute in the folded way; return how many there are."""
    from peft.tuners.lora import Linear as LoraLinear

    layers = [module for module in model.modules() if type(module) is LoraLinear]
    for layer in layers:
        _fold_layer(layer)
    return len(layers)


def _fold_layer(layer: Any) -> None:
    if hasattr(layer.forward, "is_folded"):
        return
    plain_forward = layer.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = _foldable_adapter(layer, x) if not args and not kwargs else None
        if name is None:
            result: Tensor = plain_forward(x, *args, **kwargs)
            return result
        base, lora_a, lora_b = layer.base_layer, layer.lora_A[name].weight, layer.lora_B[name].weight
        result = _FoldedLora.apply(x, base.weight, base.bias, lora_a, lora_b, layer.scaling[name])
        return result

    forward.is_folded = True  # type: ignore[attr-defined]
    layer.forward = forward


def _foldable_adapter(layer: Any, x: Tensor) -> str | None:
    """Return the one active, plain, dropout-free adapter in x's own dtype, where that is all there is."""
    if (
        layer.disable_adapters
        or layer.merged
        or len(layer.active_adapters) != 1
        or torch.is_autocast_enabled(x.device.type)
    ):
        return None
    name: str = layer.active_adapters[0]
    if name not in layer.lora_A or name in layer.lora_variant:
        return None
    base, dropout = layer.base_layer, layer.lora_dropout[name]
    is_plain = (
        type(base) is nn.Linear
        and not base.weight.requires_grad
        and (base.bias is None or not base.bias.requires_grad)
        and layer.lora_B[name].bias is None
        and (isinstance(dropout, nn.Identity) or not layer.training or getattr(dropout, "p", 1.0) == 0.0)
        and base.weight.dtype == layer.lora_A[name].weight.dtype == x.dtype
    )
    return name if is_plain else None


class _FoldedLora(torch.autograd.Function):
    """y = x W^T + b + s (x A^T) B^T with W and b frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (T, in)
        inner = linear(rows, a)  # (T, r)
        y = linear(rows, weight, bias).addmm_(inner, b.t(), alpha=scaling)
        ctx.save_for_backward(rows, inner, weight, a, b)
        ctx.scaling, ctx.shape = scaling, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, weight, a, b = ctx.saved_tensors
        d_y = gradients[0].reshape(-1, weight.shape[0])  # (T, out)
        d_inner = (d_y @ b).mul_(ctx.scaling)  # (T, r)
        d_x = (d_y @ weight).addmm_(d_inner, a).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return d_x, None, None, d_inner.t() @ rows, (d_y.t() @ inner).mul_(ctx.scaling), None
