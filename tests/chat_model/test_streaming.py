"""A streamed reply is the batched reply, in pieces that never hold half a character or half an emoji."""

import threading
from types import ModuleType
from typing import Any

import pytest
import regex
import torch

from orpo.chat_model.chat_template import PLAIN_TEMPLATE
from orpo.chat_model.generation import generate_replies
from orpo.chat_model.streaming import WholeCharacters, stream_reply
from orpo.command.errors import InputError
from orpo.records.messages import user_message
from orpo.records.replies import Sampling
from orpo.scoring import find_emojis

EMOJIS = ["👨‍👩‍👧‍👦", "🇫🇷", "👍🏽", "1️⃣", "❤️‍🔥", "❤️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🙂", "🏳️‍🌈", "👩🏿‍🚀"]


def pieces_of(text: str, step: int) -> list[str]:
    """Feed a text's UTF-8 a few bytes at a time, as a byte-level tokenizer's tokens give it."""
    whole, shown = WholeCharacters(), []
    data = text.encode()
    for end in range(step, len(data) + step, step):
        shown.append(whole.feed(data[:end].decode("utf-8", "replace")))
    shown.append(whole.finish(text))
    return [piece for piece in shown if piece]


@pytest.mark.parametrize("emoji", EMOJIS)
@pytest.mark.parametrize("step", [1, 3, 4])
def test_an_emoji_appears_whole_or_not_at_all(emoji: str, step: int) -> None:
    text = f"Well {emoji} done{emoji}{emoji}!"
    pieces = pieces_of(text, step)
    assert "".join(pieces) == text
    found = [span.text for piece in pieces for span in find_emojis(piece)]
    assert found == [emoji] * 3
    assert all("\ufffd" not in piece for piece in pieces)


def test_pieces_end_between_graphemes_also_for_accents_and_many_flags() -> None:
    text = "Cafe\u0301 " + "🇫🇷🇯🇵" * 30 + " e\u0301a 한국"
    position, ends = 0, set()
    for match in regex.finditer(r"\X", text):
        ends.add(match.end())
    for piece in pieces_of(text, 1):
        position += len(piece)
        assert position in ends


def test_blanks_around_the_reply_are_not_shown() -> None:
    assert "".join(pieces_of("  \n Hi there \n", 1)) == "Hi there"


@pytest.mark.parametrize("prompt", ["family", "flag", "hands", "keycap", "heart"])
def test_a_streamed_reply_is_the_batched_one(
    tiny_models: ModuleType, memorised_model: Any, tokenizer: Any, prompt: str
) -> None:
    sampling = Sampling(max_new_tokens=80)
    pieces = list(stream_reply(memorised_model, tokenizer, user_message(prompt), sampling, seed=3))
    assert "".join(pieces) == tiny_models.MEMORISED[prompt]
    assert len(pieces) > 3
    whole = [span.text for span in find_emojis(tiny_models.MEMORISED[prompt])]
    assert [span.text for piece in pieces for span in find_emojis(piece)] == whole


def test_sampled_streams_equal_the_batch_too(random_model: Any, tokenizer: Any) -> None:
    sampling = Sampling(temperature=1.2, max_new_tokens=30)
    for seed in range(4):
        wanted = generate_replies(random_model, tokenizer, [user_message("hi")], sampling, seed=seed)[0].text
        assert "".join(stream_reply(random_model, tokenizer, user_message("hi"), sampling, seed=seed)) == wanted


def test_a_full_stop_in_the_token_that_ends_the_line_is_streamed_too(tiny_models: ModuleType) -> None:
    """A line break ends a reply in the plain text form, and its token may be `.\n`: streams lacked the stop."""
    tokenizer = tiny_models.make_tokenizer(PLAIN_TEMPLATE)
    tokenizer.add_tokens([".\n"])
    model = tiny_models.make_model(len(tokenizer))
    with torch.no_grad():
        model.lm_head.weight[-1] = model.lm_head.weight.mean(dim=0) + 1.0  # often, so that some reply ends with it
    sampling, stops = Sampling(temperature=1.5, top_p=1.0, max_new_tokens=40), 0
    for seed in range(8):
        whole = generate_replies(model, tokenizer, [user_message("hi")], sampling, seed=seed)[0]
        assert "".join(stream_reply(model, tokenizer, user_message("hi"), sampling, seed=seed)) == whole.text
        stops += whole.finished and whole.text.endswith(".")
    assert stops


def test_closing_a_stream_stops_the_model(random_model: Any, tokenizer: Any) -> None:
    sampling = Sampling(temperature=1.0, max_new_tokens=200)
    stream = stream_reply(random_model, tokenizer, user_message("hi"), sampling, seed=0)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "reply"]


def test_a_failure_in_the_model_reaches_the_caller(random_model: Any, tokenizer: Any) -> None:
    with pytest.raises(InputError, match="context"):
        list(stream_reply(random_model, tokenizer, user_message("word " * 300), Sampling(), seed=0))
