"""Rank all emojis for a text."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from orpo.scoring.contexts import GRIEF, Context, find_context
from orpo.scoring.emoji_table import emoji_name, emoji_table
from orpo.scoring.fitting import emotion_fit
from orpo.scoring.meaning import MeaningModel, TextMeaning, meaning_model
from orpo.scoring.profiles import PROFILES
from orpo.scoring.sentence_ends import sentence_ends
from orpo.scoring.suggesting import Suggestion
from orpo.scoring.surroundings import WORD, Reply
from orpo.scoring.wishes import find_wish

SMILEYS = ("😊", "🙂", "😄", "😀", "😃", "🤗", "☺", "😁")
"""Friendly faces, which fit small talk of any topic."""

_LAST_SENTENCE = 0.35  # standard deviations by which the end of the text is preferred to other places
_PROMPT_SHARE = 0.2  # how far the whole exchange counts beside the sentence
_USUAL = 0.55  # standard deviations for each grade of `MeaningModel.usualness`
_USUAL_MIDDLE = 3.0
_SMALL_TALK = 1.2
_STEEPNESS, _HALFWAY = 1.2, 1.2
_QUIET = ("💙", "🕊", "🙏", "💐", "🤍")


def pick_emojis(text: str, prompt: str, count: int) -> list[Suggestion]:
    """Return what `suggest_emojis` promises."""
    reply = Reply(text)
    context = find_context(reply.plain, bool(reply.code), prompt)
    wish = find_wish(prompt)
    places = sentence_ends(reply)
    if count < 1 or not places or (wish is not None and wish.forbids) or not _may_stand(context):
        return []
    model = meaning_model()
    scores, chosen = _best_places(model, reply, places, prompt)
    present = set(reply.keys)
    order = [int(number) for number in np.argsort(-scores, kind="stable")]
    found: list[Suggestion] = []
    for number in order:
        key = model.emojis[number]
        if key in present or not _is_pickable(key) or (context is GRIEF and key not in _QUIET):
            continue
        start, end = places[chosen[number]]
        sentence = reply.plain[start:end].strip()
        if emotion_fit(key, sentence, prompt) < 0.6:
            continue
        value = 1 / (1 + math.exp(-_STEEPNESS * (float(scores[number]) - _HALFWAY)))
        found.append(Suggestion(_qualified(key), round(value, 4), _reason(model, number, sentence), end))
        if len(found) == count:
            break
    return found


def _may_stand(context: Context | None) -> bool:
    return context is None or context is GRIEF or context.other >= 0.7


def _best_places(
    model: MeaningModel, reply: Reply, places: list[tuple[int, int]], prompt: str
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return every emoji's score and the number of the sentence that it fits best."""
    rows = []
    for number, (start, end) in enumerate(places):
        meaning = model.text(reply.plain[start:end].strip())
        row = model.standings(meaning) + _friendliness(model, meaning)
        rows.append(row + (_LAST_SENTENCE if number == len(places) - 1 else 0.0))
    scores = np.array(rows)
    whole = model.standings(model.text(f"{prompt[-400:]} {reply.plain[-400:]}"))
    best = scores.max(axis=0) * (1 - _PROMPT_SHARE) + _PROMPT_SHARE * whole
    return best + _USUAL * (model.usualness - _USUAL_MIDDLE), scores.argmax(axis=0)


def _friendliness(model: MeaningModel, meaning: TextMeaning) -> NDArray[np.float32]:
    """Return what speaks for the friendly smileys: a kind mood, whatever the topic."""
    extra = np.zeros(len(model.emojis), dtype=np.float32)
    for place, emoji in enumerate(SMILEYS):
        extra[model.index[emoji]] = _SMALL_TALK * (meaning.positive - meaning.negative) * (1 - 0.08 * place)
    return extra


@cache
def _is_pickable(key: str) -> bool:
    """Return whether most devices show an emoji and a polite person uses it."""
    entry = emoji_table().get(key)
    return entry is not None and entry.version <= PROFILES["tasteful"].newest_version and key not in ("🖕", "🔞")


def _qualified(key: str) -> str:
    return emoji_table()[key].text


def _reason(model: MeaningModel, number: int, sentence: str) -> str:
    """Return what a pick rests on: words that name the emoji, else the mood or the sense."""
    name = emoji_name(model.emojis[number])
    words = [word for word in WORD.findall(sentence) if model.names(number, word)]
    if words:
        return f"{name}: fits {words[0]!r}"
    if model.emojis[number] in SMILEYS:
        return f"{name}: a friendly mood"
    return f"{name}: fits the sense of the sentence"
