"""Teach a causal language model to return token log-probabilities of packed replies, the cheapest way it can.

`install(model)` lets the model's forward take `packed=...`; everything else it answers as before. It has to be
the forward itself, because the wrappers of data parallel training only work around that. `best_layout` finds out how
the model can take them by trying: a few tokens packed must give the log-probabilities that the model's own logits give
sequence by sequence.
"""

import functools
import logging
from collections.abc import Callable
from typing import Final, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from orpo.chat_model.head import causal_model_of, head_of
from orpo.chat_model.log_probs import token_log_probs
from orpo.training.fast.folded_lora import fp32_products
from orpo.training.fast.packing import Layout, PackedReplies, ReplyGroup, pack_replies
from orpo.training.fast.shared_prompt_attention import IMPLEMENTATIONS, sharing_prompts

logger = logging.getLogger(__name__)

LAYOUTS: Final[tuple[Layout, ...]] = ("shared", "packed", "plain")
"""From the fastest to the one that works for every model."""

_TOLERANCE: Final = {torch.float32: 3e-4, torch.bfloat16: 0.1, torch.float16: 0.03}
"""Largest difference in fp32; mean difference in 16 bit, where a single logit of 30 is rounded by 0.06."""


class _HasLogits(Protocol):
    logits: Tensor


def install(model: nn.Module) -> None:
    """Let the model's forward answer `packed=PackedReplies` with (N,) log-probabilities."""
    causal_model = causal_model_of(model)
    if hasattr(causal_model.forward, "takes_packed_replies"):
        return
    plain_forward = causal_model.forward

    @functools.wraps(plain_forward)
    def forward(*args: object, packed: PackedReplies | None = None, **kwargs: object) -> object:
        if packed is None:
            return plain_forward(*args, **kwargs)
        products = forward.head_products  # type: ignore[attr-defined]
        return _packed_log_probs(causal_model, plain_forward, packed, products)

    forward.takes_packed_replies = True  # type: ignore[attr-defined]
    forward.head_products = torch.float32  # type: ignore[attr-defined]
    causal_model.forward = forward


def compute_head_in(model: nn.Module, products: torch.dtype) -> None:
    """Let the output head of a model that takes packed replies compute its fp32 products from these numbers."""
    causal_model_of(model).forward.head_products = products  # type: ignore[attr-defined]


def _packed_log_probs(
    causal_model: PreTrainedModel,
    plain_forward: Callable[..., _HasLogits],
    packed: PackedReplies,
    head_products: torch.dtype,
) -> Tensor:
    if packed.layout == "plain":
        return _one_by_one(plain_forward, packed)
    body = causal_model.base_model
    if packed.layout == "shared":
        # A mask of ones keeps transformers from guessing from the positions where a sequence begins.
        with sharing_prompts(packed.segments):
            output = body(
                input_ids=packed.input_ids,
                position_ids=packed.position_ids,
                attention_mask=torch.ones_like(packed.input_ids),
                use_cache=False,
            )
    else:
        # Here it should: positions that restart are its sign for sequences that do not see each other.
        output = body(input_ids=packed.input_ids, position_ids=packed.position_ids, use_cache=False)
    hidden = output.last_hidden_state[0].index_select(0, packed.hidden_places)
    with fp32_products(hidden.device, head_products):
        return token_log_probs(hidden, packed.targets, head_of(causal_model))


def _one_by_one(plain_forward: Callable[..., _HasLogits], packed: PackedReplies) -> Tensor:
    """Run each sequence by itself through the whole model and read its own logits: slow, and right for any decoder."""
    log_probs = []
    lengths = [one.stem + branch for one in packed.segments for branch in one.branches]
    start = 0
    for length in lengths:
        logits = plain_forward(input_ids=packed.input_ids[:, start : start + length], use_cache=False).logits[0]
        inside = (packed.hidden_places >= start) & (packed.hidden_places < start + length)
        log_p = torch.log_softmax(logits[packed.hidden_places[inside] - start].float(), dim=-1)
        log_probs.append(log_p.gather(1, packed.targets[inside, None]).squeeze(1))
        start += length
    return torch.cat(log_probs)


