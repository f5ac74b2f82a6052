"""Batched replies whose sampling does not depend on the batch: a seed gives the same reply alone or among others.

Transformers samples a whole batch from one stream of random numbers, so a reply changes with its neighbours. Here every
conversation has its own stream, keyed by the seed and the conversation; one number per token picks from the candidates
in order of their probability.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from orpo.chat_model.chat_template import encode_prompt, reply_end_ids
from orpo.command.errors import InputError
from orpo.records.messages import Message
from orpo.records.replies import Reply, Sampling

# Blanks, what a decoder writes for bytes that are no character (yet), and a joiner that joins nothing.
_TAIL = re.compile(r"[\s\ufffd\u200d]+\Z")
_FLAG_LETTERS = re.compile("[\U0001f1e6-\U0001f1ff]+\\Z")
_CANDIDATES = 256  # nearly always enough for top-p, and much cheaper than sorting the whole vocabulary


def generate_replies(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Sequence[Message]],
    sampling: Sampling,
    *,
    seed: int,
    batch_size: int = 16,
    on_batch: Callable[[int], None] | None = None,
) -> list[Reply]:
    """Answer every conversation, in the order given.

    The same conversation given twice in one call gets two different replies (unless greedy).

    Args:
        model: A causal language model, with or without a PEFT adapter.
        tokenizer: Its tokenizer, with a chat template.
        conversations: Lists of messages, each ending where the assistant is to answer.
        sampling: How tokens are picked.
        seed: With the conversation it decides the reply.
        batch_size: Conversations at once; it changes the speed, not the replies.
        on_batch: Called after each batch with its size, for progress bars.
    """
    prompts = [encode_prompt(tokenizer, messages) for messages in conversations]
    check_context(model, prompts, sampling.max_new_tokens)
    streams = row_keys(prompts)
    end_ids = reply_end_ids(model, tokenizer)
    replies: list[Reply | None] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), max(1, batch_size)):
        rows = order[start : start + max(1, batch_size)]
        batch = [prompts[row] for row in rows]
        picker = TokenPicker(sampling, [streams[row] for row in rows], seed, max(map(len, batch)))
        for row, ids in zip(rows, run_batch(model, tokenizer, batch, picker, end_ids), strict=True):
            replies[row] = _as_reply(tokenizer, ids, end_ids)
        if on_batch is not None:
            on_batch(len(rows))
    return [reply for reply in replies if reply is not None]


def check_context(model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
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


def context_length(model: Any) -> int | None:
    """Return how many tokens the model can hold, or None where its configuration does not say."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit else None


def clean_reply(text: str) -> str:
    """Return a decoded reply without surrounding blanks and without half a character or half an emoji at its end."""
    text = _TAIL.sub("", text.lstrip())
    while (letters := _FLAG_LETTERS.search(text)) and len(letters[0]) % 2:  # two letters make a flag, one is half of it
        text = _TAIL.sub("", text[:-1])
    return text


