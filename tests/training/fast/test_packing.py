"""Rows of replies: what stands where, what predicts what, and how groups are spread over rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orpo.chat_model.decoding import common_beginning
from orpo.training.fast.packing import (
    ReplyGroup,
    nll_tokens,
    pack_replies,
    packed_length,
    plan_micro_batches,
    spread_evenly,
)
from tests.training.small_models import LENGTHS, groups_of, make_pairs

ONE = ReplyGroup([10, 11, 12], ([20, 21, 2], [30, 31, 32, 2]))


def test_replies_branch_off_behind_their_prompt() -> None:
    packed = pack_replies([ONE], layout="shared", nll_on_prompt=True)
    assert packed.input_ids.tolist() == [[10, 11, 12, 20, 21, 30, 31, 32]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    places = list(zip(packed.hidden_places.tolist(), packed.targets.tolist(), strict=True))
    assert places[:2] == [(0, 11), (1, 12)]  # the prompt itself
    assert places[2:5] == [(2, 20), (3, 21), (4, 2)]  # chosen
    assert places[5:] == [(2, 30), (5, 31), (6, 32), (7, 2)]  # rejected begins where the prompt ends
    assert packed.entry_places.tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert packed.entry_replies.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert packed.in_nll.tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert packed.reply_tokens.tolist() == [3, 4]


def test_a_common_beginning_lies_in_the_row_once_as_the_docstring_draws_it() -> None:
    group = ReplyGroup([10, 11], ([7, 8, 20, 2], [7, 8, 30, 31, 2]))
    packed = pack_replies([group], layout="shared", nll_on_prompt=False)
    assert packed.input_ids.tolist() == [[10, 11, 7, 8, 20, 30, 31]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 4, 5]]
    places = list(zip(packed.hidden_places.tolist(), packed.targets.tolist(), strict=True))
    assert places == [(1, 7), (2, 8), (3, 20), (4, 2), (3, 30), (5, 31), (6, 2)]
    counted = sorted(zip(packed.entry_replies.tolist(), packed.entry_places.tolist(), strict=True))
    assert counted == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 4), (1, 5), (1, 6)]
    assert packed.in_nll.tolist() == [1, 1, 1, 1, 0, 0, 0] and packed.reply_tokens.tolist() == [4, 5]
    assert packed.sum_by_reply(torch.ones(7)).tolist() == [4, 5]


@pytest.mark.parametrize(
    ("replies", "shared"),
    [(([1, 2],), 0), (([1, 2], [1, 3]), 1), (([1, 2], [1, 5, 2]), 1), (([4, 2], [5, 2]), 0), (([2], [7, 2]), 0)],
)
def test_the_common_beginning_leaves_a_token_of_each(replies: tuple[list[int], ...], shared: int) -> None:
    assert common_beginning(replies) == shared


def test_a_reply_by_itself_is_an_ordinary_sequence() -> None:
    packed = pack_replies([ReplyGroup([10, 11], ([20, 2],))], layout="shared", nll_on_prompt=False)
    assert packed.input_ids.tolist() == [[10, 11, 20]] and packed.targets.tolist() == [20, 2]


def test_without_sharing_the_prompt_stands_twice() -> None:
    packed = pack_replies([ONE], layout="packed", nll_on_prompt=False)
    assert packed.input_ids.tolist() == [[10, 11, 12, 20, 21, 10, 11, 12, 30, 31, 32]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]]
    assert packed.hidden_places.tolist() == [2, 3, 4, 7, 8, 9, 10]
    assert packed.in_nll.sum() == nll_tokens(ONE, nll_on_prompt=False) == 3


@pytest.mark.parametrize("layout", ["shared", "packed", "plain"])
def test_lengths_are_counted_before_packing_as_they_come_out(layout: str) -> None:
    groups = groups_of(make_pairs(LENGTHS))
    for nll_on_prompt in (True, False):
        packed = pack_replies(groups, layout=layout, nll_on_prompt=nll_on_prompt)  # type: ignore[arg-type]
        assert packed.input_ids.shape[1] == sum(packed_length(one, layout) for one in groups)  # type: ignore[arg-type,misc]
        assert int(packed.in_nll.sum()) == sum(nll_tokens(one, nll_on_prompt) for one in groups)


def test_sums_run_over_each_completion() -> None:
    packed = pack_replies([ONE, ONE], layout="shared", nll_on_prompt=True)
    assert packed.sum_by_reply(torch.ones(len(packed.targets))).tolist() == [3, 4, 3, 4]


@pytest.mark.parametrize("empty", [ReplyGroup([], ([1],)), ReplyGroup([1], ()), ReplyGroup([1], ([1], []))])
def test_an_empty_part_is_refused(empty: ReplyGroup) -> None:
    with pytest.raises(ValueError, match="group 0 has an empty"):
        pack_replies([empty], layout="shared", nll_on_prompt=True)


@settings(deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.integers(1, 1000))
def test_rows_hold_every_pair_once_and_keep_to_the_budget(lengths: list[int], budget: int) -> None:
    rows = plan_micro_batches(lengths, budget)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(row and sum(lengths[i] for i in row) <= max(budget, *lengths) for row in rows)
    assert rows == plan_micro_batches(lengths, budget)


def test_rows_are_as_few_and_as_even_as_can_be() -> None:
    assert plan_micro_batches([50, 50, 50, 50], 100) == [[0, 2], [1, 3]]
    assert [sum([90, 10, 60, 40][i] for i in row) for row in plan_micro_batches([90, 10, 60, 40], 100)] == [100, 100]


def test_more_rows_than_pairs_leave_some_empty() -> None:
    assert sorted(map(len, spread_evenly([5, 5], 4))) == [0, 0, 1, 1]
