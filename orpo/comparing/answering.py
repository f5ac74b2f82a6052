"""A base model, with an adapter or without, that answers; what it answered is kept, and never paid for twice.

An answer is found again only by all that decided it: the bytes of the weights and of the adapter, the number format and
kind of device, the tokens asked, the sampling and the seed. So the summary of another adapter takes the base's replies
from the cache.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orpo.chat_model.adapters import load_chat_model
from orpo.chat_model.chat_template import encode_prompt, encode_text
from orpo.chat_model.generation import generate_replies, iterate_replies
from orpo.chat_model.identity import identify_model
from orpo.chat_model.log_probs import completion_log_probs
from orpo.command.display import console_err
from orpo.comparing.kept_answers import GrowingAnswers, KeptAnswers, answer_file, find_answers, keep_answers
from orpo.comparing.settings import BaseModelSettings
from orpo.records.messages import Message, user_message
from orpo.records.replies import Reply, Sampling

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_VERSION: Final = 1  # of what is kept; a change of the generator that changes replies raises it
_WARM_UP: Final = Sampling(temperature=0, max_new_tokens=4)


@dataclass(frozen=True)
class Answers:
    """Replies in the order of their conversations, and how long they took when they were written."""

    replies: list[Reply]
    seconds: float


class AnsweringModel:
    """Answers with the adapter off or on; one model in memory for both.

    Attributes:
        name: The base model's name.
        adapter: The adapter's folder, or None.
        model: The model, a PeftModel where there is an adapter.
        tokenizer: Its tokenizer.
        reused: How many replies came out of the cache.
    """

    model: "PreTrainedModel | PeftModel"
    tokenizer: "PreTrainedTokenizerBase"

    def __init__(self, settings: BaseModelSettings, name: str, adapter: Path | None) -> None:
        """Load the model, and warm it up, so that its first replies are timed as the others."""
        console_err.print(f"loading {name}" + (f" with {adapter}" if adapter else ""), soft_wrap=True)
        self.name, self.adapter, self.reused = name, adapter, 0
        self._batch_size, self._reuse = settings.batch_size, settings.reuse_replies
        self.model, self.tokenizer = load_chat_model(name, adapter, settings)
        generate_replies(self.model, self.tokenizer, [user_message("Hello")], _WARM_UP, seed=0)
        self._identities: dict[bool, str] = {}

    @property
    def device(self) -> str:
        """Return where it computes."""
        return str(next(self.model.parameters()).device)

    def answer(
        self,
        conversations: Sequence[Sequence[Message]],
        sampling: Sampling,
        *,
        seed: int,
        tuned: bool,
        on_batch: Callable[[int], None] | None = None,
    ) -> Answers:
        """Answer every conversation with the adapter on or off, or find the answers in the cache."""
        asked = [encode_prompt(self.tokenizer, messages) for messages in conversations]
        file = self._file(tuned, "replies", asked, asdict(sampling), seed)
        if (kept := self._find(file)) is not None:
            self.reused += len(asked)
            if on_batch is not None:
                on_batch(len(asked))
            return Answers([Reply(**row) for row in kept["replies"]], kept["seconds"])
        with GrowingAnswers(file, reuse=self._reuse) as growing, self._adapter(tuned):
            missing = growing.missing(asked)
            self.reused += len(asked) - len(missing)
            if on_batch is not None and len(missing) < len(asked):
                on_batch(len(asked) - len(missing))
            last = time.perf_counter()
            for place, reply in iterate_replies(
                self.model,
                self.tokenizer,
                [conversations[row] for row in missing],
                sampling,
                seed=seed,
                batch_size=self._batch_size,
            ):
                now = time.perf_counter()
                growing.add(missing[place], reply, now - last)
                last = now
                if on_batch is not None:
                    on_batch(1)
            return Answers(growing.finish(), growing.seconds)

    def text_log_probs(self, texts: Sequence[str], *, tuned: bool) -> list[tuple[float, int]]:
        """Return (sum of log p, tokens) for each text; its first token is given, not predicted."""
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        rows = [[*start, *encode_text(self.tokenizer, text)] for text in texts]
        file = self._file(tuned, "log_probs", rows)
        if (kept := self._find(file)) is not None:
            return [(float(total), int(tokens)) for total, tokens in kept["log_probs"]]
        with self._adapter(tuned):
            given, predicted = [row[:1] for row in rows], [row[1:] for row in rows]
            found = completion_log_probs(self.model, given, predicted, batch_size=self._batch_size)
        keep_answers(file, {"log_probs": found})
        return found

    @contextmanager
    def _adapter(self, tuned: bool) -> Iterator[None]:
        """Switch the adapter on or off for the block."""
        from peft import PeftModel

        if isinstance(self.model, PeftModel) and not tuned:
            with self.model.disable_adapter():
                yield
        else:
            yield

    def _file(self, tuned: bool, *decided: object) -> Path:
        """Return where an answer is kept: the name is a hash of everything that decided it."""
        tuned = tuned and self.adapter is not None
        if tuned not in self._identities:
            self._identities[tuned] = identify_model(self.name, self.model, adapter=self.adapter if tuned else None)
        device = next(self.model.parameters()).device.type
        everything = [_VERSION, self._identities[tuned], device, *decided]
        return answer_file(everything)

    def _find(self, file: Path) -> KeptAnswers | None:
        return find_answers(file) if self._reuse else None
