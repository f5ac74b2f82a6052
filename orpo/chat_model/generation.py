"""Batched replies that do not depend on the batch: a seed gives the same reply alone or among others.

The project's own loop writes them where it can drive the model's architecture, and transformers' `generate` elsewhere.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from orpo.chat_model.chat_template import encode_prompt, is_plain, reply_end_ids
from orpo.chat_model.decoder import make_decoder
from orpo.chat_model.decoding import Request, common_beginning, decode
from orpo.chat_model.head import causal_model_of
from orpo.chat_model.token_picker import TokenPicker, row_keys
from orpo.command.errors import InputError
from orpo.records.messages import Message, user_message
from orpo.records.replies import Reply, Sampling

# Blanks, what a decoder writes for bytes that are no character (yet), and a joiner that joins nothing.
_TAIL = re.compile(r"[\s\ufffd\u200d]+\Z")
_FLAG_LETTERS = re.compile("[\U0001f1e6-\U0001f1ff]+\\Z")


def generate_replies(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    sampling: Sampling,
    *,
    seed: int,
    batch_size: int = 64,
    dtype: torch.dtype | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> list[Reply]:
    """Answer every conversation, in the order given; `iterate_replies` says how.

    `on_batch` is called with how many replies are done since the last call, for progress bars.
    """
    replies: list[Reply | None] = [None] * len(conversations)
    for row, reply in iterate_replies(
        model, tokenizer, conversations, sampling, seed=seed, batch_size=batch_size, dtype=dtype
    ):
        replies[row] = reply
        if on_batch is not None:
            on_batch(1)
    return [reply for reply in replies if reply is not None]


def iterate_replies(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    sampling: Sampling,
    *,
    seed: int,
    batch_size: int = 64,
    examples: int = 0,
    dtype: torch.dtype | None = None,
    on_step: Callable[[], None] | None = None,
) -> Iterator[tuple[int, Reply]]:
    """Yield (place among the conversations, reply) as each reply ends; the next conversation takes its place.

    The same conversation given twice in one call gets two different replies (unless greedy).

    Args:
        model: A causal language model, with or without a PEFT adapter.
        tokenizer: Its tokenizer, with a chat template.
        conversations: Lists of messages, each ending where the assistant is to answer.
        sampling: How tokens are picked.
        seed: With the conversation it decides the reply.
        batch_size: Conversations at once; it changes the speed, not the replies.
        examples: How many messages all conversations begin with, today and whenever these replies are to be had again;
            they are read and kept once. Only the speed changes, but for the last bit of rounding.
        dtype: The number format to compute in; the model's own if None.
        on_step: Called before each pass through the model; it may raise to stop.
    """
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    check_context(model, prompts, sampling.max_new_tokens)
    end_ids = reply_end_ids(model, tokenizer)
    common = _common_tokens(tokenizer, conversations[0][:examples], prompts) if examples and prompts else 0
    request = Request(prompts, TokenPicker(sampling, row_keys(prompts), seed), end_ids, batch_size, common, on_step)
    for row, ids in _finished_rows(model, tokenizer, request, dtype):
        yield row, as_reply(tokenizer, ids, end_ids)


def sample_ids(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seed: int,
    batch_size: int = 64,
    dtype: torch.dtype | None = None,
) -> list[tuple[list[int], Reply]]:
    """Answer prompts that are token ids already: the ids of each reply as they were sampled, and what they say.

    A reply that the model ended holds its end token, nothing after it. The other arguments are those of
    `iterate_replies`.
    """
    check_context(model, prompts, sampling.max_new_tokens)
    end_ids = reply_end_ids(model, tokenizer)
    request = Request(prompts, TokenPicker(sampling, row_keys(prompts), seed), end_ids, batch_size)
    found: list[tuple[list[int], Reply]] = [([], Reply("", finished=False, tokens=0))] * len(prompts)
    for row, ids in _finished_rows(model, tokenizer, request, dtype):
        reply = as_reply(tokenizer, ids, end_ids)
        found[row] = list(ids[: reply.tokens]), reply
    return found


def _finished_rows(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, request: Request, dtype: torch.dtype | None
) -> Iterator[tuple[int, list[int]]]:
    """Yield (row, ids) of each reply as it is done."""
    if not request.prompts:
        return
    with answering(model) as was_training:
        decoder = make_decoder(model, dtype, keep=not was_training)
        if decoder is None:
            yield from _by_transformers(model, tokenizer, request)
            return
        ids: list[list[int]] = [[] for _ in request.prompts]
        for events in decode(decoder, request):
            for row, token, is_last in events:
                ids[row].append(token)
                if is_last:
                    yield row, ids[row]


def _common_tokens(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Message], prompts: Sequence[Sequence[int]]
) -> int:
    """Return how many tokens the examples are, whatever follows them; 0 where a conversation does not begin so.

    Found from the examples alone, so that it is the same whichever conversations are answered together.
    """
    openings = [encode_prompt(tokenizer, [*examples, *user_message(text)]) for text in ("a", "1")]
    common = common_beginning(openings)
    begins = all(len(prompt) > common and list(prompt[:common]) == openings[0][:common] for prompt in prompts)
    return common if begins else 0


def check_context(model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raise InputError, with row numbers, for prompts that leave no room for a reply in the model's context."""
    limit = context_length(model)
    long = [row for row, prompt in enumerate(prompts, start=1) if limit and len(prompt) + max_new_tokens > limit]
    if long:
        rows = ", ".join(map(str, long[:5])) + (f" and {len(long) - 5} more" if len(long) > 5 else "")
        longest = max(len(prompts[row - 1]) for row in long)
        raise InputError(
            f"prompt {rows}: up to {longest} tokens, and with max_new_tokens {max_new_tokens} that is more than the "
            f"model's context of {limit}; shorten or leave out these prompts, or lower max_new_tokens"
        )


