"""The check of a GGUF file: a real llama.cpp reads the same conversations and answers them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from orpo.chat_model.chat_template import encode_prompt, reply_end_ids
from orpo.chat_model.generation import as_reply
from orpo.command.errors import ExportError
from orpo.exporting.checking import CheckResult, Examination
from orpo.exporting.job import Export
from orpo.exporting.llama_cpp import Continuation, LlamaCpp

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

_MOST_NATS: Final = {"f32": 0.01, "f16": 0.01, "q8_0": 0.05}
"""The mean divergence of a reply's first token above which a file is wrong rather than rounded (docs/export.md)."""


@dataclass(frozen=True)
class Before:
    """What the tuned model makes of the conversations.

    Attributes:
        prompts: Their token ids.
        replies: Its greedy replies.
        first: Log-probabilities of each reply's first token, [prompts, V].
        end_ids: What ends its replies.
    """

    prompts: list[list[int]]
    replies: list[str]
    first: Tensor
    end_ids: list[int]


def ask_before(exam: Examination, model: "PeftModel", tokenizer: "PreTrainedTokenizerBase") -> Before:
    """Ask the tuned model, before it is merged."""
    prompts = [encode_prompt(tokenizer, messages) for messages in exam.conversations]
    causal = cast(PreTrainedModel, model)
    with torch.no_grad():
        rows = [torch.tensor([ids], device=model.device) for ids in prompts]
        first = torch.stack([causal(input_ids=row, logits_to_keep=1).logits[0, -1].float().cpu() for row in rows])
    return Before(prompts, exam.ask(model, tokenizer), first.log_softmax(-1), reply_end_ids(model, tokenizer))


def check_in_llama_cpp(export: Export, before: Before, model: Path, adapter: Path | None = None) -> CheckResult:
    """Ask llama.cpp, and return how it compares.

    Raises:
        ExportError: It reads a conversation as other tokens, or it computes another model.
    """
    exam, tokenizer = export.exam, export.tokenizer
    assert exam is not None
    limit = exam.sampling.max_new_tokens
    context = max(map(len, before.prompts)) + limit + 8
    found: list[Continuation] = []
    with LlamaCpp(model, adapter, context=context, threads=torch.get_num_threads()) as llama_cpp:
        read = [llama_cpp.prompt_ids(messages) for messages in exam.conversations]
        for ids in before.prompts:
            found.append(llama_cpp.continue_from(ids, limit))
            exam.on_reply(1)
    _require_same_ids(exam, tokenizer, before.prompts, read)
    pairs = zip(before.first, found, strict=True)
    known = [_divergence(ours, theirs) for ours, theirs in pairs if theirs.first_log_probs]
    divergence = sum(known) / len(known) if known else None
    most = _MOST_NATS[export.settings.quantization]
    if divergence is not None and not divergence <= most:
        raise ExportError(
            f"in llama.cpp the first tokens of the replies are {divergence:.2g} nats away from the tuned model's, and "
            f"rounding explains {most} at most; nothing is kept"
        )
    replies = [as_reply(tokenizer, one.ids, before.end_ids).text for one in found]
    return replace(exam.compare(before.replies, replies), equal_prompt_ids=len(read), divergence=divergence)


def _divergence(ours: Tensor, theirs: Continuation) -> float:
    """Return KL(ours || theirs) in nats: over the tokens that llama.cpp listed, and all others as one."""
    ids = torch.tensor(list(theirs.first_log_probs))
    q = torch.tensor(list(theirs.first_log_probs.values()), dtype=torch.float64)
    p = ours[ids].double()
    rest_p, rest_q = (max(1e-9, 1 - float(part.exp().sum())) for part in (p, q))
    rest = torch.tensor(rest_p / rest_q).log()
    return float((p.exp() * (p - q)).sum() + rest_p * rest)


def _require_same_ids(
    exam: Examination, tokenizer: "PreTrainedTokenizerBase", ours: Sequence[list[int]], theirs: Sequence[list[int]]
) -> None:
    for messages, one, other in zip(exam.conversations, ours, theirs, strict=True):
        if one != other:
            place = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))
            shown = [repr(tokenizer.decode(ids[max(0, place - 2) : place + 4])) for ids in (one, other)]
            raise ExportError(
                f"llama.cpp reads {messages[-1]['content'][:40]!r} as other tokens: {shown[0]} here, {shown[1]} there, "
                f"at token {place}; nothing is kept"
            )
