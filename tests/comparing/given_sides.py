"""Sides whose replies are given, not generated: what the tables and the report are made of."""

from collections.abc import Sequence
from pathlib import Path

from orpo.comparing.approaches import BASE, TUNED, Approach
from orpo.comparing.comparison import Comparison
from orpo.comparing.sides import HeldOut, Side
from orpo.records.messages import user_message
from orpo.records.prompts import Prompt
from orpo.records.replies import Reply
from orpo.records.shipped import HeldOutWish, ShortQuestion
from orpo.scoring.replies import score_replies

PROMPTS = [
    Prompt("a", "I got the job!", "good_news"),
    Prompt("b", "Good morning", "small_talk"),
    Prompt("c", "Sum of a list in Python?", "code"),
    Prompt("d", "My father died.", "grief"),
]


def side(approach: Approach, runs: Sequence[Sequence[str]], held_out: HeldOut, **given: object) -> Side:
    """Return a side whose replies to the prompts are these texts, one list a seed; each took a second."""
    conversations = held_out.prompt_conversations()
    return Side(
        approach,
        replies=[[reply(text) for text in texts] for texts in runs],
        reports=[score_replies("tasteful", conversations, list(texts)) for texts in runs],
        seconds=float(sum(map(len, runs))),
        **given,  # type: ignore[arg-type]
    )


def reply(text: str, *, finished: bool = True) -> Reply:
    """Return a reply of 5 tokens."""
    return Reply(text, finished, 5)


def comparison(
    base: Sequence[str], tuned: Sequence[str] | None = None, prompts: Sequence[Prompt] = PROMPTS
) -> Comparison:
    """Return a comparison of given replies."""
    held_out = HeldOut(list(prompts))
    sides = [side(Approach(BASE), [base], held_out)]
    if tuned is not None:
        sides.append(side(Approach(TUNED, Path("trained/x")), [tuned], held_out))
    return Comparison(held_out, sides)


def whole_comparison(*, times: int = 10) -> Comparison:
    """Return one with every part: 4 prompts `times` times, wishes, questions and prose."""
    prompts = [
        Prompt(f"{prompt.prompt_id}{n}", prompt.text, prompt.category) for n in range(times) for prompt in PROMPTS
    ]
    wishes = [HeldOutWish(user_message("No emojis, please. Hi!"), "forbids") for _ in range(times)]
    wishes += [HeldOutWish(user_message("Use emojis. Hi!"), "asks") for _ in range(times)]
    questions = [ShortQuestion("What is 2 + 2?", ("4", "four"), "sum") for _ in range(2 * times)]
    held_out = HeldOut(prompts, wishes, questions, ["One text.", "Another text."])
    base = side(
        Approach(BASE),
        [["Congratulations.", "Good morning.", "sum(x) 🎉", "So sorry 🎉"] * times],
        held_out,
        obedience=[[reply("Hi!")] * (2 * times)],
        answers=[reply("4")] * times + [reply("5")] * times,
        prose=[(-20.0, 10), (-10.0, 10)],
    )
    tuned = side(
        Approach(TUNED, Path("trained/x")),
        [["Congratulations! 🎉", "Good morning! ☀️", "sum(x)", "I am so sorry."] * times],
        held_out,
        obedience=[[reply("Hi!")] * times + [reply("Hi! 👋")] * times],
        answers=[reply("It is 4. 🎉")] * (2 * times),
        prose=[(-20.0, 10), (-12.0, 10)],
    )
    return Comparison(held_out, [base, tuned])
