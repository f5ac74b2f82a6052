"""What the comparison measures, by values worked out by hand and on real small models."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from orpo.chat_model.chat_template import encode_text
from orpo.comparing.answering import AnsweringModel
from orpo.comparing.approaches import BASE, TUNED, Approach, adapter_names
from orpo.comparing.comparison import Asking, Comparison, ask, replies_to_write
from orpo.comparing.figures import Figures, figures_of
from orpo.comparing.settings import BaseModelSettings
from orpo.comparing.sides import HeldOut, choose_prompts, prose_texts
from orpo.records.messages import user_message
from orpo.records.prompts import OUT_OF_PLACE, Prompt, embedded_prompts, standard_prompts
from orpo.records.replies import Sampling
from orpo.records.shipped import held_out_wishes, short_questions
from orpo.scoring import ScoreReport, count_emojis, get_scorer
from tests.comparing.given_sides import comparison, reply, side, whole_comparison

PROMPTS = [Prompt("a", "hello", "small_talk"), Prompt("b", "how are you"), Prompt("c", "good news")]
ASKING = Asking(Sampling(temperature=1.0, max_new_tokens=10), [1])


def value(figures: Figures, key: str) -> float:
    figure = figures.get(key)
    assert figure is not None, key
    return figure.interval.value


def test_figures_are_those_counted_by_hand() -> None:
    """In place 1 of 2, then 2 of 2; out of place 1 of 2 (the code), then 0; emojis 2 and 1, then 1 and 1."""
    found = comparison(
        ["Well done 🎉🎉", "Hello", "x = 1 🎉", "Sorry."], ["Well done 🎉", "Hello 🙂", "x = 1", "Sorry."]
    )
    base, tuned = found.figures
    assert [value(base, key) for key in ("in_place", "out_of_place", "mean_emojis", "max_emojis")] == [
        0.5,
        0.5,
        0.75,
        2,
    ]
    assert [value(tuned, key) for key in ("in_place", "out_of_place", "mean_emojis", "max_emojis")] == [1, 0, 0.5, 1]
    assert (value(base, "out_of_place/code"), value(base, "out_of_place/grief")) == (1, 0)
    assert (value(base, "different_emojis"), value(base, "commonest_share"), value(base, "ended")) == (1, 1, 1)
    assert base.get("emoji_rate") is None, "the two shares say more"
    difference = tuned.figures["in_place"].difference
    assert difference is not None and difference.value == 0.5 and tuned.figures["in_place"].verdict == "too few prompts"


def test_relevance_is_that_of_the_replies_with_an_emoji() -> None:
    texts = ["Well done, congratulations! 🎉", "Hello", "x = 1", "Sorry."]
    part = get_scorer("tasteful").explain(texts[0], "I got the job!").parts["relevance"].value
    figures = comparison(texts).figures[0]
    assert value(figures, "relevance") == pytest.approx(part)
    assert value(figures, "score/relevance") == pytest.approx((part + 3) / 4), "1.00 where there is none to judge"
    assert comparison(["a", "b", "c", "d"]).figures[0].get("relevance") is None


def test_prompts_without_categories_have_one_rate() -> None:
    figures = comparison(["Yes 🎉", "No"], prompts=[Prompt("a", "x"), Prompt("b", "y")]).figures[0]
    assert value(figures, "emoji_rate") == 0.5 and figures.get("in_place") is None


def test_several_seeds_are_pooled_by_prompt() -> None:
    """Two seeds: prompt a has an emoji once of two, prompt b twice: 3 of 4, over 2 prompts."""
    held_out = HeldOut([Prompt("a", "x"), Prompt("b", "y")])
    figures = figures_of(side(Approach(BASE), [["Yes", "No 🎉"], ["Yes 🎉", "No 🎉"]], held_out), held_out)
    rate = figures.figures["emoji_rate"].interval
    assert (rate.value, rate.prompts, value(figures, "seconds")) == (0.75, 2, 1.0)


def test_the_whole_comparison_says_what_is_better() -> None:
    """40 prompts: all clear cases. Perplexity: exp(30/20), then exp(32/20): a ratio of exp(0.1), worse in both draws
    that differ, and equal where the first text is drawn twice, so nothing is claimed."""
    base, tuned = whole_comparison().figures
    said = {key: figure.verdict for key, figure in tuned.figures.items() if figure.verdict}
    assert {key: said[key] for key in ("in_place", "out_of_place", "right")} == dict.fromkeys(
        ("in_place", "out_of_place", "right"), "better"
    )
    assert not any(key.startswith("score/") for key in said), "a part is 1 where there is no emoji to judge"
    assert said["obeys_asks"] == "too few prompts" and said["perplexity"] == "too few prompts"
    assert value(base, "perplexity") == pytest.approx(math.exp(1.5))
    difference = tuned.figures["perplexity"].difference
    assert difference is not None and difference.value == pytest.approx(math.exp(0.1) - 1)
    assert (value(base, "right"), value(tuned, "obeys_asks"), value(base, "obeys_asks")) == (0.5, 1.0, 0.0)
    assert 0 < value(tuned, "likeness") < 1 and base.get("likeness") is None


def test_rows_and_summary_hold_what_was_said() -> None:
    found = whole_comparison(times=5)
    rows: list[Any] = list(found.rows())
    assert [sum(row["part"] == part for row in rows) for part in ("prompts", "obedience", "questions")] == [20, 10, 10]
    assert rows[0]["replies"]["tuned"]["text"] == "Congratulations! 🎉" and rows[0]["replies"]["tuned"]["emojis"] == 1
    assert rows[0]["replies"]["base"]["score"]["profile"] == "tasteful" and rows[0]["category"] == "good_news"
    assert rows[-1]["accepted"] == ["4", "four"] and rows[20]["wish"] == "forbids"
    assert set(found.summary()) == {"base", "tuned"} and json.dumps(rows) and json.dumps(found.summary())


@pytest.fixture
def answering(adapter_folder: Path, model_folder: Path) -> Any:
    """Make an answering model of the tiny one, with its adapter or without."""

    def make(adapter: bool = True, **given: Any) -> AnsweringModel:
        settings = BaseModelSettings(device="cpu", **given)
        return AnsweringModel(settings, str(model_folder), adapter_folder if adapter else None)

    return make


def asked(model: AnsweringModel, approach: Approach, held_out: HeldOut | None = None, asking: Asking = ASKING) -> Any:
    return ask(model, approach, held_out or HeldOut(PROMPTS, prose=["how are you today"]), asking, lambda count: None)


def test_the_adapter_off_is_the_base(answering: Any, adapter_folder: Path) -> None:
    with_adapter, alone = answering(reuse_replies=False), answering(adapter=False, reuse_replies=False)
    base, tuned = asked(with_adapter, Approach(BASE)), asked(with_adapter, Approach(TUNED, adapter_folder))
    assert base.replies == asked(alone, Approach(BASE)).replies and base.replies != tuned.replies
    assert base.prose == asked(alone, Approach(BASE)).prose and base.prose != tuned.prose


def test_what_was_answered_is_not_asked_again(answering: Any, adapter_folder: Path, monkeypatch: Any) -> None:
    """Also by another process and beside another adapter; another seed, sampling, prompt or adapter is asked."""
    first = asked(answering(), Approach(BASE))
    model = answering(adapter=False)
    calls: list[int] = []
    generate = ask.__globals__["AnsweringModel"].answer.__globals__["iterate_replies"]

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(len(arguments[2]))
        return generate(*arguments, **keywords)

    monkeypatch.setattr("orpo.comparing.answering.iterate_replies", counted)
    again = asked(model, Approach(BASE))
    assert again == first and not calls and model.reused == 3
    asked(model, Approach(BASE), asking=Asking(ASKING.sampling, [2]))
    asked(model, Approach(BASE), asking=Asking(Sampling(temperature=0.9, max_new_tokens=10), [1]))
    asked(model, Approach(BASE, system="Be kind."))
    asked(model, Approach(BASE), HeldOut(PROMPTS[:2]))
    assert calls == [3, 3, 3, 2]


def test_a_changed_adapter_is_another_model(answering: Any, adapter_folder: Path, tiny: Any, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    moved = Path(shutil.copytree(adapter_folder, tmp_path / "moved"))
    model = answering()
    asked(model, Approach(TUNED, adapter_folder))
    model.adapter = moved
    model._identities.clear()
    asked(model, Approach(TUNED, moved))
    assert model.reused == 3, "the same bytes elsewhere are the same adapter"
    weights = load_file(moved / "adapter_model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, moved / "adapter_model.safetensors")
    model._identities.clear()
    asked(model, Approach(TUNED, moved))
    assert model.reused == 3


def test_a_damaged_or_missing_cache_costs_time_and_no_result(answering: Any, tmp_path: Path, monkeypatch: Any) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("ORPO_CACHE", str(cache))
    first = asked(answering(), Approach(BASE))
    for file in (cache / "answers").iterdir():
        file.write_text('{"replies": [', encoding="utf-8")
    assert asked(answering(), Approach(BASE)).replies == first.replies
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("ORPO_CACHE", str(blocked))
    assert asked(answering(), Approach(BASE)).replies == first.replies


def test_the_best_of_several_is_the_one_that_the_score_likes_best(
    answering: Callable[..., AnsweringModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model writes no emojis, so a score that likes short replies best stands in for the real one."""

    def by_length(scorer: str, conversations: Sequence[object], texts: Sequence[str]) -> list[ScoreReport]:
        return [ScoreReport(scorer, 1 / (1 + len(text))) for text in texts]

    monkeypatch.setattr("orpo.comparing.comparison.score_replies", by_length)
    model = answering(adapter=False)
    several = [message for prompt in PROMPTS for message in [user_message(prompt.text)] * 3]
    written = model.answer(several, ASKING.sampling, seed=1, tuned=False).replies
    shortest = [min(written[start : start + 3], key=lambda reply: len(reply.text)) for start in (0, 3, 6)]
    best = asked(model, Approach("best", best_of=3))
    assert [len(reply.text) for reply in best.replies[0]] == [len(reply.text) for reply in shortest]
    assert best.replies != asked(model, Approach(BASE)).replies and model.reused == 9
    assert replies_to_write(Approach("best", best_of=3), HeldOut(PROMPTS), ASKING) == 9


