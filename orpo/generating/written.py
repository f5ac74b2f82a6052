"""What writers wrote to a prompt, with its scores; and the prompts that made no pair."""

from collections.abc import Sequence
from dataclasses import dataclass

from orpo.generating.situations import score_reply
from orpo.records.prompts import Prompt
from orpo.records.replies import Reply
from orpo.scoring import ScoreReport


@dataclass(frozen=True)
class WrittenReply:
    """A reply with its score, or why there is none.

    Attributes:
        reply: What was written; empty when the call failed.
        report: What the scorer says of it.
        writer: The side whose model wrote it: `emoji`, `plain` or `tuned`.
        model: Who that is, by a name that may be passed on.
        failure: Why there is no reply; empty when there is one.
    """

    reply: Reply
    report: ScoreReport
    writer: str
    model: str
    failure: str = ""

    @property
    def text(self) -> str:
        """What was written."""
        return self.reply.text

    @property
    def score(self) -> float:
        """What the scorer says of it."""
        return self.report.score

    @property
    def finished(self) -> bool:
        """Whether the model ended it."""
        return self.reply.finished


@dataclass(frozen=True)
class WrittenPrompt:
    """A prompt with a reply of each writer, or with the best and the worst of one.

    Attributes:
        prompt: What was answered.
        emoji: The reply with emojis.
        plain: The reply without.
        is_restrained: A person says that the reply is to have no emoji, whatever the score knows of the matter.
    """

    prompt: Prompt
    emoji: WrittenReply
    plain: WrittenReply
    is_restrained: bool = False


@dataclass(frozen=True)
class Dropped:
    """A prompt that made no pair.

    Attributes:
        reason: Why, in the words of the table.
        prompt: The prompt.
        written: What the writers wrote, where they did.
    """

    reason: str
    prompt: Prompt
    written: WrittenPrompt | None = None

    def as_row(self) -> dict[str, object]:
        """Return one line of dropped.jsonl."""
        row: dict[str, object] = {
            "reason": self.reason,
            "prompt_id": self.prompt.prompt_id,
            "prompt": self.prompt.conversation(),
        }
        for side in ("emoji", "plain"):
            reply: WrittenReply | None = getattr(self.written, side, None)
            row[f"{side}_reply"] = reply.text if reply else ""
            row[f"{side}_score"] = reply.score if reply else 0.0
            row[f"{side}_reasons"] = list(reasons_of(reply.report)) if reply else []
        return row


def scored_reply(prompt: Prompt, reply: Reply, writer: str, model: str, scorer: str, failure: str = "") -> WrittenReply:
    """Return a reply with its score; `failure` tells why it is empty."""
    return WrittenReply(reply, score_reply(prompt, reply.text, scorer), writer, model, failure)


def rewritten(reply: WrittenReply, text: str, prompt: Prompt, scorer: str, *, model: str = "") -> WrittenReply:
    """Return a reply with another text, scored anew; `model` names who wrote it then, if not who did before."""
    changed = Reply(text, reply.reply.finished, reply.reply.tokens)
    return scored_reply(prompt, changed, reply.writer, model or reply.model, scorer)


def reasons_of(report: ScoreReport) -> tuple[str, ...]:
    """Return why a reply scored as it did, a line for each part that cost it something."""
    return tuple(f"{name} {part.value:.2f}: {part.reason}" for name, part in report.parts.items() if part.value < 0.995)


def best_reply(replies: Sequence[WrittenReply]) -> WrittenReply:
    """Return the best of one writer's replies: one that is there, ended by itself, and scores most."""
    return max(replies, key=_quality)


def worst_reply(replies: Sequence[WrittenReply]) -> WrittenReply:
    """Return the worst of one writer's replies that are there."""
    there = [reply for reply in replies if not reply.failure and reply.text.strip()]
    return min(there or replies, key=lambda reply: reply.score)


def _quality(reply: WrittenReply) -> tuple[bool, bool, float]:
    return not reply.failure and bool(reply.text.strip()), reply.finished, reply.score
