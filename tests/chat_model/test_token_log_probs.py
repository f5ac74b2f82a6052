"""The chunked head against its plain twin: values, gradients, and that no logits stay in memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orpo.chat_model.head import Head
from orpo.chat_model.log_probs import CHUNK_BYTES, chunk_rows, plain_log_probs, token_log_probs

TOKENS, SIZE, VOCABULARY = 45, 12, 71


def make_head(*, bias: bool = False, trained: bool = False, **rules: Any) -> Head:
    torch.manual_seed(3)
    return Head(nn.Linear(SIZE, VOCABULARY, bias=bias).requires_grad_(trained), **rules)


def run(score: Any, head: Head, **options: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Weigh the log-probabilities unevenly, so that a gradient of the wrong row shows; return them and gradients."""
    torch.manual_seed(4)
    hidden = torch.randn(TOKENS, SIZE, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (TOKENS,))
    log_probs = score(hidden, targets, head, **options)
    wanted = [hidden, *(weight for weight in head.module.parameters() if weight.requires_grad)]
    return log_probs, list(torch.autograd.grad((log_probs * torch.linspace(-1, 2, TOKENS)).sum(), wanted))


@pytest.mark.parametrize("rules", [{}, {"softcap": 2.0}, {"scale": 0.25}, {"softcap": 1.5, "scale": 3.0}], ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("rows", [1, 7, 45, 100])
def test_it_equals_its_plain_twin(rules: dict[str, float], bias: bool, trained: bool, rows: int) -> None:
    head = make_head(bias=bias, trained=trained, **rules)
    assert head.is_frozen_linear is not trained
    expected, expected_gradients = run(plain_log_probs, head)
    got, got_gradients = run(token_log_probs, head, rows=rows)
    torch.testing.assert_close(got, expected)
    assert len(got_gradients) == len(expected_gradients)
    for ours, theirs in zip(got_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_its_gradient_is_that_of_finite_differences() -> None:
    head = make_head(softcap=2.0)
    head.module.double()
    torch.manual_seed(4)
    hidden, targets = torch.randn(6, SIZE, dtype=torch.float64), torch.randint(0, VOCABULARY, (6,))
    _, step = torch.manual_seed(5), 1e-3 * torch.randn(6, SIZE, dtype=torch.float64)
    hidden.requires_grad_()
    (gradient,) = torch.autograd.grad(token_log_probs(hidden, targets, head, rows=4).sum(), hidden)
    with torch.no_grad():
        difference = (
            plain_log_probs(hidden + step, targets, head).sum() - plain_log_probs(hidden - step, targets, head).sum()
        )
    assert (gradient * step).sum().item() == pytest.approx(difference.item() / 2, rel=1e-2)


def test_no_tensor_of_tokens_times_vocabulary_is_kept_for_the_backward_pass() -> None:
    kept: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    hidden = torch.randn(TOKENS, SIZE, requires_grad=True)
    targets = torch.zeros(TOKENS, dtype=torch.long)
    for trained in (False, True):
        head = make_head(trained=trained)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            token_log_probs(hidden, targets, head, rows=9)
    assert max(kept) <= max(TOKENS * SIZE, VOCABULARY * SIZE)


def test_without_gradients_none_is_computed() -> None:
    with torch.no_grad():
        log_probs = token_log_probs(torch.randn(4, SIZE), torch.zeros(4, dtype=torch.long), make_head())
    assert not log_probs.requires_grad and log_probs.dtype == torch.float32


def test_chunks_shrink_as_vocabularies_grow() -> None:
    assert chunk_rows(151936) * 151936 * 4 <= 64 * 2**20 < (chunk_rows(151936) + 1) * 151936 * 4
    assert chunk_rows(10**7) == 32


PEAK = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from orpo.chat_model.head import Head
from orpo.chat_model.log_probs import token_log_probs

VOCABULARY, SIZE = 151_936, 32

def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024

def peak(tokens, dtype=torch.float32, trained=False, **rules):
    head = Head(nn.Linear(SIZE, VOCABULARY, bias=False, dtype=dtype).requires_grad_(trained), **rules)
    def step(count):
        hidden = torch.randn(count, SIZE, dtype=dtype, requires_grad=True)
        token_log_probs(hidden, torch.randint(0, VOCABULARY, (count,)), head).sum().backward()
    step(4)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    step(tokens)
    return resident("VmHWM") - before

ways = {"float32": {}, "bfloat16": {"dtype": torch.bfloat16}, "capped": {"softcap": 30.0}, "trained": {"trained": True}}
print(json.dumps({name: peak(int(sys.argv[1]), **options) for name, options in ways.items()}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux tells it")
def test_its_memory_is_a_few_chunks_at_a_vocabulary_of_150_000(repository: Path) -> None:
    """In a process of its own; all logits of these 1,000 tokens are 580 MB, and two or three copies are made."""
    done = subprocess.run([sys.executable, "-c", PEAK, "1000"], capture_output=True, text=True, cwd=repository)
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    chunk, gradient = CHUNK_BYTES / 2**20, 151_936 * 32 * 4 / 2**20
    assert chunk_rows(151_936) * 151_936 * 4 <= CHUNK_BYTES
    assert peaks["float32"] <= 1.3 * chunk, peaks
    assert max(peaks["bfloat16"], peaks["capped"]) <= 2.3 * chunk, peaks
    assert peaks["trained"] <= 5 * chunk + 2 * gradient, peaks  # where logits and log p live on, with their gradients