def context_length(model: nn.Module) -> int | None:
    """Return how many tokens the model can hold, or None where its configuration does not say."""
    limit = getattr(causal_model_of(model).config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def clean_reply(text: str) -> str:
    """Return a decoded reply without surrounding blanks and without half a character or half an emoji at its end."""
    text = _TAIL.sub("", text.lstrip())
    while (letters := _FLAG_LETTERS.search(text)) and len(letters[0]) % 2:  # two letters make a flag, one is half of it
        text = _TAIL.sub("", text[:-1])
    return text


@contextmanager
def answering(model: nn.Module) -> Iterator[bool]:
    """Switch dropout off for the block, and back on after it where a training run had it on; the block gets whether."""
    was_training = model.training
    model.eval()
    try:
        yield was_training
    finally:
        if was_training:
            model.train()


def as_reply(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], end_ids: Sequence[int]) -> Reply:
    """Return what a row of new ids says, up to the first that ends a reply."""
    end = next((position for position, token in enumerate(ids) if token in end_ids), None)
    if is_plain(tokenizer):  # the token that ends the line may hold its last full stop
        text = decode_text(tokenizer, ids if end is None else ids[: end + 1]).lstrip(" ").partition("\n")[0]
    else:
        text = decode_text(tokenizer, ids if end is None else ids[:end])
    return Reply(clean_reply(text), end is not None, len(ids) if end is None else end + 1)


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return ids as text, special tokens left out and blanks as they are."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def _by_transformers(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, request: Request
) -> Iterator[tuple[int, list[int]]]:
    """Yield (row, ids) from transformers' own generate, in batches padded on the left."""
    prompts, end_ids, batch_size = request.prompts, list(request.end_ids), max(1, request.slots)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    pad = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else end_ids[0]
    device = next(model.parameters()).device
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = max(len(prompts[row]) for row in rows)
        padding = [longest - len(prompts[row]) for row in rows]
        ids = [[pad] * count + list(prompts[row]) for row, count in zip(rows, padding, strict=True)]
        mask = [[0] * count + [1] * (longest - count) for count in padding]
        with torch.no_grad():
            output = model.generate(  # type: ignore[operator]  # transformers'
                input_ids=torch.tensor(ids, device=device),
                attention_mask=torch.tensor(mask, device=device),
                generation_config=_plain_config(request.picker.sampling.max_new_tokens, end_ids, pad),
                logits_processor=LogitsProcessorList([_Picked(request.picker, rows, longest, request.on_step)]),
            )
        yield from zip(rows, output[:, longest:].tolist(), strict=True)


def _plain_config(max_new_tokens: int, end_ids: list[int], pad: int) -> GenerationConfig:
    """Say everything, because what is left out comes from the model's own generation_config.json."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_ids,
        pad_token_id=pad,
    )


class _Picked(LogitsProcessor):
    """Leaves our pick as the only possible token, so that the argmax of `generate(do_sample=False)` finds it."""

    def __init__(
        self, picker: TokenPicker, rows: list[int], prompt_length: int, on_step: Callable[[], None] | None
    ) -> None:
        self._picker, self._rows, self._prompt_length, self._on_step = picker, rows, prompt_length, on_step

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._on_step is not None:
            self._on_step()
        step = input_ids.shape[1] - self._prompt_length
        picked = self._picker.pick(scores, self._rows, [step] * len(self._rows))
        return torch.full_like(scores, -torch.inf).scatter_(1, picked[:, None], 0.0)
