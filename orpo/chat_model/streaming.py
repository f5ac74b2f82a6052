"""A reply piece by piece, as it is generated, in which no character and no emoji ever appears by halves.

One emoji is often several tokens and several code points: bytes that are no character yet, a family whose members are
joined one by one, a skin tone or variation selector that changes what is already there, the two letters of a flag. So
the last grapheme waits until the next one begins.
"""

from collections.abc import Iterator, Sequence

import regex
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from orpo.chat_model.chat_template import encode_prompt, reply_end_ids
from orpo.chat_model.decoder import make_decoder
from orpo.chat_model.decoding import Request, decode
from orpo.chat_model.generation import answering, as_reply, check_context, clean_reply, decode_text, generate_replies
from orpo.chat_model.token_picker import TokenPicker, row_keys
from orpo.records.messages import Message
from orpo.records.replies import Sampling

_GRAPHEME = regex.compile(r"\X")
_REPLACEMENT = "\ufffd"
_LOOK_BACK = 64  # characters; the longest listed emoji has 10


class WholeCharacters:
    """Cuts a growing text into pieces that end between graphemes; the pieces together are the cleaned text."""

    def __init__(self) -> None:
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
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    sampling: Sampling,
    *,
    seed: int,
    dtype: torch.dtype | None = None,
) -> Iterator[str]:
    """Yield the reply in pieces; together they are the text that `generate_replies` gives for the same seed.

    An architecture that only transformers' own loop can drive gives the whole reply as one piece. Closing the iterator,
    also through Ctrl-C, stops the model after the token it is at.
    """
    prompt = encode_prompt(tokenizer, messages)
    check_context(model, [prompt], sampling.max_new_tokens)
    end_ids = reply_end_ids(model, tokenizer)
    pieces = WholeCharacters()
    ids: list[int] = []
    with answering(model) as was_training:
        decoder = make_decoder(model, dtype, keep=not was_training)
        if decoder is None:
            yield generate_replies(model, tokenizer, [messages], sampling, seed=seed)[0].text
            return
        request = Request([prompt], TokenPicker(sampling, row_keys([prompt]), seed), end_ids)
        for ((_, token, is_last),) in decode(decoder, request):
            ids.append(token)
            whole = as_reply(tokenizer, ids, end_ids).text if is_last else None
            if piece := pieces.feed(decode_text(tokenizer, ids)) if whole is None else pieces.finish(whole):
                yield piece


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
