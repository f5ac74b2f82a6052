"""Examples that become pairs themselves: which of them, and in the form of answered prompts."""

from collections.abc import Sequence
from typing import Final

from orpo.generating.palette import keep_to_palette
from orpo.generating.placing import strip
from orpo.generating.written import WrittenPrompt, scored_reply
from orpo.records.messages import last_message
from orpo.records.prompts import Prompt
from orpo.records.replies import Reply
from orpo.records.shipped import WISHES, Example
from orpo.scoring import contains_emoji

_RESTRAINED: Final = 0.3
"""Of the examples; docs/experiments.md has what more and fewer do to everyday replies and to grave ones."""


def choose_examples(examples: Sequence[Example], count: int, *, puts_wishes: bool) -> list[Example]:
    """Return up to `count` examples from all over the list, three tenths of them restrained if there are enough.

    Where wishes are put to messages, those that hold one of their own are not needed, and they are long.
    """
    if puts_wishes:
        examples = [example for example in examples if example.category not in WISHES]
    in_place = [example for example in examples if contains_emoji(example.reply)]
    restrained = [example for example in examples if not contains_emoji(example.reply)]
    quiet = min(len(restrained), max(round(_RESTRAINED * count), count - len(in_place)))
    return _from_all_over(in_place, count - quiet) + _from_all_over(restrained, quiet)


def _from_all_over(examples: Sequence[Example], count: int) -> list[Example]:
    count = min(count, len(examples))
    return [examples[number * len(examples) // count] for number in range(count)]


def as_written(examples: Sequence[Example], *, scorer: str, palette: Sequence[str] | None) -> list[WrittenPrompt]:
    """Return examples as answered prompts, with emojis of the palette only, if there is one."""
    written: list[WrittenPrompt] = []
    for example in examples:
        prompt = Prompt(example.example_id, last_message(example.prompt), example.category, messages=example.prompt)
        text = example.reply if palette is None else keep_to_palette(example.reply, prompt.text, palette)
        emoji, plain = (
            scored_reply(prompt, Reply(said, True, 0), "example", "example", scorer) for said in (text, strip(text))
        )
        restrained = not contains_emoji(example.reply)
        written.append(WrittenPrompt(prompt, emoji, plain, is_restrained=restrained))
    return written
