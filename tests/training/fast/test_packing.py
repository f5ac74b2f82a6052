"""Rows of pairs: what stands where, what predicts what, and how pairs are spread over rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orpo.training.fast.packing import nll_tokens, pack_pairs, packed_length, plan_micro_batches, spread_evenly
from tests.training.small_models import LENGTHS, Pair, make_pairs

ONE = Pair(prompt_ids=[10, 11, 12], chosen_ids=[20, 21, 2], rejected_ids=[30, 31, 32, 2])


def test_a_pair_lies_in_a_row_as_the_docstring_draws_it() -> None:
    packed = pack_pairs([ONE], layout="shared", nll_on_prompt=True)
    assert packed.input_ids.tolist() == [[10, 11, 12, 20, 21, 30, 31, 32]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5]]
    places = list(zip(packed.hidden_places.tolist(), packed.targets.tolist(), strict=True))
    assert places[:2] == [(0, 11), (1, 12)]  # the prompt itself
    assert places[2:5] == [(2, 20), (3, 21), (4, 2)]  # chosen
    assert places[5:] == [(2, 30), (5, 31), (6, 32), (7, 2)]  # rejected begins where the prompt ends
    assert packed.completions.tolist() == [2, 2, 0, 0, 0, 1, 1, 1, 1]
    assert packed.in_nll.tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert packed.completion_tokens.tolist() == [3, 4]


def test_without_sharing_the_prompt_stands_twice() -> None:
    packed = pack_pairs([ONE], layout="packed", nll_on_prompt=False)
    assert packed.input_ids.tolist() == [[10, 11, 12, 20, 21, 10, 11, 12, 30, 31, 32]]
    assert packed.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]]
    assert packed.hidden_places.tolist() == [2, 3, 4, 7, 8, 9, 10]
    assert packed.in_nll.sum() == nll_tokens(ONE, nll_on_prompt=False) == 3


@pytest.mark.parametrize("layout", ["shared", "packed", "plain"])
def test_lengths_are_counted_before_packing_as_they_come_out(layout: str) -> None:
    pairs = make_pairs(LENGTHS)
    for nll_on_prompt in (True, False):
        packed = pack_pairs(pairs, layout=layout, nll_on_prompt=nll_on_prompt)  # type: ignore[arg-type]
        assert packed.input_ids.shape[1] == sum(packed_length(pair, layout) for pair in pairs)  # type: ignore[arg-type]
        assert packed.in_nll.sum() == sum(nll_tokens(pair, nll_on_prompt) for pair in pairs)


def test_sums_run_over_each_completion() -> None:
    packed = pack_pairs([ONE, ONE], layout="shared", nll_on_prompt=True)
    chosen, rejected = packed.sum_by_completion(torch.ones(len(packed.targets)))
    assert chosen.tolist() == [3, 3] and rejected.tolist() == [4, 4]


@pytest.mark.parametrize("empty", ["prompt_ids", "chosen_ids", "rejected_ids"])
def test_an_empty_part_is_refused(empty: str) -> None:
    parts = {"prompt_ids": [1], "chosen_ids": [1], "rejected_ids": [1], empty: []}
    with pytest.raises(ValueError, match="pair 0 has an empty"):
        pack_pairs([Pair(**parts)], layout="shared", nll_on_prompt=True)  # type: ignore[arg-type]


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