def test_an_approach_adds_its_system_prompt_and_examples() -> None:
    examples = [*user_message("Hi"), {"role": "assistant", "content": "Hello! 👋"}]
    approach = Approach("few", system="Use emojis.", examples=examples)
    wish = [{"role": "system", "content": "You sell shoes."}, *user_message("Good day")]
    assert approach.conversation(wish) == [
        {"role": "system", "content": "Use emojis.\n\nYou sell shoes."},
        *examples,
        *user_message("Good day"),
    ]
    assert Approach(BASE).conversation(wish) == wish
    assert approach.conversation(user_message("Good day"))[0]["content"] == "Use emojis."


def test_a_system_prompt_for_all_leaves_those_of_the_wishes() -> None:
    held_out = HeldOut(PROMPTS, held_out_wishes(), short_questions()[:1], system="Be brief.")
    assert all(messages[0]["content"] == "Be brief." for messages in held_out.prompt_conversations())
    assert held_out.question_conversations()[0][0]["content"] == "Be brief."
    with_own = [case.messages for case in held_out.obedience if case.messages[0]["role"] == "system"]
    assert with_own and all(messages in held_out.obedience_conversations() for messages in with_own)


def test_the_log_probabilities_of_prose_equal_the_naive_ones(answering: Any) -> None:
    """The slow twin: the mean cross-entropy that the model itself returns, a text at a time."""
    model = answering(adapter=False)
    texts = ["how are you today", "good news, thank you", "a"]
    for text, (total, tokens) in zip(texts[:2], model.text_log_probs(texts, tuned=False), strict=False):
        ids = torch.tensor([encode_text(model.tokenizer, text)])
        with torch.no_grad():
            naive = model.model(ids, labels=ids).loss.item()
        assert tokens == ids.shape[1] - 1 and -total / tokens == pytest.approx(naive, rel=1e-4)


