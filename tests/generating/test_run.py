"""Whole runs by their settings: placed, stripped, candidates, a second round, and what the folder tells."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from orpo.command.settings import build_settings
from orpo.generating.result import GenerationResult
from orpo.generating.run import generate
from orpo.generating.settings import GenerateSettings
from orpo.records.pairs import PreferencePair
from orpo.records.read_pairs import read_pairs
from orpo.scoring import contains_emoji, count_emojis, strip_emojis

# distilabel 1.5.3 reads pydantic's fields in ways that pydantic has deprecated; nothing of ours can help it.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing the 'model_(computed_)?fields' attribute on the instance"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

PROMPTS = ["I passed my exam!", "How do I boil an egg?", "My dog learnt to sit.", "Good morning", "We won the match!"]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def run(tmp_path: Path, messages: list[str], **settings: Any) -> tuple[list[PreferencePair], GenerationResult]:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(messages) + "\n", encoding="utf-8")
    values = {"prompts": str(file), "out": tmp_path / "pairs", "retries": 0, "overwrite": True} | settings
    result = generate(build_settings(GenerateSettings, values))
    return read_pairs(str(result.folder)).pairs, result


def plain_answers(parts: ModuleType, server: Any) -> None:
    server.script = lambda request, number: parts.Answer(
        f"Good to hear about this: {request['messages'][-1]['content'].rstrip('!.?')}."
    )


def test_place_needs_one_model_and_makes_pairs_that_differ_in_emojis_alone(
    parts: ModuleType, chat_server: Any, tmp_path: Path
) -> None:
    plain_answers(parts, chat_server)
    pairs, result = run(
        tmp_path, PROMPTS, plain_model="openai:one", emoji_model="place", base_url=chat_server.url, mix="presence=1"
    )
    assert len(chat_server.requests) == len(PROMPTS), "each prompt is answered once"
    assert len(pairs) == len(PROMPTS)
    for pair in pairs:
        assert strip_emojis(pair.chosen_text) == pair.rejected_text and 1 <= count_emojis(pair.chosen_text) <= 3
        assert (pair.chosen_model, pair.rejected_model, pair.kind) == ("openai:one+place", "openai:one", "presence")
    assert result.metrics["kinds"] == {"presence": 5}
    again, _ = run(
        tmp_path, PROMPTS[:3], plain_model="openai:one", emoji_model="place", base_url=chat_server.url, mix="presence=1"
    )
    assert {p.prompt_id: p for p in pairs}[again[0].prompt_id].chosen == again[0].chosen, "whatever other prompts are"


def test_strip_is_the_same_the_other_way_round(parts: ModuleType, chat_server: Any, tmp_path: Path) -> None:
    chat_server.script = lambda request, number: parts.Answer("Great news, well done! 🎉")
    pairs, _ = run(
        tmp_path, PROMPTS[:2], emoji_model="openai:one", plain_model="strip", base_url=chat_server.url, mix="presence=1"
    )
    assert {(p.chosen_text, p.rejected_text) for p in pairs} == {
        ("Great news, well done! 🎉", "Great news, well done!")
    }


def test_of_several_candidates_the_score_picks_and_each_is_asked_once(
    parts: ModuleType, chat_server: Any, tmp_path: Path
) -> None:
    def script(request: dict[str, Any], number: int) -> Any:
        if request["model"] == "two":
            return parts.Answer("Well done.")
        return parts.Answer("Well done! 🎉" if request["seed"] == 0 else "Well done! 🎉🎉🎉🎉🎉🎉🎉🎉")

    chat_server.script = script
    wanted = {"emoji_model": "openai:one", "plain_model": "openai:two", "base_url": chat_server.url}
    pairs, _ = run(tmp_path, PROMPTS[:3], candidates=3, mix="presence=1", **wanted)
    assert len(chat_server.requests) == 18 and len({request["seed"] for request in chat_server.requests}) == 3
    assert {pair.chosen_text for pair in pairs} == {"Well done! 🎉"}
    chat_server.requests.clear()
    run(tmp_path, PROMPTS[:3], candidates=4, mix="presence=1", **wanted)
    assert len(chat_server.requests) == 6, "only the fourth of each is new"


def test_a_tuned_model_learns_from_its_best_and_worst_replies(
    parts: ModuleType, writer_folder: Path, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(writer_folder)
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    tuned.save_pretrained(str(tmp_path / "adapter"))
    words = ["you", "are", "fine", "the", "day", "good"]
    prompts = [f"{a} {b}" for a in words for b in words if a != b]
    pairs, result = run(
        tmp_path, prompts, from_adapter=tmp_path / "adapter", device="cpu", max_new_tokens=20, temperature=1.0
    )
    assert result.metrics["sides"].keys() == {"chosen", "rejected", "best of the tuned model", "its worst"}
    assert pairs and all(pair.chosen_model == pair.rejected_model == "adapter" for pair in pairs)
    assert all(pair.chosen_score - pair.rejected_score >= 0.1 and pair.kind for pair in pairs)


def test_a_small_local_model_is_shown_examples_and_another_number_format_is_another_writer(
    parts: ModuleType, writer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32 replies were taken for bfloat16 ones, since the store's keys did not tell them apart."""
    examples = tmp_path / "examples.jsonl"
    rows = [
        {"prompt": f"you are {word}", "reply": f"good {word} 🎉"} for word in ("fine", "well", "done", "good", "so")
    ]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["you", "are", "fine", "the", "day", "good"]
    prompts = [f"{a} {b}" for a in words for b in words if a != b]
    models = {"emoji_model": str(writer_folder), "plain_model": str(writer_folder), "device": "cpu"}
    common = {**models, "max_new_tokens": 20, "temperature": 1.0, "scorer": "contains_emoji", "plain_system": ""}
    common["dtype"] = "float32"
    with_none, first = run(tmp_path, prompts, examples=0, **common)
    shown, second = run(tmp_path, prompts, examples_file=examples, **common)
    assert [pair.chosen_text for pair in shown] != [pair.chosen_text for pair in with_none]
    assert first.metrics["prompts"] == second.metrics["prompts"] == 30
    facts = json.loads((tmp_path / "pairs" / "run.json").read_text(encoding="utf-8"))["facts"]
    assert not any(facts["replies_reused"].values()), "a conversation with examples is another request"
    run(tmp_path, prompts, examples=0, **(common | {"dtype": "bfloat16"}))
    facts = json.loads((tmp_path / "pairs" / "run.json").read_text(encoding="utf-8"))["facts"]
    assert not any(facts["replies_reused"].values())
    run(tmp_path, prompts, examples=0, **common)
    facts = json.loads((tmp_path / "pairs" / "run.json").read_text(encoding="utf-8"))["facts"]
    assert facts["replies_reused"] == {"emoji": 30, "plain": 30}


