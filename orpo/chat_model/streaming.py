"""A reply piece by piece, as it is generated, in which no character and no emoji ever appears by halves.

One emoji is often several tokens and several code points: bytes that are no character yet, a family whose members are
joined one by one, a skin tone or variation selector that changes what is already there, the two letters of a flag. So
the last grapheme waits until the next one begins.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import regex
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from orpo.chat_model.chat_template import encode_prompt, reply_end_ids
from orpo.chat_model.generation import (
    TokenPicker,
    check_context,
    clean_reply,
    decode,
    row_keys,
    run_batch,
)
from orpo.records.messages import Message
from orpo.records.replies import Sampling

_GRAPHEME = regex.compile(r"\X")
_REPLACEMENT = "\ufffd"
_LOOK_BACK = 64  # characters; the longest listed emoji has 10


class WholeCharacters:
    """Cuts a growing text into pieces that end between graphemes; the pieces together are the cleaned text."""

    def __init__(self) -> None:
        """Start with nothing shown."""
        self._shown = ""

    def feed(self, text: str) -> str:
        """Return what can be shown now, given the whole text so far."""
        text = text.lstrip().rstrip(_REPLACEMENT)
        return self._show(text[: _last_grapheme_start(text)].rstrip())

    def finish(self, text: str) -> str:
        """Return the rest, given the whole text."""
        return self._show(clean_reply(text))

    def _show(self, ready: str) -> str:
        # A decoder that changed its mind about what is shown already is waited for, never contradicted.
        if not ready.startswith(self._shown):
            return ""
        piece = ready[len(self._shown) :]
        self._shown = ready
        return piece


def stream_reply(
    model: Any, tokenizer: Any, messages: Sequence[Message], sampling: Sampling, *, seed: int
) -> Iterator[str]:
    """Yield the reply in pieces; together they are the text that `generate_replies` gives for the same seed.

    Closing the iterator, also through Ctrl-C, stops the model after the token it is at.
    """
    prompt = encode_prompt(tokenizer, messages)
    check_context(model, [prompt], sampling.max_new_tokens)
    end_ids = reply_end_ids(model, tokenizer)
    worker = _Worker(model, tokenizer, prompt, TokenPicker(sampling, row_keys([prompt]), seed, len(prompt)), end_ids)
    pieces = WholeCharacters()
    ids: list[int] = []
    worker.start()
    try:
        for token in worker.tokens():
            if token in end_ids:
                break
            ids.append(token)
            if piece := pieces.feed(decode(tokenizer, ids)):
                yield piece
        if piece := pieces.finish(decode(tokenizer, ids)):
            yield piece
    finally:
        worker.stop()


class _Worker:
    """Runs `generate` in a thread, so that its tokens can be taken one by one and Ctrl-C reaches the taker."""

    def __init__(self, model: Any, tokenizer: Any, prompt: list[int], picker: TokenPicker, end_ids: list[int]) -> None:
        self._arguments = (model, tokenizer, [prompt], picker, end_ids)
        self._queue: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reply", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def tokens(self) -> Iterator[int]:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        streamer = _TokenQueue(self._queue)
        stopping = StoppingCriteriaList([_StopWhen(self._stopped)])
        try:
            run_batch(*self._arguments, streamer=streamer, stopping=stopping)
            self._queue.put(None)
        except BaseException as problem:  # raised again where the tokens are taken
            self._queue.put(problem)


class _TokenQueue:
    """The streamer that `generate` fills: first the prompt, then token by token."""

    def __init__(self, tokens: "queue.SimpleQueue[int | BaseException | None]") -> None:
        self._tokens = tokens
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_seen:
            for token in value.flatten().tolist():
                self._tokens.put(int(token))
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing to do: the worker says when it is done."""


class _StopWhen(StoppingCriteria):
    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._stopped.is_set(), device=input_ids.device)


def _last_grapheme_start(text: str) -> int:
    """Return where the last grapheme begins: the next token may still change it."""
    start = max(0, len(text) - _LOOK_BACK)
    # Begin at a character that surely starts a grapheme, so that a flag is not cut between its letters.
    while start > 0 and not text[start].isascii():
        start -= 1
    last = start
    for match in _GRAPHEME.finditer(text, start):
        last = match.start()
    return last
