"""How well each emoji fits what is said: its meaning, and its feeling."""

import math

from orpo.scoring.meaning import Feeling, MeaningModel, meaning_model

_LEAST_RELEVANCE = 0.1
_STEEPNESS = 1.8
_HALFWAY = 0.4  # standard deviations above an emoji's affinity to everyday comments
_UNSURE = 0.6
_FEW_WORDS = 4
_RARER = 0.6  # emojis that people use too seldom to have been rated need that much more evidence
_ANGER, _ANTICIPATION, _DISGUST, _FEAR, _JOY, _SADNESS, _SURPRISE, _TRUST = range(8)


def relevance(emoji_key: str, text: str) -> float:
    """Return how well an emoji's meaning fits a text, in [0, 1]; 0.5 where the emoji is unknown or nothing is said."""
    model = meaning_model()
    number = model.number(emoji_key)
    if number is None or not text:
        return 0.5
    common = bool(model.is_rated[number])
    standing = model.standing(number, model.text(text)) - (0.0 if common else _RARER)
    value = 1 / (1 + math.exp(-_STEEPNESS * (max(-10.0, min(10.0, standing)) - _HALFWAY)))
    words = len(text.split())
    if common and words < _FEW_WORDS and value < _UNSURE:  # "Hello" says too little to hold a smile against it
        value += (_UNSURE - value) * (1 - words / _FEW_WORDS)
    return max(_LEAST_RELEVANCE, value)


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
        clash = max(clash, 0.6 * _clash(model, number, model.feeling(prompt[-400:])))
    sympathy = model.sympathy(number, meaning)
    return (1.0 - clash) * (0.85 + 0.15 * sympathy)


def _clash(model: MeaningModel, number: int, meaning: Feeling) -> float:
    ratings = model.ratings[number]
    glee = float(ratings[_JOY] - 0.8 * ratings[_TRUST] - ratings[_SADNESS])
    gloom = float(max(ratings[_SADNESS], ratings[_ANGER], ratings[_DISGUST], ratings[_FEAR]) - ratings[_JOY])
    sadness = meaning.negative - meaning.positive
    clash = glee * sadness if sadness > 0 else gloom * -sadness
    return max(0.0, min(0.95, 1.4 * clash))
