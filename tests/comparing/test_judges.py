"""A judge at an endpoint: asked over HTTP in both orders, its answers kept, its failures told."""

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orpo.command.errors import ModelError, OrpoError, SettingsError
from orpo.command.settings import build_settings
from orpo.comparing.judges import find_judge, judge_comparison
from orpo.comparing.judging import Judgement
from orpo.comparing.settings import ReportSettings
from orpo.report import main
from tests.comparing.given_sides import comparison

BASE = ["Congratulations.", "Hello.", "sum(x) 🎉", "Sorry."]
# None alike: the same question asked twice may come from the cache the second time.
TUNED = ["Congratulations! 🎉", "Hello! 🙂", "sum(x)", "So sorry."]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def emoji_judge(parts: ModuleType, chat_server: Any) -> Any:
    """Return an endpoint that prefers the reply with an emoji; of two alike it takes the first."""

    def script(request: dict[str, Any], number: int) -> Any:
        first, second = replies_in(request)
        return parts.Answer("B" if "🎉" in second + "🙂" * ("🙂" in second) and "🎉" not in first else "A")

    chat_server.script = script
    return chat_server


def replies_in(request: dict[str, Any]) -> tuple[str, str]:
    found = re.search(r"Reply A:\n(.*)\n\nReply B:\n(.*)\n\nWhich", request["messages"][-1]["content"], re.DOTALL)
    assert found is not None
    return found[1], found[2]


def judged(server: Any, **changes: Any) -> Judgement:
    values = {"judge": "openai:one", "judge_base_url": server.url, "judge_retries": 0, **changes}
    load = find_judge(build_settings(ReportSettings, values))
    [found] = judge_comparison(comparison(BASE, TUNED), load)
    return found


def test_each_pair_is_asked_in_both_orders_greedily_with_the_key_of_the_environment(
    emoji_judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first prompt is a win, the third a loss (an emoji in code); the others, where A is said twice, are ties."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    found = judged(emoji_judge)
    assert (found.wins, found.losses, found.ties, found.failed) == (1, 1, 2, 0)
    assert found.preferred is not None and found.preferred.value == 0.5
    assert found.agreement is not None and (found.agreement.value, found.agreement.prompts) == (0.5, 2)
    asked = {replies_in(request) for request in emoji_judge.requests}
    pairs = set(zip(BASE, TUNED, strict=True))
    assert asked == pairs | {(second, first) for first, second in pairs} and len(emoji_judge.requests) == 8
    assert all(request["temperature"] == 0 and request["max_tokens"] == 8 for request in emoji_judge.requests)
    assert set(emoji_judge.authorisations) == {"Bearer sk-very-secret"}


def test_a_second_run_asks_nothing_unless_told_to(emoji_judge: Any) -> None:
    first = judged(emoji_judge)
    assert judged(emoji_judge) == first and len(emoji_judge.requests) == 8
    assert judged(emoji_judge, reuse_replies=False) == first and len(emoji_judge.requests) == 16


def test_a_prompt_whose_question_fails_counts_nowhere_and_is_told(
    parts: ModuleType, emoji_judge: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = emoji_judge.script

    def script(request: dict[str, Any], number: int) -> Any:
        return parts.Answer(status=500) if replies_in(request)[0] == TUNED[0] else usual(request, number)

    emoji_judge.script = script
    found = judged(emoji_judge)
    assert (found.wins, found.losses, found.ties, found.failed) == (0, 1, 2, 1)
    assert found.preferred is not None and found.preferred.prompts == 3
    assert "1 of 8 questions to the judge failed (HTTP 500: scripted failure)" in capsys.readouterr().err


def test_a_judge_that_answers_nothing_ends_the_report(parts: ModuleType, chat_server: Any) -> None:
    chat_server.script = lambda *_: parts.Answer(status=404)
    with pytest.raises(ModelError, match="knows no such model or address"):
        judged(chat_server)


def test_the_report_takes_it(
    trained: Path, parts: ModuleType, chat_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole, on a small real model: the longer reply is preferred, whichever stands first."""
    chat_server.script = lambda request, _: parts.Answer(
        max("AB", key=lambda letter: len(replies_in(request)["AB".index(letter)]))
    )
    flags = [
        "--adapter",
        str(trained),
        "--count",
        "6",
        "--max-new-tokens",
        "6",
        "--device",
        "cpu",
        "--measure",
        "prompts",
    ]
    out = tmp_path / "report"
    assert main([*flags, "--out", str(out), "--judge", "openai:one", "--judge-base-url", chat_server.url]) == 0
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    [found] = content["judgements"]
    assert found["wins"] + found["losses"] + found["ties"] == 6 and found["wins"] + found["losses"] > 0
    assert len(chat_server.requests) == 12 and content["judge"] == "openai:one"
    assert "openai:one saw each pair of replies in both orders" in (out / "report.html").read_text(encoding="utf-8")
    assert "agrees with the score" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--judge", "openai:"], r"^--judge 'openai:': name a model$"),
        (["--judge", "openai:one"], r"OPENAI_API_KEY is not set .*name its address with --judge-base-url\)$"),
        (
            ["--judge-base-url", "http://me:word@x/v1"],
            r"^--judge-base-url http://\*\*\*@x/v1: .*pass --judge openai:NAME$",
        ),
        (["--judge", "openai:one", "--judge-base-url", "x"], r"^--judge-base-url x: must begin with http"),
        (["--judge", "openai:one", "--judge-request-extra", "[1]"], r"^--judge-request-extra .*not a JSON object"),
    ],
)
def test_a_wrong_judge_is_one_line_before_anything_is_loaded(flags: list[str], said: str, trained: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        main([*flags])
    problem: OrpoError = caught.value
    assert re.search(said, problem.for_command()) and "\n" not in problem.for_command()
