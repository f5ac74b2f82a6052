"""A model made ready to write replies: its adapter folded into its weights, the weights laid out for this processor.

The copy shares everything with the model but what it computes in another form: on a CPU the linear layers, packed for
oneDNN, so that no product has to rearrange its weights first; elsewhere those that an adapter changes. The model itself
stays as it is, so a training run can ask for replies between two steps.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from orpo.chat_model.head import Head, causal_model_of, head_of
from orpo.chat_model.slot_cache import IMPLEMENTATION, SlotCache

if TYPE_CHECKING:
    from peft.tuners.lora import Linear as LoraLinear

_LARGEST_COPY_BYTES: Final = 4 * 2**30  # of weights; a larger model computes with its own, unpacked and unfolded
_STEP_ROWS: Final = 64  # that a bfloat16 product takes where each slot reads one token, no more and no fewer
_PREFILL_ROWS: Final = 512  # the same where prompts are read: 1.7 to 2.7 times as fast a row on a core with AMX
_PREFILL_TOKENS: Final = 1024  # read at once: enough for fast products, and little memory beside the weights
_PREFILL_STEP: Final = 32  # lengths are padded to this: then no prompt's numbers depend on the longer ones beside it
_LAYERS_DRIVEN: Final = {"full_attention", "sliding_attention"}
_TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}  # mean difference in logits

_kept: "WeakKeyDictionary[nn.Module, tuple[object, Decoder | None]]" = WeakKeyDictionary()
_driven: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


class Decoder:
    """Reads prompts into the slots of a cache, and then one token for each slot at a time."""

    def __init__(self, model: PreTrainedModel, rows: "_Rows") -> None:
        self._body: nn.Module = model.base_model
        self._rows = rows
        self._head: Head = head_of(model)
        self.device = next(model.parameters()).device
        self._dummy_mask = torch.zeros(1, 1, 1, 1, device=self.device)  # 4D, so that no model makes one of its own

    @torch.no_grad()
    def begin(self, cache: SlotCache, ids: Sequence[int], *, apart: bool) -> None:
        """Read what all prompts begin with; `apart` keeps it once, for all slots to attend to."""
        padded = _padded(0, len(ids))
        tokens = torch.tensor([[*ids, *[0] * (padded - len(ids))]], device=self.device)
        with cache.beginning(len(ids), apart=apart), self._rows.reading():
            self._run(tokens, torch.arange(padded, device=self.device)[None], cache)

    @torch.no_grad()
    def fill(self, cache: SlotCache, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read what each prompt holds after the common beginning into its slot; return the next logits [slots, V]."""
        parts = []
        order = sorted(range(len(slots)), key=lambda index: len(prompts[index]))
        while order:
            count = 1
            while count < len(order):
                if _padded(cache.begun, len(prompts[order[count]])) * (count + 1) > _PREFILL_TOKENS:
                    break
                count += 1
            group, order = order[:count], order[count:]
            parts.append((group, self._fill(cache, [slots[index] for index in group], [prompts[i] for i in group])))
        joined = torch.cat([logits for _, logits in parts])
        return joined[torch.tensor([index for group, _ in parts for index in group]).argsort().to(self.device)]

    def _fill(self, cache: SlotCache, slots: list[int], prompts: list[Sequence[int]]) -> Tensor:
        padded = _padded(cache.begun, max(map(len, prompts)))
        rows = [[*prompt, *[0] * (padded - len(prompt))] for prompt in prompts]
        places = torch.arange(padded, device=self.device) + cache.begun
        with cache.filling(slots, list(map(len, prompts)), padded), self._rows.reading():
            hidden = self._run(torch.tensor(rows, device=self.device), places.expand(len(rows), -1), cache)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        return self._head.logits(hidden[torch.arange(len(rows), device=self.device), last])

    @torch.no_grad()
    def step(self, cache: SlotCache, tokens: Tensor) -> Tensor:
        """Read one token for each slot and return the next logits [slots, V]."""
        with cache.stepping():
            places = cache.places
            hidden = self._run(tokens.to(self.device)[:, None], places[:, None], cache)
        return self._head.logits(hidden[:, 0])

    def _run(self, ids: Tensor, places: Tensor, cache: SlotCache) -> Tensor:
        output = self._body(
            input_ids=ids,
            position_ids=places,
            attention_mask=self._dummy_mask,
            past_key_values=cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


def _padded(begun: int, length: int) -> int:
    """Return what to pad this many tokens to, so that they and what came before are a multiple of _PREFILL_STEP."""
    return -(-(begun + length) // _PREFILL_STEP) * _PREFILL_STEP - begun


def make_decoder(model: nn.Module, dtype: torch.dtype | None = None, *, keep: bool = True) -> Decoder | None:
    """Return a model's decoder, made now or before; None where the model's architecture is not one that it can drive.

    Args:
        model: A causal language model, with or without a PEFT adapter, as it answers now: adapter on or off.
        dtype: What it computes in; its own number format if None.
        keep: Whether to keep it for the next call; between two steps of training it would only take memory.
    """
    causal = causal_model_of(model)
    dtype = dtype or causal.dtype
    if _driven.get(causal) is False:
        return None
    state = (dtype, _state_of(causal))
    if causal in _kept and _kept[causal][0] == state:
        return _kept[causal][1]
    _kept.pop(causal, None)  # before the next one is made, or there would be memory for both
    decoder = _build(causal, dtype)
    if decoder is not None and causal not in _driven:
        _driven[causal] = _agrees(decoder, causal, dtype)
    decoder = decoder if _driven.get(causal) else None
    if keep:
        _kept[causal] = state, decoder
    return decoder


def _state_of(causal: PreTrainedModel) -> object:
    """Return what changes whenever the model would answer differently: which adapters are on, and every change made."""
    adapters = [
        (module.disable_adapters, tuple(module.active_adapters))  # type: ignore[arg-type]
        for module in causal.modules()
        if hasattr(module, "get_base_layer")
    ]
    versions = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in causal.parameters()]
    return adapters, versions


def _build(causal: PreTrainedModel, dtype: torch.dtype) -> Decoder | None:
    config = causal.config.get_text_config()
    if not set(getattr(config, "layer_types", None) or ()) <= _LAYERS_DRIVEN or config.is_encoder_decoder:
        return None
    shared = {id(tensor): tensor for tensor in (*causal.parameters(), *causal.buffers())}
    try:
        twin = copy.deepcopy(causal, shared)
    except Exception:  # whatever a model's own code keeps that cannot be copied
        return None
    twin.train(False)
    twin.config._attn_implementation = IMPLEMENTATION
    rows = _Rows()
    with torch.no_grad():
        _replace_layers(twin, dtype, rows)
    return Decoder(twin, rows)


def _replace_layers(twin: PreTrainedModel, dtype: torch.dtype, rows: "_Rows") -> None:
    """Fold and pack the twin's linear layers and bring everything to the number format, unless it is too large."""
    if sum(weight.numel() for weight in twin.parameters()) * dtype.itemsize > _LARGEST_COPY_BYTES:
        return
    _replace_children(twin, dtype, rows if twin.device.type == "cpu" and _can_pack(dtype) else None)
    for module in twin.modules():
        for key, weight in module._parameters.items():
            if weight is not None and weight.is_floating_point() and weight.dtype != dtype:
                module._parameters[key] = nn.Parameter(weight.to(dtype), requires_grad=False)


def _replace_children(parent: nn.Module, dtype: torch.dtype, rows: "_Rows | None") -> None:
    """Replace linear layers: all of them by packed ones where `rows` is given, else those that an adapter changes."""
    for name, child in parent.named_children():
        is_adapted = hasattr(child, "get_base_layer")
        weight = _folded_weight(child)
        if weight is not None and (rows is not None or is_adapted):
            base = cast(nn.Linear, child.get_base_layer() if is_adapted else child)  # type: ignore[operator]
            bias = None if base.bias is None else base.bias.to(dtype)
            setattr(parent, name, _linear(weight.to(dtype), bias, rows))
        elif not is_adapted:  # an adapter that cannot be folded needs its layers as they are
            _replace_children(child, dtype, rows)


def _folded_weight(module: nn.Module) -> Tensor | None:
    """Return the weight of a linear layer with the adapters that are on folded in; None for anything else."""
    if type(module) is nn.Linear:
        return module.weight
    base = module.get_base_layer() if hasattr(module, "get_base_layer") else None  # type: ignore[operator]
    if type(base) is not nn.Linear or not hasattr(module, "lora_A"):
        return None
    layer = cast("LoraLinear", module)
    weight: Tensor = base.weight
    if layer.disable_adapters or layer.merged:
        return weight
    for adapter in layer.active_adapters:
        if adapter in layer.lora_variant or getattr(layer.lora_B, adapter, None) is None:
            return None
        if layer.lora_bias.get(adapter):
            return None
        weight = weight + layer.get_delta_weight(adapter)
    return weight


def _linear(weight: Tensor, bias: Tensor | None, rows: "_Rows | None") -> nn.Module:
    if rows is not None:
        return _PackedLinear(weight, bias, rows)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


class _Rows:
    """How many rows the bfloat16 products of one decoder take."""

    def __init__(self) -> None:
        self.count = _STEP_ROWS

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within this, prompts are read."""
        self.count = _PREFILL_ROWS
        try:
            yield
        finally:
            self.count = _STEP_ROWS


class _PackedLinear(nn.Module):
    """A linear layer whose weight lies as oneDNN multiplies it.

    Measured at 50 rows in bfloat16: 1.3 to 1.8 times as fast as nn.Linear, which rearranges the weight each time. And a
    row's result does not depend on how many rows there are, which nn.Linear's does: in bfloat16 because there are
    always equally many, in float32 from two rows on.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: _Rows) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _STEP_ROWS)
        self._bias = None if bias is None else bias.detach()
        self._rows = rows if weight.dtype == torch.bfloat16 else None

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        least, most = (2, len(rows)) if self._rows is None else (self._rows.count, self._rows.count)
        parts = [self._multiply(rows[start : start + most], least) for start in range(0, len(rows), most)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(*x.shape[:-1], -1)

    def _multiply(self, rows: Tensor, least: int) -> Tensor:
        padded = pad(rows, (0, 0, 0, least - len(rows))) if len(rows) < least else rows
        result: Tensor = torch.ops.mkldnn._linear_pointwise(padded, self._weight, self._bias, "none", [], "")
        return result[: len(rows)]


def _can_pack(dtype: torch.dtype) -> bool:
    """Tell whether this build of torch packs weights for this processor, by trying."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        weight, x = torch.eye(8, dtype=dtype), torch.ones(2, 8, dtype=dtype)
        return torch.equal(_PackedLinear(weight, None, _Rows())(x), x)
    except (RuntimeError, AttributeError):
        return False


@torch.no_grad()
def _agrees(decoder: Decoder, causal: PreTrainedModel, dtype: torch.dtype) -> bool:
    """Tell whether the decoder gives the model's own logits, on a few tokens: once for each model.

    Two prompts of different lengths with a shared beginning, and one token more for each.
    """
    vocabulary = causal.config.get_text_config().vocab_size
    rows = [[(7919 * place + 101 * row * (place > 2) + 1) % vocabulary for place in range(9 + row)] for row in (0, 3)]
    try:
        found = []
        for apart in (False, True):
            cache = SlotCache(2, decoder.device)
            decoder.begin(cache, rows[0][:3], apart=apart)
            first = decoder.fill(cache, [0, 1], [row[3:-1] for row in rows])
            found += [first, decoder.step(cache, torch.tensor([row[-1] for row in rows]))]
        own = [causal(input_ids=torch.tensor([row], device=decoder.device)).logits[0, -2:] for row in rows]
    except Exception:  # whatever a model that we do not know does with a cache and an attention that it does not know
        return False
    wanted = torch.stack(own, dim=1).float().repeat(2, 1, 1)
    difference = torch.nan_to_num(torch.stack(found).float() - wanted, nan=torch.inf).abs().mean()
    return bool(difference <= _TOLERANCE.get(dtype, 0.0) * max(1.0, float(wanted.std())))
