"""The scores of many replies, each in the light of the conversation that it answers."""

from collections.abc import Mapping, Sequence

from orpo.scoring.report import ScoreReport
from orpo.scoring.scorers import get_scorer


def score_replies(
    scorer: str, conversations: Sequence[Sequence[Mapping[str, str]]], replies: Sequence[str]
) -> list[ScoreReport]:
    """Return the report of each reply, in the light of the message it answers and of the system prompt.

    Args:
        scorer: A name in `SCORERS`.
        conversations: Chat messages, each list ending with what the reply answers.
        replies: The replies' texts, one for each conversation.
    """
    judge = get_scorer(scorer)
    return [
        judge.explain(reply, messages[-1]["content"], system=_system(messages))
        for messages, reply in zip(conversations, replies, strict=True)
    ]


def _system(messages: Sequence[Mapping[str, str]]) -> str:
    return messages[0]["content"] if messages[0]["role"] == "system" else ""