def best_layout(model: nn.Module, wanted: Layout = "shared") -> Layout:
    """Return the fastest layout, from the wanted one down, that gives this model's own log-probabilities.

    Installs on the model what the layout needs; says so in the log when it is not the wanted one.
    """
    install(model)
    problem = ""
    for layout in LAYOUTS[LAYOUTS.index(wanted) :]:
        if layout == "plain":
            break
        try:
            if layout == "shared":
                _use_shared_prompt_attention(model)
            difference = _difference(model, layout)
        except Exception as refusal:  # whatever a model we do not know does with a mask that it does not know
            problem = f"{type(refusal).__name__}: {refusal}"
        else:
            if difference <= _TOLERANCE[_dtype_of(model)]:
                return layout
            problem = f"log-probabilities differ by {difference:.2g}"
        if layout == "shared":
            _use_plain_attention(model)
        following = LAYOUTS[LAYOUTS.index(layout) + 1]
        logger.warning(
            "%s cannot be trained with the layout %r (%s); falling back to %r, which is slower and gives the same loss",
            type(causal_model_of(model)).__name__, layout, problem, following,
        )  # fmt: skip
    return "plain"


def _dtype_of(model: nn.Module) -> torch.dtype:
    quantized = getattr(causal_model_of(model).config, "quantization_config", None)
    if (dtype := getattr(quantized, "bnb_4bit_compute_dtype", None)) in _TOLERANCE:
        return cast(torch.dtype, dtype)
    return next((p.dtype for p in model.parameters() if p.dtype in (torch.float16, torch.bfloat16)), torch.float32)


def _use_shared_prompt_attention(model: nn.Module) -> None:
    causal_model = causal_model_of(model)
    present = causal_model.config._attn_implementation
    if present in IMPLEMENTATIONS.values():
        return
    if present not in IMPLEMENTATIONS:
        raise ValueError(f"the attention implementation is {present!r}, not one of {', '.join(IMPLEMENTATIONS)}")
    causal_model.set_attn_implementation(IMPLEMENTATIONS[present])
    if causal_model.config._attn_implementation != IMPLEMENTATIONS[present]:
        raise ValueError("its attention cannot be exchanged")


def _use_plain_attention(model: nn.Module) -> None:
    causal_model = causal_model_of(model)
    for plain, ours in IMPLEMENTATIONS.items():
        if causal_model.config._attn_implementation == ours:
            causal_model.set_attn_implementation(plain)


def sample_groups(count: int, vocabulary: int) -> list[ReplyGroup]:
    """Return made-up groups of two replies that begin alike, of different lengths, spread over the vocabulary."""
    groups = []
    for number in range(count):
        prompt, shared, first, second = 9 + number % 3, number % 3, 7 - number % 4, 5 + number % 5
        ids = [(1 + 101 * number + 7919 * (i + 1)) % vocabulary for i in range(prompt + shared + first + second)]
        stem = prompt + shared
        beginning = ids[prompt:stem]
        replies = ([*beginning, *ids[stem : stem + first]], [*beginning, *ids[stem + first :]])
        groups.append(ReplyGroup(ids[:prompt], replies))
    return groups


@torch.no_grad()
def _difference(model: nn.Module, layout: Layout) -> float:
    """Return the difference in log-probability between a layout and the model's own logits: see _TOLERANCE."""
    vocabulary = causal_model_of(model).config.get_text_config().vocab_size
    groups = sample_groups(4, vocabulary)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        ours, plain = (
            _by_entry(model, pack_replies(groups, layout=way, nll_on_prompt=True).to(device))
            for way in (layout, LAYOUTS[-1])
        )
    finally:
        model.train(was_training)
    # The entries stand in the same order in both; NaN must not pass for agreement.
    differences = torch.nan_to_num(ours - plain, nan=torch.inf).abs()
    return float(differences.max() if _dtype_of(model) == torch.float32 else differences.mean())


def _by_entry(model: nn.Module, packed: PackedReplies) -> Tensor:
    """Return the log-probability of each token of each reply, reply by reply."""
    log_probs: Tensor = model(packed=packed)
    order = torch.argsort(packed.entry_replies, stable=True)
    return log_probs[packed.entry_places[order]]
