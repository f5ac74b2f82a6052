"""What the comparison measures, by values worked out by hand and on real small models."""

import math
from typing import Any

import pytest
import torch

from orpo.chat_model.chat_template import encode_text
from orpo.comparing.comparison import (
    Comparison,
    choose_prompts,
    compare,
    measure_perplexity,
    measure_replies,
    plain_texts,
    repeats_itself,
)
from orpo.records.prompts import Prompt, embedded_prompts
from orpo.records.replies import Reply, Sampling
from orpo.scoring import count_emojis
from tests import small_models

PROMPTS = [Prompt("a", "hello", "small_talk"), Prompt("b", "how are you"), Prompt("c", "good news")]
SAMPLING = Sampling(temperature=1.0, max_new_tokens=10)


@pytest.fixture(scope="module")
def tiny() -> Any:
    return small_models


@pytest.fixture(scope="module")
def tokenizer(tiny: Any) -> Any:
    return tiny.make_tokenizer()


def test_measures_are_those_counted_by_hand() -> None:
    """4 replies; emojis 0, 1, 3, 1 -> rate 3/4, mean 5/4, most 3; 3 ended; 1 repeats; 3 different; 40 tokens in 2 s."""
    replies = [
        Reply("Plain.", True, 5),
        Reply("Hi 👋", True, 5),
        Reply("👨‍👩‍👧 🇫🇷 1️⃣", False, 10),
        Reply("Hi 👋", True, 20),
    ]
    measures = measure_replies(replies, seconds=2.0)
    assert (measures.replies, measures.emoji_rate, measures.mean_emojis, measures.max_emojis) == (4, 0.75, 1.25, 3)
    assert (measures.finished_share, measures.repeated_share, measures.distinct_share) == (0.75, 0.0, 0.75)
    assert (measures.mean_tokens, measures.tokens_per_second, measures.perplexity) == (10.0, 20.0, None)


def test_emojis_in_and_out_of_place_are_told_apart() -> None:
    """In place (good news, small talk): 1 of 2; out of place (code, grief, legal): 1 of 3; no category: in neither."""
    texts = ["Yes 🎉", "Hello", "x = 1", "I am sorry 😢", "Ask a lawyer.", "Any 🎈"]
    categories = ["good_news", "small_talk", "code", "grief", "legal", ""]
    measures = measure_replies([Reply(text, True, 5) for text in texts], 1.0, categories=categories)
    assert (measures.in_place_rate, measures.out_of_place_rate) == (1 / 2, 1 / 3)
    assert measure_replies([Reply("Any 🎈", True, 5)], 1.0).in_place_rate is None


def test_no_replies_measure_as_nothing() -> None:
    assert measure_replies([], seconds=0.0).emoji_rate == 0.0


def test_repetition_is_four_words_three_times() -> None:
    assert not repeats_itself("you are so kind " * 2)
    assert repeats_itself("you are so kind and " * 3)
    assert repeats_itself("no no no no no no"), "six equal words hold the same four words three times"
    assert not repeats_itself("no no no no no")
    assert not repeats_itself("") and not repeats_itself("one two three")


def test_both_sides_answer_the_same_prompts_and_the_adapter_off_is_the_base(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model(len(tokenizer))
    alone = compare(model, tokenizer, PROMPTS, SAMPLING, seed=1, texts=["how are you today"])
    tuned = compare(tiny.add_adapter(model), tokenizer, PROMPTS, SAMPLING, seed=1, texts=["how are you today"])
    assert alone.tuned is None and [side.name for side in alone.sides()] == ["base"]
    assert tuned.base.replies == alone.base.replies
    assert tuned.base.measures.perplexity == alone.base.measures.perplexity
    assert tuned.tuned is not None and tuned.tuned.replies != tuned.base.replies
    assert tuned.tuned.measures.perplexity != tuned.base.measures.perplexity
    assert tuned.base.measures.tokens_per_second > 0


def test_a_system_prompt_reaches_both_sides(tiny: Any, tokenizer: Any) -> None:
    model = tiny.add_adapter(tiny.make_model(len(tokenizer)))
    plain = compare(model, tokenizer, PROMPTS, SAMPLING, seed=1)
    told = compare(model, tokenizer, PROMPTS, SAMPLING, seed=1, system="Use emojis.")
    for one, other in zip(plain.sides(), told.sides(), strict=True):
        assert one.replies != other.replies


def test_rows_and_summary_hold_what_was_said(tiny: Any, tokenizer: Any) -> None:
    model = tiny.add_adapter(tiny.make_model(len(tokenizer)))
    counted: list[int] = []
    comparison = compare(model, tokenizer, PROMPTS, SAMPLING, seed=1, batch_size=2, on_batch=counted.append)
    assert counted == [1] * 6
    rows = comparison.rows()
    assert [row["prompt_id"] for row in rows] == ["a", "b", "c"] and rows[0]["category"] == "small_talk"
    assert comparison.tuned is not None
    assert rows[1]["tuned"]["text"] == comparison.tuned.replies[1].text
    assert rows[1]["tuned"]["emojis"] == count_emojis(comparison.tuned.replies[1].text)
    assert set(comparison.summary()) == {"base", "tuned"}


def test_perplexity_equals_the_naive_one(tiny: Any, tokenizer: Any) -> None:
    """The slow twin: exp of the mean cross-entropy, a text at a time."""
    model, texts = tiny.make_model(len(tokenizer)), ["how are you today", "good news, thank you", "a"]
    total, tokens = 0.0, 0
    for text in texts[:2]:
        ids = torch.tensor([encode_text(tokenizer, text)])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    assert measure_perplexity(model, tokenizer, texts) == pytest.approx(math.exp(total / tokens), rel=1e-4)


def test_a_uniform_model_has_the_vocabulary_as_perplexity(tiny: Any, tokenizer: Any) -> None:
    model = tiny.make_model(len(tokenizer))
    torch.nn.init.zeros_(model.lm_head.weight)
    assert measure_perplexity(model, tokenizer, ["how are you today"]) == pytest.approx(len(tokenizer), rel=1e-4)


def test_prompts_are_chosen_from_all_over_and_always_the_same() -> None:
    held_out = embedded_prompts("held_out")
    chosen = choose_prompts(held_out, 30)
    assert chosen == choose_prompts(held_out, 30) and chosen[:8] == choose_prompts(held_out, 8)
    assert len({prompt.category for prompt in chosen}) > 4
    assert choose_prompts(held_out, 0) == choose_prompts(held_out, 10_000) == held_out


def test_the_plain_texts_are_plain() -> None:
    texts = plain_texts()
    assert len(texts) >= 40 and len(set(texts)) == len(texts)
    assert all(count_emojis(text) == 0 and text.isascii() for text in texts)
    assert not {prompt.text for prompt in embedded_prompts()} & set(texts)


def test_a_comparison_knows_its_sides() -> None:
    side = Comparison([], base=None, tuned=None)  # type: ignore[arg-type]
    assert len(side.sides()) == 1
