"""A training step from token ids to the loss, top to bottom.

    pairs          token ids of prompt, chosen and rejected reply
    group_of       the prompt with the replies that the method looks at
    plan           rows within the token budget
    pack_replies   one row of token ids, what replies share only once
    model          log p of each token that a loss looks at, (N,)
    sum_by_reply   log pi(y|x), (pairs, replies); grpo takes the tokens one by one
    Objective      the row's share of the loss

Every row's loss is its share of the whole step's, over all rows and processes, so how a step is cut into rows changes
nothing but speed and memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from orpo.training.examples import Example, SampledGroup, TokenizedReply
from orpo.training.fast.packing import (
    Layout,
    PackedReplies,
    ReplyGroup,
    nll_tokens,
    pack_replies,
    packed_length,
    plan_micro_batches,
    spread_evenly,
)
from orpo.training.objective import Objective, RowTerms, StepTotals, TokenLogProbs

if TYPE_CHECKING:
    from peft import PeftModel

StepRow = Example | SampledGroup
Rows = list[list[StepRow]]


@dataclass
class TrainingStep:
    """Computes losses of packed rows for one method, model layout and token budget.

    Attributes:
        objective: The method.
        layout: How the model takes replies (`best_layout` tells).
        token_budget: The most tokens of a forward pass; a longer pair has one of its own.
        accelerator: What knows the other processes.
        autocast: Makes the context of a forward pass.
        start: The adapter's weights where training goes on with one, which is the reference then; none for a new one,
            whose reference is the model without it.
    """

    objective: Objective
    layout: Layout
    token_budget: int
    accelerator: Accelerator
    autocast: Callable[[], AbstractContextManager[object]]
    start: Mapping[str, Tensor] = field(default_factory=dict)
    _references: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False)

    def plan(self, pairs: Sequence[StepRow], model: nn.Module) -> tuple[Rows, StepTotals]:
        """Cut a step into rows, equally many in every process, and count the step over all processes.

        A process with too few pairs gets empty rows.
        """
        groups = [self.objective.group_of(pair) for pair in pairs]
        lengths = [packed_length(group, self.layout) for group in groups]
        rows = plan_micro_batches(lengths, self.token_budget)
        counts = [len(pairs), sum(nll_tokens(group, self.objective.nll_on_prompt) for group in groups)]
        if self.accelerator.num_processes > 1:
            mine = torch.tensor([[*counts, len(rows)]], device=self.accelerator.device)
            all_counts = cast(Tensor, self.accelerator.gather(mine)).cpu()
            counts, most = all_counts[:, :2].sum(0).tolist(), int(all_counts[:, 2].max())
            if most > len(rows):
                rows = spread_evenly(lengths, most)
        cut = [[pairs[i] for i in row] for row in rows]
        kl = self._kl(model, groups) if self.objective.method == "kto" else 0.0
        return cut, StepTotals(counts[0], counts[1], kl)

    def row_terms(self, model: nn.Module, pairs: Sequence[StepRow], totals: StepTotals) -> RowTerms:
        """Compute one row's share of the loss."""
        groups = [self.objective.group_of(pair) for pair in pairs]
        packed = self._pack(groups)
        sampled = [pair.scores for pair in pairs if isinstance(pair, SampledGroup)]
        # The reference first: it may exchange the weights, which nothing may do between a pass and its backward.
        base = self._base_log_probs(model, packed) if sampled else None
        reference = self._reference(model, groups, packed) if self.objective.needs_reference and not sampled else None
        with self.autocast():
            log_probs = model(packed=packed).float()  # (N,); FSDP's mixed precision casts what a model returns
        if base is not None:
            places, replies = packed.entry_places, packed.entry_replies
            tokens_of = TokenLogProbs(log_probs[places], base[places], replies, packed.reply_tokens)
            return self.objective.group_terms(tokens_of, torch.tensor(sampled, device=log_probs.device), totals)
        sums = packed.sum_by_reply(log_probs).view(len(pairs), -1)  # (pairs, replies) log pi(y|x)
        tokens = packed.reply_tokens.view(len(pairs), -1)
        nll = -(log_probs * packed.in_nll).sum() / totals.nll_tokens
        labelled = [pair.label for pair in pairs if isinstance(pair, TokenizedReply)]
        labels = torch.tensor(labelled, device=sums.device) if labelled else None
        return self.objective.terms(sums, tokens, nll, totals, reference, labels)

    def _pack(self, groups: Sequence[ReplyGroup]) -> PackedReplies:
        packed = pack_replies(groups, layout=self.layout, nll_on_prompt=self.objective.nll_on_prompt)
        return packed.to(self.accelerator.device)

    def _reference(self, model: nn.Module, groups: Sequence[ReplyGroup], packed: PackedReplies) -> Tensor:
        """Return log pi_ref(y|x), (pairs, replies), computed once for each pair."""
        keys = [(id(group.prompt_ids), id(group.replies[0])) for group in groups]  # the data set keeps them alive
        if any(key not in self._references for key in keys):
            sums = packed.sum_by_reply(self._base_log_probs(model, packed)).view(len(groups), -1)
            if self.accelerator.num_processes > 1:  # all processes must do equally many passes: nothing is kept
                return sums
            self._references.update(zip(keys, sums, strict=True))
        return torch.stack([self._references[key] for key in keys])

    def _base_log_probs(self, model: nn.Module, packed: PackedReplies) -> Tensor:
        """Return log pi_ref of each token of a row, (N,)."""
        tuned: PeftModel = self.accelerator.unwrap_model(model)
        as_before = _with_weights(tuned, self.start) if self.start else tuned.disable_adapter()
        with torch.no_grad(), self.autocast(), as_before:
            return cast(Tensor, tuned(packed=packed)).float()

    def _kl(self, model: nn.Module, own: Sequence[ReplyGroup]) -> float:
        """Return KTO's reference point: the mean ratio of replies to the prompts that follow theirs in the step."""
        others = [*own[-1:], *own[:-1]]
        groups = [ReplyGroup(group.prompt_ids, other.replies) for group, other in zip(own, others, strict=True)]
        sums = torch.zeros(2, dtype=torch.float64)
        if len(own) > 1:  # a reply to its own prompt would say nothing
            for row in plan_micro_batches([packed_length(group, self.layout) for group in groups], self.token_budget):
                packed = self._pack([groups[i] for i in row])
                with torch.no_grad(), self.autocast():
                    differences = model(packed=packed).float() - self._base_log_probs(model, packed)
                ratios = packed.sum_by_reply(differences)
                sums += torch.tensor([float(ratios.sum()), len(ratios)])
        if self.accelerator.num_processes > 1:
            sums = cast(Tensor, self.accelerator.reduce(sums.to(self.accelerator.device), "sum")).cpu()
        return max(float(sums[0] / sums[1]), 0.0) if sums[1] else 0.0


@contextmanager
def _with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give parameters other values for the block; their own tensors come back untouched."""
    parameters = [(parameter, weights[name]) for name, parameter in model.named_parameters() if name in weights]
    own = [parameter.data for parameter, _ in parameters]
    for parameter, value in parameters:
        parameter.data = value
    try:
        yield
    finally:
        for (parameter, _), value in zip(parameters, own, strict=True):
            parameter.data = value