class TokenPicker(LogitsProcessor):
    """Picks each row's next token from its own random numbers, and leaves it as the only possible one.

    It runs inside `generate(do_sample=False)`, whose argmax then finds the pick.
    """

    def __init__(self, sampling: Sampling, row_keys: Sequence[str], seed: int, prompt_length: int) -> None:
        """Draw every row's numbers in advance: [rows, max_new_tokens], on the CPU, so no device changes them."""
        self._sampling = sampling
        self._prompt_length = prompt_length
        self.max_new_tokens = sampling.max_new_tokens
        self._numbers: Tensor | None = None
        if sampling.temperature > 0:
            drawn = [_draw(seed, key, sampling.max_new_tokens) for key in row_keys]
            self._numbers = torch.stack(drawn)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [B, V] in which only the picked token is possible (greedy: the scores, penalised)."""
        step = input_ids.shape[1] - self._prompt_length
        scores = self._penalise(input_ids[:, self._prompt_length :], scores.float())
        if self._numbers is None:
            return scores
        picked = self._pick(scores / self._sampling.temperature, self._numbers[:, step].to(scores.device))
        only = torch.full_like(scores, -torch.inf)
        return only.scatter_(1, picked[:, None], 0.0)

    def _penalise(self, reply_ids: Tensor, scores: Tensor) -> Tensor:
        penalty = self._sampling.repetition_penalty
        if penalty == 1.0 or reply_ids.shape[1] == 0:
            return scores
        seen = scores.gather(1, reply_ids)
        return scores.scatter(1, reply_ids, torch.where(seen < 0, seen * penalty, seen / penalty))

    def _pick(self, scores: Tensor, numbers: Tensor) -> Tensor:
        """Sample by inverse CDF over the candidates in falling order: scores [B, V], numbers [B] -> ids [B]."""
        size, top_k, top_p = scores.shape[1], self._sampling.top_k, self._sampling.top_p
        if 0 < top_k < size:
            mass, ids = _falling(scores, top_k, None)
        else:
            total = scores.logsumexp(dim=1, keepdim=True)
            mass, ids = _falling(scores, min(_CANDIDATES, size), total)
            if bool((mass[:, -1] < top_p).any()):  # a flat distribution, or no top-p: the candidates do not do
                mass, ids = _falling(scores, size, total)
        # A token is kept while those before it have not reached top_p; the first always is.
        before = torch.cat([torch.zeros_like(mass[:, :1]), mass[:, :-1]], dim=1)
        kept = (before < top_p).sum(dim=1, keepdim=True)
        target = numbers[:, None] * mass.gather(1, kept - 1)
        index = torch.minimum(torch.searchsorted(mass, target, right=True), kept - 1)
        return ids.gather(1, index)[:, 0]


def _falling(scores: Tensor, count: int, total: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return cumulative probabilities [B, count] of the likeliest tokens, and their ids; None: among these only."""
    values, ids = scores.topk(count, dim=1)
    total = values.logsumexp(dim=1, keepdim=True) if total is None else total
    return (values - total).exp().cumsum(dim=1), ids


def _draw(seed: int, key: str, count: int) -> Tensor:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.rand(count, generator=generator)


def row_keys(prompts: Sequence[Sequence[int]]) -> list[str]:
    """Key a row by its prompt and how often that prompt came before, so that order and neighbours do not count."""
    seen: dict[tuple[int, ...], int] = {}
    keys = []
    for prompt in map(tuple, prompts):
        seen[prompt] = seen.get(prompt, 0) + 1
        keys.append(f"{hashlib.sha256(repr(prompt).encode()).hexdigest()}:{seen[prompt]}")
    return keys


def run_batch(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    picker: TokenPicker,
    end_ids: list[int],
    *,
    streamer: Any = None,
    stopping: StoppingCriteriaList | None = None,
) -> list[list[int]]:
    """Run one left-padded batch through the model and return the new ids of each row, padding included."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_ids[0]
    input_ids = torch.tensor([[pad] * (longest - len(row)) + list(row) for row in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
    # Said in full, because what is left out comes from the model's own generation_config.json.
    make_config: Any = GenerationConfig  # untyped in transformers
    config = make_config(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
        use_cache=True,
        max_new_tokens=picker.max_new_tokens,
        eos_token_id=end_ids,
        pad_token_id=pad,
    )
    with answering(model), torch.no_grad():
        output = model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([picker]),
            stopping_criteria=stopping,
            streamer=streamer,
        )
    new_ids: list[list[int]] = output[:, longest:].tolist()
    return new_ids


@contextmanager
def answering(model: Any) -> Iterator[None]:
    """Switch dropout off for the block, and back on after it where a training run had it on."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()


def _as_reply(tokenizer: Any, ids: list[int], end_ids: Sequence[int]) -> Reply:
    end = next((position for position, token in enumerate(ids) if token in end_ids), None)
    text = decode(tokenizer, ids if end is None else ids[:end])
    return Reply(clean_reply(text), end is not None, len(ids) if end is None else end + 1)


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return ids as text, special tokens left out and blanks as they are."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
