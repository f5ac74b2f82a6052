"""RMS norms and gated activations in fewer passes over memory: the same numbers, and less kept for the backward pass.

Between a layer's products stand small operations that autograd takes one by one: a norm is seven of them forward and a
dozen backward, each a pass over all tokens, and `silu(gate) * up` keeps three tensors of the MLP's width where two hold
all that its gradient needs. Here each is one autograd function.

No architecture is named. A module is taken by its parts (one weight vector and an epsilon; gate, up and down
projections and an activation), and only when it then gives what its own forward gives for random input, so a norm with
a rule that we do not know is left as it is. Weights that are trained, autocast, and types other than fp32 run the plain
forward too.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

_EPSILONS: Final = ("variance_epsilon", "eps")


def fold_layers(model: nn.Module) -> int:
    """Let a model's RMS norms and gated MLPs compute in the folded way; return how many there are."""
    return sum(_fold_norm(module) or _fold_gated_mlp(module) for module in model.modules())


def _fold_norm(module: Any) -> bool:
    """Exchange a norm's forward if it is an RMS norm: x / rms(x) times its weight, or (Gemma) its weight plus one."""
    epsilon = next((value for name in _EPSILONS if isinstance(value := getattr(module, name, None), float)), None)
    parameters = dict(module.named_parameters())
    if epsilon is None or list(parameters) != ["weight"] or module.weight.dim() != 1:
        return False
    plain_forward = module.forward
    if hasattr(plain_forward, "is_folded"):
        return True

    def folded(x: Tensor, offset: float) -> Tensor:
        y: Tensor = _RmsNorm.apply(x, module.weight + offset if offset else module.weight, epsilon)
        return y

    offset = next((o for o in (0.0, 1.0) if _agree(module, plain_forward, lambda x, o=o: folded(x, o))), None)
    if offset is None:
        return False

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or not _is_plain_fp32(x, module.weight):
            result: Tensor = plain_forward(x, *args, **kwargs)
            return result
        return folded(x, offset)

    _exchange(module, forward)
    return True


def _fold_gated_mlp(module: Any) -> bool:
    """Exchange the forward of an MLP that is down(silu(gate(x)) * up(x)); its projections keep their own."""
    if {"gate_proj", "up_proj", "down_proj", "act_fn"} != {name for name, _ in module.named_children()}:
        return False
    plain_forward = module.forward
    if hasattr(plain_forward, "is_folded"):
        return True

    def folded(x: Tensor) -> Tensor:
        y: Tensor = module.down_proj(_SiluTimes.apply(module.gate_proj(x), module.up_proj(x)))
        return y

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or not _is_plain_fp32(x):
            result: Tensor = plain_forward(x, *args, **kwargs)
            return result
        return folded(x)

    if not _agree(module, plain_forward, folded):
        return False
    _exchange(module, forward)
    return True


def _exchange(module: Any, forward: Any) -> None:
    forward.is_folded = True
    module.forward = forward


@torch.no_grad()
def _agree(module: nn.Module, plain_forward: Any, folded: Any) -> bool:
    """Whether the folded forward gives what a module's own gives, for a few random rows."""
    weight = next(module.parameters())
    if weight.dtype != torch.float32 or weight.numel() == 0:
        return False
    was_training = module.training
    module.eval()  # an adapter's dropout would tell them apart
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 3, weight.shape[-1], generator=generator).to(weight.device)
    try:
        return torch.allclose(folded(x), plain_forward(x), rtol=1e-5, atol=1e-6)
    except Exception:  # whatever a module that only looks like one of these does
        return False
    finally:
        module.train(was_training)


def _is_plain_fp32(x: Tensor, weight: Tensor | None = None) -> bool:
    return (
        x.dtype == torch.float32
        and not torch.is_autocast_enabled(x.device.type)
        and (weight is None or (weight.dtype == torch.float32 and not weight.requires_grad))
    )


class _RmsNorm(torch.autograd.Function):
    """y = x r w with r = (mean(x^2) + eps)^(-1/2) and w frozen; d_x = r g - x r^3 mean(g x) with g = d_y w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        r = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, r)
        y: Tensor = (x * r).mul_(weight)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r = ctx.saved_tensors
        g = gradients[0] * weight
        share = (g * x).sum(-1, keepdim=True).mul_(r.pow(3)).div_(x.shape[-1])
        return g.mul_(r).addcmul_(x, share, value=-1.0), None, None


class _SiluTimes(torch.autograd.Function):
    """silu(gate) * up; keeps the two and computes silu(gate) once more in the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_up = silu(gate).mul_(gradients[0])
        d_silu = gradients[0] * up
        d_gate = torch.ops.aten.silu_backward.grad_input(d_silu, gate, grad_input=d_silu)
        return d_gate, d_up
