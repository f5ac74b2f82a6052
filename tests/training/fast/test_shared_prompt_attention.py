"""Who may see whom in a row of pairs, against the rule written out token by token, and as a FlexAttention mask."""

from typing import Any, cast

import pytest
import torch
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from orpo.training.fast.packing import Segments
from orpo.training.fast.shared_prompt_attention import SharedPromptMask, token_rule

SEGMENTS = [Segments(3, (2, 4)), Segments(2, (0, 3)), Segments(4, (3, 0)), Segments(2, (2,)), Segments(3, (1, 2, 2))]


def rule_by_hand(window: int) -> torch.Tensor:
    """For each token: its pair, its part, its position; then the rule, word by word."""
    tokens = [
        (number, part, position)
        for number, pair in enumerate(SEGMENTS)
        for part, length, first in (
            ("stem", pair.stem, 0),
            *((str(branch), length, pair.stem) for branch, length in enumerate(pair.branches)),
        )
        for position in range(first, first + length)
    ]
    return torch.tensor(
        [
            [
                q_pair == k_pair and k_part in ("stem", q_part) and k_position <= q_position < k_position + window
                for k_pair, k_part, k_position in tokens
            ]
            for q_pair, q_part, q_position in tokens
        ]
    )


def dense(mask: SharedPromptMask) -> torch.Tensor:
    """Return the whole row's (T, T) boolean mask."""
    index, zero = torch.arange(sum(mask.pieces)), torch.zeros((), dtype=torch.long)
    sees = token_rule(mask.segments, mask.mask_function, mask.device)
    return sees(zero, zero, index[:, None], index[None, :])


@pytest.mark.parametrize("window", [100, 3])
def test_the_rule_of_a_row_is_the_one_written_out_by_hand(window: int) -> None:
    rule: Any = causal_mask_function if window == 100 else sliding_window_causal_mask_function(window)
    mask = SharedPromptMask(SEGMENTS, rule, torch.device("cpu"))
    assert torch.equal(dense(mask), rule_by_hand(window))


@pytest.mark.parametrize("window", [100, 3])
def test_the_pairwise_masks_are_cut_out_of_the_whole_one(window: int) -> None:
    rule: Any = causal_mask_function if window == 100 else sliding_window_causal_mask_function(window)
    mask = SharedPromptMask(SEGMENTS, rule, torch.device("cpu"))
    whole, start = dense(mask), 0
    for pair, (own, others) in zip(SEGMENTS, mask.group_masks, strict=True):
        length = pair.stem + pair.branches[0]
        block = whole[start : start + length, start : start + length]
        assert torch.equal(block, own[0, 0] if own is not None else torch.ones(length, length).tril().bool())
        assert (own is None) == (window == 100 or length <= window)
        behind = start + length
        for other, size in zip(others, pair.branches[1:], strict=True):
            rows = whole[behind : behind + size]
            seen = torch.cat([rows[:, start : start + pair.stem], rows[:, behind : behind + size]], dim=1)
            assert (other is None) == (size == 0)
            assert other is None or torch.equal(other[0, 0], seen)
            behind += size
        start += pair.total


def test_the_rule_serves_as_a_flex_attention_mask() -> None:
    """FlexAttention in plain operations, as a GPU would use it, gives what a dense mask gives."""
    from torch.nn.attention.flex_attention import create_mask

    rule: Any = token_rule(SEGMENTS, cast(Any, causal_mask_function), torch.device("cpu"))
    total = sum(pair.total for pair in SEGMENTS)
    made = create_mask(rule, 1, 1, total, total, device="cpu")
    assert torch.equal(made[0, 0], rule_by_hand(100))
