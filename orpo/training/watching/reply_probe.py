"""What the model says at each evaluation: replies to held-out prompts with their score, and the reward R(y)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, TrainerCallback

from orpo.chat_model.generation import generate_replies
from orpo.chat_model.options import resolve_reply_dtype
from orpo.command.markdown import table
from orpo.records.messages import Message, last_message, system_message
from orpo.records.replies import Reply, Sampling
from orpo.scoring import ScoreReport, get_scorer, mean_scores
from orpo.scoring.measures import measure_replies
from orpo.scoring.replies import score_replies
from orpo.training.examples import TokenizedPair
from orpo.training.settings import TrainSettings
from orpo.training.watching import Arguments, Control, State
from orpo.training.watching.reward import ReferenceModel, rewards
from orpo.training.watching.tensorboard import Board

_SHOWN_REPLIES = 12
_WATCHED = (
    "emoji_rate", "mean_emojis", "max_emojis", "commonest_share", "repeated_share", "stray_share", "distinct_share",
)  # fmt: skip


@dataclass(eq=False)
class ReplyProbe(TrainerCallback):
    """Has the model answer at the start, at every evaluation and at the end; the figures join the trainer's history.

    `on_answer` is told how many of how many replies are written.
    """

    board: Board
    tokenizer: PreTrainedTokenizerBase
    conversations: Sequence[list[Message]]
    pairs: Sequence[TokenizedPair]
    settings: TrainSettings
    on_answer: Callable[[int, int], None] | None = None
    reference: ReferenceModel = field(default_factory=ReferenceModel)

    def on_train_begin(
        self, args: Arguments, state: State, control: Control, model: PeftModel | None = None, **_: object
    ) -> None:
        """Measure the model as it is before the first step."""
        if state.global_step == 0 and model is not None:
            self.measure(model, state)

    def on_step_end(
        self, args: Arguments, state: State, control: Control, model: PeftModel | None = None, **_: object
    ) -> None:
        """Measure at every evaluation, and at the last step, which also evaluates the loss."""
        is_last = state.global_step >= state.max_steps
        if is_last and args.eval_strategy != "no":
            control.should_evaluate = True
        if (is_last or state.global_step % int(args.eval_steps or 1) == 0) and model:
            self.measure(model, state)

    def measure(self, model: PeftModel, state: State) -> None:
        """Sample replies and measure rewards, without touching training's random numbers."""
        step = state.global_step
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            # All prompts in one go: a step of decoding costs about the same for many rows as for a few.
            prompts = [*self.conversations, *(one.pair.prompt for one in self.pairs)]
            sampling = Sampling(max_new_tokens=self.settings.watch.max_new_tokens)
            replies = generate_replies(
                model,
                self.tokenizer,
                prompts,
                sampling,
                seed=self.settings.seed,
                dtype=resolve_reply_dtype(self.settings.compute.dtype, model.device),
                on_batch=self._counting(len(prompts)),
            )
            count = len(self.conversations)
            figures = {**self._reply_figures(replies[:count], step), **self._reward_figures(model, replies[count:])}
        if not figures:
            return
        self.board.scalars(step, figures)
        # The history is saved with each checkpoint, so a resumed run still knows what was before.
        state.log_history.append({**figures, "step": step})

    def _counting(self, total: int) -> Callable[[int], None]:
        done = 0

        def count(replies: int) -> None:
            nonlocal done
            done += replies
            if self.on_answer is not None:
                self.on_answer(done, total)

        return count

    def _reply_figures(self, replies: Sequence[Reply], step: int) -> dict[str, float]:
        if not replies:
            return {}
        reports = score_replies(self.settings.watch.scorer, self.conversations, [reply.text for reply in replies])
        self.board.text(step, "replies", _as_table(self.conversations, replies, reports))
        return reply_figures(replies) | {f"score/{name}": value for name, value in mean_scores(reports).items()}

    def _reward_figures(self, model: PeftModel, replies: Sequence[Reply]) -> dict[str, float]:
        if not replies:
            return {}
        ids, scores = [], []
        scorer = get_scorer(self.settings.watch.scorer)
        for one, reply in zip(self.pairs, replies, strict=True):
            ids.append([one.chosen_ids, one.rejected_ids, self._reply_ids(one, reply)])
            question, system = last_message(one.pair.prompt), system_message(one.pair.prompt)
            texts = (one.pair.chosen_text, one.pair.rejected_text, reply.text)
            scores.append([scorer.score(text, question, system=system) for text in texts])
        found = rewards(
            model,
            [one.prompt_ids for one in self.pairs],
            ids,
            scores,
            reference=self.reference,
            beta=self.settings.reward_beta,
            batch_size=self.settings.optimiser.batch_size,
        )
        means = [math.fsum(column) / len(found) for column in zip(*found, strict=True)]
        return dict(zip(("reward/chosen", "reward/rejected", "reward/sampled"), means, strict=True))

    def _reply_ids(self, pair: TokenizedPair, reply: Reply) -> list[int]:
        ids: list[int] = self.tokenizer(reply.text, add_special_tokens=False, verbose=False)["input_ids"]
        return [*ids, pair.chosen_ids[-1]] if reply.finished or not ids else ids


def reply_figures(replies: Sequence[Reply]) -> dict[str, float]:
    """Return how the replies use emojis, and how many of them the model ended itself."""
    measures = asdict(measure_replies([reply.text for reply in replies]))
    figures = {f"replies/{name}": float(measures[name]) for name in _WATCHED}
    return figures | {"replies/finished_share": sum(reply.finished for reply in replies) / len(replies)}


def _as_table(conversations: Sequence[list[Message]], replies: Sequence[Reply], reports: Sequence[ScoreReport]) -> str:
    rows = [
        (last_message(messages), reply.text, f"{report.score:.2f}")
        for messages, reply, report in zip(conversations, replies, reports, strict=True)
    ]
    return table(("prompt", "reply", "score"), rows[:_SHOWN_REPLIES])