def test_a_uniform_model_has_the_vocabulary_as_perplexity(answering: Any) -> None:
    model = answering(adapter=False, reuse_replies=False)
    torch.nn.init.zeros_(model.model.lm_head.weight)
    [(total, tokens)] = model.text_log_probs(["how are you today"], tuned=False)
    assert math.exp(-total / tokens) == pytest.approx(len(model.tokenizer), rel=1e-4)


def test_prompts_are_chosen_from_all_over_and_always_the_same() -> None:
    standard = standard_prompts()
    chosen = choose_prompts(standard, 30)
    assert chosen == choose_prompts(standard, 30) and chosen[:8] == choose_prompts(standard, 8)
    assert len({prompt.category for prompt in chosen}) > 4
    assert choose_prompts(standard, 0) == choose_prompts(standard, 10_000) == standard


def test_the_standard_prompts_say_where_emojis_have_no_place() -> None:
    places = HeldOut(standard_prompts()).places()
    assert (sum(places["in_place"]), sum(places["out_of_place"])) == (150, 50)
    by_category = [members for key, members in places.items() if "/" in key]
    assert sum(map(sum, by_category)) == 50 and {key.split("/")[1] for key in places if "/" in key} <= OUT_OF_PLACE


def test_the_prose_is_plain() -> None:
    texts = prose_texts()
    assert len(texts) >= 40 and len(set(texts)) == len(texts)
    assert all(count_emojis(text) == 0 and text.isascii() for text in texts)
    assert not {prompt.text for prompt in embedded_prompts()} & set(texts)


def test_adapters_of_one_folder_name_keep_names_that_differ() -> None:
    assert adapter_names([Path("/a/x"), Path("/a/y")]) == ["x", "y"]
    assert adapter_names([Path("/a/x"), Path("/b/x")]) == ["a/x", "b/x"]
    assert adapter_names([Path("/a/base")]) == ["a/base"], "the base has this name"


def test_a_comparison_of_the_base_alone_has_no_differences() -> None:
    found = comparison(["a", "b", "c", "d"])
    assert isinstance(found, Comparison) and len(found.figures) == 1
    assert all(figure.difference is None for figure in found.figures[0].figures.values())
    assert reply("x").finished
