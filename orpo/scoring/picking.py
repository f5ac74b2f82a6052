"""Rank all emojis for a text."""

import math
from collections.abc import Collection
from functools import cache

import numpy as np
from numpy.typing import NDArray

from orpo.scoring.contexts import QUIET, Context, find_context
from orpo.scoring.emoji_table import emoji_name, emoji_table, normalise_emoji
from orpo.scoring.meaning import MeaningModel, meaning_model
from orpo.scoring.profiles import PROFILES
from orpo.scoring.relevance import SMILEYS, USUAL_ENOUGH, emotion_fit, mood
from orpo.scoring.sentence_ends import sentence_ends
from orpo.scoring.suggesting import Suggestion
from orpo.scoring.surroundings import WORD, Reply
from orpo.scoring.wishes import find_wish

# Fitted on sentences with the emojis that a reader accepts; docs/experiments.md.
_LAST_SENTENCE = 0.3  # by which the end of the text is preferred to other places
_WHOLE, _ASKED = -0.6, 0.6  # by which the whole reply, and what was asked, are preferred to a sentence
_REPLY_SHARE, _PROMPT_SHARE = 0.4, 0.65
USUAL = 0.85  # for each grade of `MeaningModel.usualness` up to USUAL_ENOUGH
_SMILEY, _HAPPY_SMILEY = 0.3, 0.2  # a friendly face, and by how much more in a happy exchange
_HALFWAY = 5.0
_UNFIT_FOR_ASSISTANTS = frozenset("🖕🔞😘😗😙😚💋😏👅🍆🍑😈🔪🔫")


def pick_emojis(text: str, prompt: str, count: int, among: Collection[str] | None = None) -> list[Suggestion]:
    """Return what `suggest_emojis` promises."""
    reply = Reply(text)
    context = find_context(reply, prompt)
    wish = find_wish(prompt)
    places = sentence_ends(reply)
    if count < 1 or not places or (wish is not None and wish.forbids) or not _may_stand(context):
        return []
    model = meaning_model()
    scores, chosen = _best_places(model, reply, places, prompt)
    present, allowed = set(reply.keys), None if among is None else set(map(normalise_emoji, among))
    order = [int(number) for number in np.argsort(-scores, kind="stable")]
    found: list[Suggestion] = []
    for number in order:
        key = model.emojis[number]
        if (
            key in present
            or (allowed is not None and key not in allowed)
            or not _is_pickable(key)
            or (context is not None and context.sureness >= 0.5 and key not in QUIET)
        ):
            continue
        start, end = places[chosen[number]]
        sentence = reply.plain[start:end].strip()
        if emotion_fit(key, sentence, prompt) < 0.6:
            continue
        value = 1 / (1 + math.exp(_HALFWAY - float(scores[number])))
        found.append(Suggestion(_qualified(key), round(value, 4), _reason(model, number, sentence), end))
        if len(found) == count:
            break
    return found


def _may_stand(context: Context | None) -> bool:
    """Return whether an emoji is in place at all; in grief a quiet one is, to somebody who writes emojis."""
    return context is None or context.sureness < 0.5 or (context.label == "grief" and context.user_uses_emojis)


def _best_places(
    model: MeaningModel, reply: Reply, places: list[tuple[int, int]], prompt: str
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return every emoji's score and the number of the sentence that it fits best."""
    rows = np.array([model.topic_scores(model.sense(" ".join(reply.plain[a:b].split()))) for a, b in places])
    rows[-1] += _LAST_SENTENCE
    whole = model.sense(reply.words)
    asked = model.sense(prompt[-400:]) if prompt.strip() else whole
    by_reply, by_prompt = model.sense_scores(whole), model.sense_scores(asked)
    elsewhere = np.maximum(model.topic_scores(whole) + _WHOLE, model.topic_scores(asked) + _ASKED)
    best = np.maximum(rows.max(axis=0), elsewhere)
    usual = USUAL * np.minimum(model.usualness, USUAL_ENOUGH)
    scores = best + _REPLY_SHARE * by_reply + _PROMPT_SHARE * by_prompt + usual
    smileys = [model.index[emoji] for emoji in SMILEYS]
    scores[smileys] += _SMILEY + _HAPPY_SMILEY * mood(model, reply.words, prompt)
    return scores, rows.argmax(axis=0)


@cache
def _is_pickable(key: str) -> bool:
    """Return whether most devices show an emoji and a polite person uses it."""
    entry = emoji_table().get(key)
    return (
        entry is not None and entry.version <= PROFILES["tasteful"].newest_version and key not in _UNFIT_FOR_ASSISTANTS
    )


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
