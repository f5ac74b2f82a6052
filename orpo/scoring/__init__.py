"""How well a reply uses emojis: find them, score them in their context, explain the score. No torch.

    from orpo.scoring import get_scorer
    get_scorer("tasteful").score("Congratulations, you earned it! 🎉", prompt="I passed my exam!")

`SCORERS` names the profiles; `contains_emoji` is the first score, S(m) = 1 if the reply contains an emoji, else 0.
"""

from orpo.scoring.emoji_table import emoji_name, normalise_emoji
from orpo.scoring.finding import EmojiSpan, contains_emoji, count_emojis, find_emojis, strip_emojis
from orpo.scoring.report import PartScore, ScoreReport, mean_scores, preference
from orpo.scoring.scorers import DEFAULT_SCORER, SCORERS, Scorer, get_scorer
from orpo.scoring.suggesting import Suggestion, place_emojis, suggest_emojis

__all__ = [
    "DEFAULT_SCORER",
    "SCORERS",
    "EmojiSpan",
    "PartScore",
    "ScoreReport",
    "Scorer",
    "Suggestion",
    "contains_emoji",
    "count_emojis",
    "emoji_name",
    "find_emojis",
    "get_scorer",
    "mean_scores",
    "normalise_emoji",
    "place_emojis",
    "preference",
    "strip_emojis",
    "suggest_emojis",
]