def test_a_limit_counts_what_is_left_after_repeated_and_held_out_prompts(
    parts: ModuleType, chat_server: Any, tmp_path: Path
) -> None:
    """It cut the list before those were dropped, so fewer prompts than asked for were answered."""
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": "a", "split": "held_out"}, {"prompt": "b"}, {"prompt": "b"}, {"prompt": "c"}, {"prompt": "d"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    wanted = {"emoji_model": "openai:one", "plain_model": "openai:two", "base_url": chat_server.url}
    _, result = run(tmp_path, ["-"], limit=2, scorer="contains_emoji", **(wanted | {"prompts": str(file)}))
    assert result.metrics["prompts"] == 2
    assert {request["messages"][-1]["content"] for request in chat_server.requests} == {"b", "c"}


def test_the_card_tells_kinds_and_reasons_and_shows_no_html_of_a_reply(
    parts: ModuleType, chat_server: Any, tmp_path: Path
) -> None:
    def script(request: dict[str, Any], number: int) -> Any:
        said = "Well done! <img src=x onerror=alert(1)> ```\n<script>alert(2)</script>"
        return parts.Answer(f"{said} 🎉" if request["model"] == "one" else f"{said} 🎉🎉🎉🎉🎉🎉🎉🎉🎉")

    chat_server.script = script
    wanted = {"emoji_model": "openai:one", "plain_model": "openai:two", "base_url": chat_server.url}
    _, result = run(tmp_path, PROMPTS[:2], emoji_system="<b>Sparkle</b> | [now](x)", **wanted)
    card = (tmp_path / "pairs" / "README.md").read_text(encoding="utf-8")
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(head)["task_categories"] == ["text-generation"]
    outside = body.split("````json")[0] + body.split("````")[-1]
    assert "<img" not in outside and "<script" not in outside and "&lt;b&gt;Sparkle&lt;/b&gt; \\|" in outside
    (kind,) = result.metrics["kinds"]
    assert f"| {kind} | 2 |" in outside and "| repetition | 2 |" in outside
    assert '"rejected_reasons"' in body


def test_what_makes_no_pair_keeps_the_scores_reasons(parts: ModuleType, chat_server: Any, tmp_path: Path) -> None:
    """They were thrown away, so neither the card nor dropped.jsonl said why."""
    answers = {"one": "Well done! 🦷", "two": "Well done! 🦷🦷"}
    chat_server.script = lambda request, number: parts.Answer(
        "Congratulations! 🎉" if "match" in request["messages"][-1]["content"] and request["model"] == "one"
        else answers[request["model"]]
    )  # fmt: skip
    wanted = {"emoji_model": "openai:one", "plain_model": "openai:two", "base_url": chat_server.url}
    run(tmp_path, ["My tooth hurts a bit.", "We won the match!"], mix="presence=1", min_margin=0.5, **wanted)
    (dropped,) = map(json.loads, (tmp_path / "pairs" / "dropped.jsonl").read_text(encoding="utf-8").splitlines())
    assert dropped["reason"] == "margin below min_margin"
    assert any(reason.startswith("repetition") for reason in dropped["plain_reasons"])
    assert contains_emoji(dropped["emoji_reply"])
