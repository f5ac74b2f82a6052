"""LoRA layers in fewer passes over memory, and their frozen products in bfloat16 where the processor is fast at it.

PEFT computes `base(x) + lora_B(lora_A(x)) * scaling` as separate operations: beyond the product itself that is a tensor
of the output's size written for B's product, one for the scaling, one for the sum, and again for their gradients. Here
one autograd function adds B's product onto the base's result in place, and its backward adds A's share onto the
gradient in place; only x and the (tokens, rank) product are kept. That is only the same when nothing random or unusual
stands between, so every other case runs PEFT's own forward.

With `products=torch.bfloat16` the frozen weights are kept in bfloat16 and each product takes its inputs rounded to
it, as autocast does, while the adapter's weights, their gradients and everything between the layers stay fp32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

if TYPE_CHECKING:
    from peft.tuners.lora import Linear as LoraLinear


_PRECISIONS: Final = {torch.float32: "ieee", torch.bfloat16: "bf16"}
"""What oneDNN calls the numbers that an fp32 product is computed from."""


@contextmanager
def fp32_products(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Compute fp32 products on a CPU from numbers of this kind within the block.

    bfloat16 sends them to oneDNN, which may round their inputs and keeps sums in fp32. For large products alone:
    attention over 100 tokens takes four to six times as long with it as without (docs/training_speed.md).
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    earlier = matmul.fp32_precision
    if device.type == "cpu":
        matmul.fp32_precision = _PRECISIONS[dtype]
    try:
        yield
    finally:
        matmul.fp32_precision = earlier


def fold(model: nn.Module, products: torch.dtype = torch.float32) -> int:
    """Let the plain LoRA layers of a PEFT model compute in the folded way; return how many there are.

    `products=torch.bfloat16` moves the frozen weights of an fp32 model's linear layers into it; the output head keeps
    its own, which the embeddings share, and rounds them for each product (`compute_head_in`).
    """
    from peft.tuners.lora import Linear as LoraLinear

    layers = [module for module in model.modules() if type(module) is LoraLinear]
    for layer in layers:
        if products == torch.bfloat16 and _is_plain(layer):
            layer.base_layer.weight.data = layer.base_layer.weight.data.to(products)
        _fold_layer(layer)
    return len(layers)


def _is_plain(layer: "LoraLinear") -> bool:
    """Whether a LoRA layer holds one ordinary adapter without dropout over a frozen fp32 linear layer."""
    base, names = layer.base_layer, layer.active_adapters
    return (
        type(base) is nn.Linear
        and base.weight.dtype == torch.float32
        and not any(parameter.requires_grad for parameter in base.parameters())
        and len(names) == 1
        and set(layer.lora_A) == set(names)
        and isinstance(layer.lora_dropout[names[0]], nn.Identity)
        and names[0] not in layer.lora_variant
        and layer.lora_B[names[0]].bias is None
    )


def _fold_layer(layer: "LoraLinear") -> None:
    if hasattr(layer.forward, "is_folded"):
        return
    plain_forward = layer.forward

    def forward(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        base = cast(nn.Linear, layer.base_layer)
        name = _foldable_adapter(layer, x) if not args and not kwargs else None
        if name is not None:
            factors = layer.lora_A[name].weight, layer.lora_B[name].weight
            folded: Tensor = _FoldedLora.apply(x, base.weight, base.bias, *factors, layer.scaling[name])
            return folded
        if layer.disable_adapters and base.weight.dtype != x.dtype:  # the reference of a model with bfloat16 products
            bias = None if base.bias is None else base.bias.to(base.weight.dtype)
            return linear(x.to(base.weight.dtype), base.weight, bias).to(x.dtype)
        result: Tensor = plain_forward(x, *args, **kwargs)
        return result

    forward.is_folded = True  # type: ignore[attr-defined]
    layer.forward = forward  # type: ignore[method-assign]


def _foldable_adapter(layer: "LoraLinear", x: Tensor) -> str | None:
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
        and layer.lora_A[name].weight.dtype == x.dtype
        and base.weight.dtype in (x.dtype, torch.bfloat16)
    )
    return name if is_plain else None


class _FoldedLora(torch.autograd.Function):
    """y = x W^T + b + s (x A^T) B^T with W and b frozen; products in W's dtype, x, y, A, B and gradients in x's."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        dtype = weight.dtype
        rows = x.reshape(-1, x.shape[-1]).to(dtype)  # (T, in)
        a, b = a.to(dtype), b.to(dtype)
        inner = linear(rows, a)  # (T, r)
        y = linear(rows, weight, None if bias is None else bias.to(dtype)).addmm_(inner, b.t(), alpha=scaling)
        ctx.save_for_backward(rows, inner, weight, a, b)
        ctx.scaling, ctx.shape, ctx.dtype = scaling, x.shape, x.dtype
        return y.view(*x.shape[:-1], -1).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, inner, weight, a, b = ctx.saved_tensors
        d_y = gradients[0].reshape(-1, weight.shape[0]).to(weight.dtype)  # (T, out)
        d_inner = (d_y @ b).mul_(ctx.scaling)  # (T, r)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (d_y @ weight).addmm_(d_inner, a).view(ctx.shape).to(ctx.dtype)
        d_a, d_b = d_inner.t() @ rows, (d_y.t() @ inner).mul_(ctx.scaling)
        return d_x, None, None, d_a.to(ctx.dtype), d_b.to(ctx.dtype), None
