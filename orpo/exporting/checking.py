"""The export check: the same held-out prompts answered greedily before and after, and what may not differ."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from orpo.chat_model.generation import generate_replies
from orpo.command.errors import ExportError
from orpo.comparing.sides import choose_prompts
from orpo.records.messages import Message
from orpo.records.prompts import standard_prompts
from orpo.records.replies import Sampling
from orpo.scoring.measures import measure_replies

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SHOWN_LETTERS: Final = 60


@dataclass(frozen=True)
class CheckResult:
    """What came of asking before and after.

    Attributes:
        prompts: How many were asked.
        equal_replies: How many greedy replies are the same to the letter.
        emoji_rate_before: Share of the tuned model's replies with an emoji.
        emoji_rate_after: The same share of what was exported.
        equal_prompt_ids: How many prompts become the same token ids in the other program; None where none is asked.
        divergence: Mean Kullback-Leibler divergence, in nats, of the first token of the replies; None where not known.
    """

    prompts: int
    equal_replies: int
    emoji_rate_before: float
    emoji_rate_after: float
    equal_prompt_ids: int | None = None
    divergence: float | None = None

    def as_rows(self) -> list[tuple[str, str]]:
        """Return the lines of the table."""
        rows = [("greedy replies equal to the letter", f"{self.equal_replies} of {self.prompts}")]
        if self.equal_prompt_ids is not None:
            rows.insert(0, ("prompts with the same token ids", f"{self.equal_prompt_ids} of {self.prompts}"))
        if self.divergence is not None:
            rows.append(("first token of a reply, KL divergence", f"{self.divergence:.2g} nats"))
        rates = f"{self.emoji_rate_before:.0%} before, {self.emoji_rate_after:.0%} after"
        return [*rows, ("replies with an emoji", rates)]

    def as_dict(self) -> dict[str, object]:
        """Return the figures for a run record."""
        return asdict(self)


class Examination:
    """Asks models the same prompts, greedily, so that their replies can be compared."""

    def __init__(self, count: int, max_new_tokens: int, on_reply: Callable[[int], None]) -> None:
        """Choose `count` of the held-out prompts from all over the set; `on_reply` moves a progress bar."""
        self.conversations: list[list[Message]] = [
            prompt.conversation() for prompt in choose_prompts(standard_prompts(), count)
        ]
        self.sampling: Final = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
        self.on_reply: Final = on_reply

    def ask(self, model: "PreTrainedModel | PeftModel", tokenizer: "PreTrainedTokenizerBase") -> list[str]:
        """Return a model's replies."""
        replies = generate_replies(model, tokenizer, self.conversations, self.sampling, seed=0, on_batch=self.on_reply)
        return [reply.text for reply in replies]

    def compare(self, before: Sequence[str], after: Sequence[str]) -> CheckResult:
        """Return how the replies compare."""
        equal = sum(one == other for one, other in zip(before, after, strict=True))
        return CheckResult(len(before), equal, measure_replies(before).emoji_rate, measure_replies(after).emoji_rate)

    def require_equal(self, before: Sequence[str], after: Sequence[str], what: str) -> None:
        """Raise ExportError, with the first difference, unless all replies are the same."""
        different = [row for row, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]]
        if different:
            row = different[0]
            raise ExportError(
                f"{what} answers otherwise than the tuned model: {len(different)} of {len(before)} replies differ, the "
                f"first to {_short(self.conversations[row][-1]['content'])}: {_short(before[row])} before, "
                f"{_short(after[row])} after; nothing is kept"
            )


def require_same_weights(model: "PreTrainedModel", folder: Path) -> None:
    """Raise ExportError unless the folder's safetensors hold the model's weights, all of them, bit for bit."""
    from safetensors import safe_open

    state = model.state_dict()
    found = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - it is no dict
                if key not in state or not torch.equal(tensors.get_tensor(key), state[key].cpu()):
                    raise ExportError(f"{file.name} does not hold {key} as it was merged; nothing is kept")
                found.add(state[key].data_ptr())
    if lacking := [key for key, weight in state.items() if weight.data_ptr() not in found]:
        raise ExportError(f"the export lacks {len(lacking)} weights, the first {lacking[0]}; nothing is kept")


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_LETTERS else text[:_SHOWN_LETTERS] + "…")
