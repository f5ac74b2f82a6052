"""Several sides on the same prompts: asked, measured, and each compared with the first one, prompt by prompt.

The measures answer four questions. Does a side use emojis where they are in place, and none where they are not? Does
it use them well, and as it is told (the score and its parts, obedience)? Are its replies still replies (ended, not
repeating themselves)? Does it still know what it knew (short questions, perplexity on prose that no run trains on)?
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from orpo.comparing.answering import AnsweringModel, Answers
from orpo.comparing.approaches import Approach
from orpo.comparing.figures import Figures, Measure, figures_of, measures_of
from orpo.comparing.sides import HeldOut, Side
from orpo.records.messages import Message
from orpo.records.replies import Reply, Sampling
from orpo.scoring import DEFAULT_SCORER, ScoreReport, count_emojis
from orpo.scoring.replies import score_replies


@dataclass(frozen=True)
class Asking:
    """How every side is asked.

    Attributes:
        sampling: How tokens are picked; short questions are answered greedily.
        seeds: Each gives every prompt a reply.
        scorer: The score of each reply, and of the best of several.
    """

    sampling: Sampling
    seeds: Sequence[int] = (0,)
    scorer: str = DEFAULT_SCORER


@dataclass(frozen=True)
class Comparison:
    """The sides' replies to the same prompts; the first one, the base, is what the others are compared with."""

    held_out: HeldOut
    sides: list[Side]
    scorer: str = DEFAULT_SCORER

    @cached_property
    def figures(self) -> list[Figures]:
        """Return the figures of each side."""
        base, *others = self.sides
        first = figures_of(base, self.held_out)
        return [first, *(figures_of(side, self.held_out, base, first) for side in others)]

    @cached_property
    def measures(self) -> list[Measure]:
        """Return what was measured, in the order of the tables."""
        return measures_of(self.figures)

    def rows(self) -> list[dict[str, object]]:
        """Return one JSON-able row for each prompt and seed, each wish and each short question, with every reply."""
        return [*self._prompt_rows(), *self._obedience_rows(), *self._question_rows()]

    def summary(self) -> dict[str, object]:
        """Return each side's figures as JSON values."""
        return {
            side.name: {
                "replies": sum(map(len, side.replies)),
                "figures": {key: asdict(figure) for key, figure in figures.figures.items()},
            }
            for side, figures in zip(self.sides, self.figures, strict=True)
        }

    def _prompt_rows(self) -> list[dict[str, object]]:
        rows = []
        for index, prompt in enumerate(self.held_out.prompts):
            about = {"prompt_id": prompt.prompt_id, "category": prompt.category, "prompt": prompt.text}
            for run in range(len(self.sides[0].replies)):
                said = {
                    side.name: _reply_row(side.replies[run][index], side.reports[run][index]) for side in self.sides
                }
                rows.append({"part": "prompts", **about, **({"seed": run} if run else {}), "replies": said})
        return rows

    def _obedience_rows(self) -> list[dict[str, object]]:
        return [
            {
                "part": "obedience",
                "wish": case.wish,
                "messages": case.messages,
                "replies": {side.name: _reply_row(run[index]) for side in self.sides for run in side.obedience[:1]},
            }
            for index, case in enumerate(self.held_out.obedience)
        ]

    def _question_rows(self) -> list[dict[str, object]]:
        return [
            {
                "part": "questions",
                "question": question.question,
                "accepted": list(question.answers),
                "replies": {side.name: _reply_row(side.answers[index]) for side in self.sides if side.answers},
            }
            for index, question in enumerate(self.held_out.questions)
        ]


def ask(
    model: AnsweringModel, approach: Approach, held_out: HeldOut, asking: Asking, on_batch: Callable[[int], None]
) -> Side:
    """Have one approach answer everything held out."""
    interviewer = _Interviewer(model, approach, asking, on_batch)
    prompts = held_out.prompt_conversations()
    asked = [interviewer.replies(prompts, seed) for seed in asking.seeds] if prompts else []
    wishes = held_out.obedience_conversations()
    return Side(
        approach,
        replies=[answers.replies for answers, _ in asked],
        reports=[reports for _, reports in asked],
        obedience=[interviewer.replies(wishes, seed)[0].replies for seed in asking.seeds] if wishes else [],
        answers=interviewer.short_answers(held_out.question_conversations()),
        prose=model.text_log_probs(held_out.prose, tuned=interviewer.tuned) if held_out.prose else [],
        seconds=sum(answers.seconds for answers, _ in asked) if asked else None,
    )


def replies_to_write(approach: Approach, held_out: HeldOut, asking: Asking) -> int:
    """Return how many replies `ask` asks for, for progress bars."""
    sampled = len(held_out.prompts) + len(held_out.obedience)
    return sampled * len(asking.seeds) * approach.best_of + len(held_out.questions)


class _Interviewer:
    """Asks one approach."""

    def __init__(
        self, model: AnsweringModel, approach: Approach, asking: Asking, on_batch: Callable[[int], None]
    ) -> None:
        self._model, self._approach, self._asking, self._on_batch = model, approach, asking, on_batch
        self.tuned = approach.adapter is not None

    def replies(self, conversations: Sequence[Sequence[Message]], seed: int) -> tuple[Answers, list[ScoreReport]]:
        """Return a reply to each conversation, the best of several where the approach says so, and its score.

        Judged in the light of the conversation alone: what an approach adds to it is a means, not the user's wish.
        """
        several = self._approach.best_of
        repeated = [messages for messages in conversations for _ in range(several)]
        answers = self._answer(repeated, self._asking.sampling, seed)
        reports = score_replies(self._asking.scorer, repeated, [reply.text for reply in answers.replies])
        starts = range(0, len(repeated), several)
        best = [max(range(start, start + several), key=lambda row: reports[row].score) for start in starts]
        return replace(answers, replies=[answers.replies[row] for row in best]), [reports[row] for row in best]

    def short_answers(self, conversations: Sequence[Sequence[Message]]) -> list[Reply]:
        """Return the likeliest answer to each question."""
        if not conversations:
            return []
        return self._answer(conversations, replace(self._asking.sampling, temperature=0.0), 0).replies

    def _answer(self, conversations: Sequence[Sequence[Message]], sampling: Sampling, seed: int) -> Answers:
        asked = [self._approach.conversation(messages) for messages in conversations]
        return self._model.answer(asked, sampling, seed=seed, tuned=self.tuned, on_batch=self._on_batch)


def _reply_row(reply: Reply, report: ScoreReport | None = None) -> dict[str, object]:
    row = {**asdict(reply), "emojis": count_emojis(reply.text)}
    return row if report is None else {**row, "score": report.as_dict()}
