"""How well each emoji fits what is said: its meaning, and its feeling."""

import math
from dataclasses import dataclass

from orpo.scoring.meaning import Feeling, MeaningModel, meaning_model

SMILEYS = ("😊", "🙂", "😄", "😀", "😃", "🤗", "☺", "😁", "😉")
"""Friendly faces, which fit small talk of any topic: what they need is a fitting mood."""
_HUG = "🤗"  # also fits when somebody is a little sad

_LEAST_RELEVANCE = 0.03
# Fitted by builds/relevance_model/mixing.py on emojis in place against others of equal frequency.
REPLY_SHARE, PROMPT_SHARE, BEST_SHARE = 0.6, 0.6, 1.0
USUAL_SHARE, USUAL_ENOUGH = 0.2, 4.0  # beyond that grade an emoji is usual enough to need no more evidence
HALFWAY = 2.95
# A smile is worth this where nothing else would say more, and so much less where an emoji of the topic would.
_FRIENDLY, _TOPICAL = 0.75, 0.2
_TOPIC_FROM, _TOPIC_TO = 3.5, 5.5  # how well the topic's best emoji fits, from hardly to surely
_SMILES_FROM, _SMILES_TO = -0.27, -0.02  # the mood in which a smile begins to fit, and fits
_HUGS_FROM = -0.6
_UNSURE = 0.6
_FEW_WORDS = 4
_LONGEST_PROMPT = 400
_JOY, _TRUST, _SADNESS = 4, 7, 5
_ANGER, _DISGUST, _FEAR = 0, 2, 3


@dataclass(frozen=True, slots=True)
class Place:
    """The words around an emoji that it may belong to."""

    clause: str
    before: str = ""
    reply: str = ""
    prompt: str = ""


def relevance(emoji_key: str, place: Place) -> float:
    """Return how well an emoji's meaning fits its place, in [0, 1]; 0.5 where it is unknown or nothing is said.

    It may belong to its sentence, the one before, the reply as a whole or what was asked: the best of them counts, and
    a share of how well it fits the whole exchange. A friendly smiley needs no topic.
    """
    model = meaning_model()
    number = model.number(emoji_key)
    if number is None or not (place.clause or place.prompt):
        return 0.5
    value = 1 / (1 + math.exp(HALFWAY - standing(model, number, place)))
    if emoji_key in SMILEYS:
        value = max(value, _friendliness(model, emoji_key, place))
    words = len(place.clause.split())
    if words < _FEW_WORDS and value < _UNSURE and model.is_rated[number]:  # "Hello" says too little against a smile
        value += (_UNSURE - value) * (1 - words / _FEW_WORDS)
    return _LEAST_RELEVANCE + (1 - _LEAST_RELEVANCE) * value  # no floor: the worse of two bad ones stays below


def _friendliness(model: MeaningModel, emoji_key: str, place: Place) -> float:
    """Return what a smile is worth in this mood, beside the emoji that the topic would offer."""
    feeling = mood(model, place.reply or place.clause, place.prompt)
    start = _HUGS_FROM if emoji_key == _HUG else _SMILES_FROM
    cheer = min(1.0, max(0.0, (feeling - start) / (_SMILES_TO - start)))
    best = model.best_topic_score(model.sense(place.reply or place.clause))
    topical = min(1.0, max(0.0, (best - _TOPIC_FROM) / (_TOPIC_TO - _TOPIC_FROM)))
    return cheer * (_FRIENDLY - _TOPICAL * topical)


def standing(model: MeaningModel, number: int, place: Place) -> float:
    """Return how much speaks for an emoji at its place, in log odds but for a constant."""
    best = model.lexical_score(number, model.text(place.clause))
    whole = model.sense(place.reply or place.clause)
    prompt = reply = model.sense_score(number, whole)
    if place.before:
        best = max(best, model.topic_score(number, model.sense(place.before)))
    if place.reply:
        best = max(best, reply + model.keyword_score(number, whole))
    if place.prompt:
        asked = model.sense(place.prompt[-_LONGEST_PROMPT:])
        prompt = model.sense_score(number, asked)
        best = max(best, prompt + model.keyword_score(number, asked))
    usual = min(USUAL_ENOUGH, float(model.usualness[number]))
    return BEST_SHARE * best + REPLY_SHARE * reply + PROMPT_SHARE * prompt + USUAL_SHARE * usual


def mood(model: MeaningModel, reply: str, prompt: str = "") -> float:
    """Return an exchange's mood, from -1 (sad, worried) to 1 (happy): the reply's, or that of both where it is less."""
    answered = model.sense(reply).mood
    if not prompt:
        return answered
    return min(answered, (answered + model.sense(prompt[-_LONGEST_PROMPT:]).mood) / 2)


def emotion_fit(emoji_key: str, text: str, prompt: str = "") -> float:
    """Return how well an emoji's feeling fits a text and what it answers, in [0, 1]; 1 where either has none.

    The emoji's feeling is EmoTag's human rating, or that of its nearest rated emojis; the text's is what people are
    likely to see in it. Only a clash counts in full: glee on sad words, gloom on happy ones. Comfort clashes with none.
    """
    model = meaning_model()
    number = model.number(emoji_key)
    if number is None or not text:
        return 1.0
    meaning = model.text(text)
    clash = _clash(model, number, meaning)
    if prompt:
        clash = max(clash, 0.6 * _clash(model, number, model.feeling(prompt[-_LONGEST_PROMPT:])))
    sympathy = 1 / (1 + math.exp(-2.0 * model.emotion_score(number, meaning) - 1.0))
    return (1.0 - clash) * (0.85 + 0.15 * sympathy)


def _clash(model: MeaningModel, number: int, meaning: Feeling) -> float:
    ratings = model.ratings[number]
    glee = float(ratings[_JOY] - 0.8 * ratings[_TRUST] - ratings[_SADNESS])
    gloom = float(max(ratings[_SADNESS], ratings[_ANGER], ratings[_DISGUST], ratings[_FEAR]) - ratings[_JOY])
    sadness = meaning.negative - meaning.positive
    clash = glee * sadness if sadness > 0 else gloom * -sadness
    return max(0.0, min(0.95, 1.4 * clash))
