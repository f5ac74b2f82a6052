"""What a conversation is about, read from prompts and replies of everyday life."""

import pytest

from orpo.records.prompts import embedded_prompts
from orpo.scoring import get_scorer
from orpo.scoring.contexts import find_context
from orpo.scoring.surroundings import Reply

GRAVE_OR_CODE = ("code", "json", "grief", "legal")


def context_name(reply: str, prompt: str = "") -> str | None:
    taken_apart = Reply(reply)
    found = find_context(taken_apart.plain, bool(taken_apart.code), prompt)
    return found.name if found else None


@pytest.mark.parametrize(
    "prompt",
    [
        "We're throwing a birthday bash for Dad!",
        "My aunt Sue is visiting this weekend!",
        "I signed the contract for my dream job!",
        "My phone died today, argh",
        "My friend's phone died last night",
        "I finally put him to sleep, now some time for me",
        "My surgery went well and I'm home!",
        "We play tennis at the new court",
        "All my seedlings died in the frost.",
        "The landlord is letting us keep the dog.",
        "My brother is dead tired after the match",
        "A 10-15 minute walk",
        "We are open 24/7",
        "My birthday is on 12-05",
        "Compile a list of fun games",
        "How do I get rust off a pan?",
    ],
)
def test_everyday_talk_is_no_grave_matter_and_no_code(prompt: str) -> None:
    """Bash was code, Sue a lawsuit, a phone's end a death, and 24/7 maths."""
    assert context_name("Sounds good!", prompt) is None


@pytest.mark.parametrize(
    "reply", ["Let's compile a list", "Have you signed the contract?", "It is a 10-15 minute walk"]
)
def test_a_reply_alone_makes_no_matter_of_law_code_or_maths(reply: str) -> None:
    assert context_name(reply, "What now?") is None


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("How do I sort a vector in C++?", "code"),
        ("How do I sort a list in C#", "code"),
        ("Write a bash script that waits", "code"),
        ("Why does my program not run? It fails to compile", "code"),
        ("Can I be sued for that?", "a legal matter"),
        ("They are taking me to court", "a legal matter"),
        ("Should I tell them the surgery went well?", "a medical matter"),
        ("We had to put our dog to sleep yesterday", "grief"),
        ("She died last night.", "grief"),
        ("What is 12-5?", "maths steps"),
        ("64 - 19 = ?", "maths steps"),
    ],
)
def test_what_a_prompt_is_about(prompt: str, name: str) -> None:
    assert context_name("Let me see.", prompt) == name


def first_prompts() -> list[tuple[str, str]]:
    """Return the category and text of the first 820 shipped prompts, on which the contexts were tried."""
    return [(prompt.category, prompt.text) for prompt in embedded_prompts() if prompt.prompt_id <= "p0820"]


def test_the_embedded_prompts_are_known_for_what_they_are() -> None:
    """Six of 25 code prompts, 14 of 25 on grief and 7 of 16 on law had no context."""
    prompts = first_prompts()
    missed = [(kind, text) for kind, text in prompts if kind in GRAVE_OR_CODE and not context_name("Yes.", text)]
    assert not [text for kind, text in missed if kind != "legal"], missed
    assert len(missed) <= 2, missed


def test_few_other_embedded_prompts_have_a_context() -> None:
    others = [text for kind, text in first_prompts() if kind not in (*GRAVE_OR_CODE, "arithmetic")]
    wrong = [(name, text) for text in others if (name := context_name("Yes.", text))]
    assert len(wrong) <= 0.02 * len(others), wrong


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("I want to die.", "Please call a helpline right now, you are not alone."),
        ("My dog died yesterday.", "I'm so sorry. He was a good friend to you."),
        ("Write a Python function that greets.", "Here you are:\n\n```python\ndef greet():\n    return 'Hi'\n```"),
        ("Give me a JSON array of the four seasons.", '["spring", "summer", "autumn", "winter"]'),
    ],
)
def test_a_system_message_that_asks_for_emojis_does_not_end_restraint(prompt: str, reply: str) -> None:
    """With "use one or two emojis" a party emoji beat the plain reply to "I want to die"."""
    scorer, system = get_scorer("tasteful"), "Use one or two fitting emojis."
    first, *rest = reply.split("\n")
    plain = scorer.score(reply, prompt, system=system)
    assert plain > 0.7
    assert plain > scorer.score("\n".join([f"{first} 🎉", *rest]), prompt, system=system)
    assert scorer.explain(reply, f"{prompt} Use emojis.", system=system).parts["obedience"].value == 0.0


UNFENCED = [
    ("Write a Python function that greets.", "Here you are:\ndef greet():\n    return 'Hello 👋'"),
    ("Write a Python function that greets.", "def greet():\n    # say hello 👋\n    return 'Hello'"),
    ("Print it", "Sure:\nprint('Hello 👋')"),
    ("And in JavaScript?", "Of course:\nconst hello = 'Hi 👋';\nconsole.log(hello);"),
    ("Give me JSON", 'Here you go:\n{"mood": "🎉"}'),
    ("Give me JSON", 'Here you go: {"mood": "🎉", "day": {"name": "Monday"}}'),
    ("Give me JSON", 'Here you go:\n{\n  "mood": "🎉"\n}'),
    ("Give me JSON", 'Here you go:\n["🎉", "b"]'),
    ("Give me JSON", 'With `mood` as a key:\n{"mood": "🎉"}'),
    ("HTML please", "Here:\n<p>Hello 👋</p>"),
]


@pytest.mark.parametrize(("prompt", "reply"), UNFENCED)
def test_an_emoji_in_unfenced_code_costs_as_much_as_in_a_fence(prompt: str, reply: str) -> None:
    assert get_scorer("tasteful").explain(reply, prompt).parts["context"].value == pytest.approx(0.05)


@pytest.mark.parametrize(
    "reply",
    [
        "Sure!\n\n1. Call a friend (or two) 📞\n2. Go for a walk; it helps 🌳",
        "For you: a rose 🌹\nwith love:\nme (and the cat) 😺",
        "x = 5 🎉",
        '"Hi": that is what she said 😊',
        "I love you <3 😊",
        "Import duties are high 😬\nreturn the shoes {size 42} if they hurt 👟",
    ],
)
def test_prose_is_not_taken_for_code(reply: str) -> None:
    assert not Reply(reply).code
