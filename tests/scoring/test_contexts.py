"""What a conversation is about, read from prompts and replies of everyday life."""

import pytest

from orpo.records.prompts import embedded_prompts
from orpo.scoring import get_scorer
from orpo.scoring.contexts import find_context
from orpo.scoring.surroundings import Reply

OUT_OF_PLACE = ("code", "json", "grief", "legal", "formal", "grave_illness", "violence", "crisis")
IN_PLACE = ("good_news", "small_talk", "bad_news", "ideas", "how_to", "question", "arithmetic", "opinion")


def context_name(reply: str, prompt: str = "") -> str | None:
    taken_apart = Reply(reply)
    found = find_context(taken_apart, prompt)
    return found.name if found and found.sureness >= 0.5 else None


@pytest.mark.parametrize(
    "prompt",
    [
        "We're throwing a birthday bash for Dad!",
        "My aunt Sue is visiting this weekend!",
        "I signed the contract for my dream job!",
        "My phone died today, argh",
        "I finally put him to sleep, now some time for me",
        "My surgery went well and I'm home!",
        "We play tennis at the new court",
        "All my seedlings died in the frost.",
        "The landlord is letting us keep the dog.",
        "My brother is dead tired after the match",
        "A 10-15 minute walk",
        "We are open 24/7",
        "My birthday is on 12-05",
        "How do I get rust off a pan?",
    ],
)
def test_everyday_talk_is_no_grave_matter_and_no_code(prompt: str) -> None:
    """Bash was code, Sue a lawsuit, a phone's end a death, and 24/7 maths."""
    assert context_name("Sounds good!", prompt) is None


@pytest.mark.parametrize(
    ("prompt", "reply", "name"),
    [
        ("How do I sort a vector in C++?", "Use `std::sort(v.begin(), v.end());`.", "code"),
        ("Why does my program not run? It fails to compile", "Please paste the first error message.", "code"),
        ("Can I be sued for that?", "Possibly, if somebody was harmed. Ask a lawyer.", "a legal matter"),
        ("They are taking me to court", "Note the date of the hearing and get advice.", "a legal matter"),
        ("We had to put our dog to sleep yesterday", "I'm so sorry. He was family.", "grief"),
        ("She died last night.", "I'm so sorry for your loss.", "grief"),
        (
            "My father was murdered. The trial begins on Monday.",
            "I'm so sorry. Is somebody with you?",
            "grief",
        ),
        ("He hit me again last night.", "I'm so sorry. That is never your fault.", "violence or disaster"),
        ("Draft a resignation letter for me.", "Dear Ms Lind, I hereby resign from my position.", "formal writing"),
        ("I think I'm having a heart attack", "Call the emergency number now.", "a crisis"),
    ],
)
def test_what_an_exchange_is_about(prompt: str, reply: str, name: str) -> None:
    assert context_name(reply, prompt) == name


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("Tell me a fantasy story about a lost letter.", "In her late grandmother's house Mira found a letter."),
        ("killing it at work today", "Nice, what went so well?"),
        ("What are the symptoms of a cold?", "A runny nose, a sore throat and a cough. Rest up!"),
        ("Remind me to take my vitamins at eight", "Will do! Eight it is."),
    ],
)
def test_stories_idioms_and_everyday_health_are_everyday(prompt: str, reply: str) -> None:
    assert context_name(reply, prompt) is None


def test_most_embedded_prompts_are_known_for_what_they_are() -> None:
    """Read with an answer that says nothing; a real one tells much."""
    prompts = [(prompt.category, prompt.text) for prompt in embedded_prompts()]
    out_of_place = [text for category, text in prompts if category in OUT_OF_PLACE]
    missed = [text for text in out_of_place if not context_name("", text)]
    assert len(missed) <= 0.1 * len(out_of_place), missed
    in_place = [text for category, text in prompts if category in IN_PLACE]
    wrong = [(name, text) for text in in_place if (name := context_name("Sure!", text))]
    assert len(wrong) <= 0.03 * len(in_place), wrong


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
