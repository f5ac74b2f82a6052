"""What ships: typed, whole, and what a model learns from says nothing that it is measured with."""

import json
from collections import Counter

from builds.examples.build import PLAIN, choose_examples, held_out_messages, held_out_wordings
from orpo.records.messages import last_message, system_message, user_message
from orpo.records.near_duplicates import KnownMessages
from orpo.records.prompts import OUT_OF_PLACE, PROMPTS_FILE, embedded_prompts, standard_prompts
from orpo.records.shipped import held_out_wishes, shipped_examples, shipped_wishes, short_questions
from orpo.scoring import contains_emoji

LEARNT_FROM = [prompt.conversation() for prompt in embedded_prompts("train")]
LEARNT_FROM += [example.prompt for example in shipped_examples()]


def test_no_message_to_learn_from_is_a_rewording_of_one_to_measure_with() -> None:
    held_out = held_out_messages()
    assert [talk for talk in LEARNT_FROM if held_out.is_near(last_message(talk))] == []


def test_no_wish_to_learn_from_has_the_wording_of_a_held_out_one() -> None:
    wordings = held_out_wordings()
    assert [text for talk in LEARNT_FROM if (text := system_message(talk)) and wordings.is_near(text)] == []
    assert [wish.text for wish in shipped_wishes() if wordings.is_near(wish.text)] == []
    assert [wish.text for wish in shipped_wishes() if held_out_messages().is_near(wish.text)] == []


def test_what_is_measured_with_says_everything_once() -> None:
    """The held-out prompts, wishes and questions are apart from each other too."""
    known = KnownMessages()
    near = []
    for text in (
        *(prompt.text for prompt in embedded_prompts("held_out")),
        *(question.question for question in short_questions()),
        *(last_message(wish.messages) for wish in held_out_wishes()),
    ):
        if known.is_near(text):
            near.append(text)
        known.add(text)
    assert near == []


def test_examples_repeat_neither_each_other_nor_a_training_prompt() -> None:
    known = KnownMessages(prompt.text for prompt in embedded_prompts("train"))
    near = []
    for example in shipped_examples():
        text = last_message(example.prompt)
        if known.is_near(text):
            near.append(text)
        known.add(text)
    assert near == []


def test_examples_have_an_emoji_where_it_is_in_place_and_only_there() -> None:
    examples = shipped_examples()
    assert len(examples) >= 1300
    for example in examples:
        assert contains_emoji(example.reply) == (example.category not in PLAIN), example
        assert not any(message["role"] == "system" for message in example.prompt[1:])  # train refuses such pairs
        assert example.prompt[-1]["role"] == "user" and example.reply.strip() == example.reply
    plain = sum(example.category in PLAIN for example in examples)
    assert 0.25 < plain / len(examples) < 0.5
    assert Counter(example.category for example in examples).keys() >= OUT_OF_PLACE


def test_the_standard_set_is_200_held_out_prompts_of_which_50_leave_no_room_for_an_emoji() -> None:
    standard = standard_prompts()
    assert len(standard) == 200 and {prompt.split for prompt in standard} == {"held_out"}
    assert sum(prompt.category in OUT_OF_PLACE for prompt in standard) == 50
    assert {prompt.category for prompt in standard} == {prompt.category for prompt in embedded_prompts("held_out")}


def test_a_shipped_prompt_may_be_a_conversation() -> None:
    talks = [prompt for prompt in embedded_prompts("train") if prompt.messages]
    assert len(talks) >= 20
    assert all(prompt.conversation()[-1] == {"role": "user", "content": prompt.text} for prompt in talks)
    with PROMPTS_FILE.open(encoding="utf-8") as stream:
        assert len({json.loads(line)["prompt_id"] for line in stream}) == len(embedded_prompts())


def test_questions_have_answers_and_wishes_both_kinds() -> None:
    questions = short_questions()
    assert Counter(question.kind for question in questions) == {"fact": 70, "sum": 30}
    assert all(
        question.answers and all(answer == answer.lower() for answer in question.answers) for question in questions
    )
    assert Counter(wish.wish for wish in held_out_wishes()) == {"asks": 30, "forbids": 30}
    assert all(wish.messages[-1]["role"] == "user" for wish in held_out_wishes())


def test_wishes_are_of_both_kinds_and_go_with_any_message() -> None:
    wishes = shipped_wishes()
    assert Counter(wish.wish for wish in wishes) == {"forbids": 247, "asks": 140}
    assert len({wish.text for wish in wishes}) == len(wishes)
    for wish in wishes:
        talk = wish.put_to(user_message("Hello"))
        assert (system_message(talk) == wish.text) == (wish.where == "system")
        assert last_message(talk) == {"before": f"{wish.text} Hello", "after": f"Hello {wish.text}"}.get(
            wish.where, "Hello"
        )


def test_near_means_most_content_words_shared() -> None:
    """Once only the very same words counted, and "how do i poach an egg" stood beside "how to poach an egg"."""
    held_out = held_out_messages()
    assert all(held_out.is_near(prompt.text) for prompt in embedded_prompts("held_out"))
    assert held_out.is_near("Can you tell me how to poach an egg, please?")
    assert held_out.is_near("Nobody came to my poetry reading.")
    assert not held_out.is_near("How long does an egg boil?")
    assert not held_out.is_near("We need coffee for the office.")
    assert not held_out.is_near("")


def test_the_builder_leaves_out_what_may_not_ship_and_counts_it() -> None:
    left_out: Counter[str] = Counter()
    news = "The zeppelin museum reopened in Friedrichshafen"
    written = [
        ("How to poach an egg", "Simmer it gently. 🥚"),
        (news, "Nice."),
        (news, "Go 🎈"),
        ("zeppelin museum in Friedrichshafen has reopened", "Go 🎈"),
    ]
    rows = [{"prompt": user_message(text), "category": "good_news", "reply": reply} for text, reply in written]
    assert list(choose_examples(rows, left_out)) == [rows[2]]
    assert sum(left_out.values()) == 3 and len(left_out) == 3
