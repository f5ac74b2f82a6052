"""Loops that share the work write what one loop writes, and stop together."""

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch

from orpo.chat_model.decoder import Decoder, make_decoder
from orpo.chat_model.decoding import Request, decode
from orpo.chat_model.token_picker import TokenPicker, row_keys
from orpo.records.replies import Sampling

SAMPLING = Sampling(temperature=0.9, max_new_tokens=12)
PROMPTS = [[1 + (7 * row + place) % 40 for place in range(3 + row % 5)] for row in range(17)]


@pytest.fixture(scope="module")
def decoder(random_model: Any) -> Decoder:
    """Return the random model made ready to answer."""
    made = make_decoder(random_model)
    assert made is not None
    return made


def written(decoder: Decoder, loops: int, prompts: list[list[int]] = PROMPTS, examples: int = 0) -> dict[int, Any]:
    """Return each row's tokens, as they came."""
    picker = TokenPicker(SAMPLING, row_keys(prompts), 3)
    rows = defaultdict(list)
    for events in decode(decoder, Request(prompts, picker, [0], slots=6, examples=examples, loops=loops)):
        for row, token, is_last in events:
            rows[row].append((token, is_last))
    return dict(rows)


@pytest.mark.parametrize("loops", [2, 3, 6])
def test_loops_that_share_the_work_write_what_one_writes(decoder: Decoder, loops: int) -> None:
    found = written(decoder, loops)
    assert found == written(decoder, 1)
    assert sorted(found) == list(range(len(PROMPTS)))
    assert all([is_last for _, is_last in row].index(True) == len(row) - 1 for row in found.values())


def test_each_loop_reads_shared_examples_for_itself(decoder: Decoder) -> None:
    examples = [1 + place % 40 for place in range(70)]
    prompts = [examples + prompt for prompt in PROMPTS]
    assert written(decoder, 3, prompts, examples=70) == written(decoder, 1, prompts, examples=70)


def request_that(on_step: Callable[[], None] | None) -> Request:
    """Ask for all prompts from three loops."""
    return Request(PROMPTS, TokenPicker(SAMPLING, row_keys(PROMPTS), 3), [0], slots=6, loops=3, on_step=on_step)


def test_what_stops_one_loop_stops_all_and_leaves_torchs_threads_as_they_were(decoder: Decoder) -> None:
    class Stop(Exception):
        pass

    calls: list[int] = []

    def stop() -> None:
        calls.append(1)
        if len(calls) > 7:
            raise Stop

    before, threads = torch.get_num_threads(), threading.active_count()
    with pytest.raises(Stop):
        list(decode(decoder, request_that(stop)))
    assert threading.active_count() == threads
    assert torch.get_num_threads() == before
    assert len(calls) <= 7 + 3, "each loop notices before its next pass"


def test_replies_that_nobody_waits_for_any_more_are_not_written_on(decoder: Decoder) -> None:
    calls: list[int] = []
    threads = threading.active_count()
    replies = decode(decoder, request_that(lambda: calls.append(1)))
    next(replies)
    replies.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads
    stopped_after = len(calls)
    assert stopped_after < sum(len(row) for row in written(decoder, 1).values()) / 6
