"""Training steps side by side: TRL's trainer, TRL's with oneDNN products, this project's, and it with small rows.

    uv run benchmarks/training_step.py            # the cases of docs/training_speed.md
    uv run benchmarks/training_step.py --cases 135m-all-linear-fp32 --repetitions 7
    uv run benchmarks/training_step.py --sweep    # the second table: cost against length, vocabulary, prompt share

Models have random weights of the real shapes. A step is forward, backward, clipping and AdamW over one batch; the
variants take turns, the first round is not counted, medians with minimum and maximum are shown. Memory is measured in
a process of its own for each variant: the peak over what was resident once the model was loaded. The last line is JSON.
"""

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    # kind, vocabulary, hidden, MLP, layers, heads, key/value heads
    "embedded": {"kind": "llama", "v": 8192, "h": 320, "m": 832, "layers": 6, "heads": 5, "kv": 5},
    "135m": {"kind": "llama", "v": 49152, "h": 576, "m": 1536, "layers": 30, "heads": 9, "kv": 3},
    "0.5b": {"kind": "qwen2", "v": 151936, "h": 896, "m": 4864, "layers": 24, "heads": 14, "kv": 2},
}
TARGETS = {"all-linear": ["all-linear"], "qv": ["q_proj", "v_proj"]}
VARIANTS = ("trl", "trl_onednn", "fast", "fast_frugal")
FRUGAL_TOKEN_BUDGET = 192  # about a pair at a time: the least memory without computing anything twice
CLOCK: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    shape: str
    adapter: str
    precision: str
    batch: int = 4
    repetitions: int = 7

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.adapter}-{self.precision}"


CASES = [
    Case("embedded", "all-linear", "fp32", batch=8),
    Case("embedded", "qv", "fp32", batch=8),
    Case("135m", "all-linear", "fp32"),
    Case("135m", "qv", "fp32"),
    Case("135m", "all-linear", "bf16"),
    Case("135m", "all-linear", "autocast"),
    Case("0.5b", "all-linear", "fp32", repetitions=3),
]


@dataclass(frozen=True)
class BenchPair:
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    row: int = 0


def make_pairs(
    count: int, vocabulary: int, lengths: tuple[int, int] = (16, 80), prompts: tuple[int, int] = (24, 96)
) -> list[BenchPair]:
    """Chat-like pairs: prompts of 24 to 96 tokens with their template, replies of 16 to 80."""
    draw = random.Random(7)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(draw.randint(low, high))]

    return [BenchPair(ids(*prompts), ids(*lengths), ids(*lengths), row) for row in range(count)]


def make_model(shape: dict[str, Any], adapter: str, precision: str) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        shape["kind"], vocab_size=shape["v"], hidden_size=shape["h"], intermediate_size=shape["m"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], num_key_value_heads=shape["kv"],
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2, max_position_embeddings=2048,
    )  # fmt: skip
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    rank = 16 if adapter == "all-linear" else 8
    targets = "all-linear" if adapter == "all-linear" else TARGETS[adapter]
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets, task_type="CAUSAL_LM")
    peft_model = get_peft_model(model, lora)
    with torch.no_grad():
        for name, weight in peft_model.named_parameters():
            if "lora_B" in name:  # zeros would hide half of the gradients
                weight.copy_(0.02 * torch.randn_like(weight))
    return peft_model


def make_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


class Stepper:
    """One variant: a trainer and a batch, ready to do steps."""

    def __init__(self, variant: str, case: Case, model: Any, pairs: list[BenchPair]) -> None:
        import torch

        from orpo.training import trl_trainer
        from orpo.training.fast import trainer as fast_trainer
        from orpo.training.settings import TrainSettings

        self.variant, self.case = variant, case
        settings = TrainSettings(
            nll="prompt_and_completion",
            batch_size=case.batch,
            device="cpu",
            eval_share=0.0,
            learning_rate=1e-6,
            token_budget=FRUGAL_TOKEN_BUDGET if variant == "fast_frugal" else None,
        )
        builder = fast_trainer if variant.startswith("fast") else trl_trainer
        folder = Path(tempfile.mkdtemp())
        self.trainer = builder.build_trainer(model, make_tokenizer(), pairs, [], settings, folder, [])
        self.trainer.state.max_steps = 1000
        self.trainer.current_gradient_accumulation_steps = 1
        self.trainer.create_optimizer()
        self.model = model
        self.batch = next(iter(self.trainer.get_train_dataloader()))
        self.autocast: Callable[[], Any] = (
            (lambda: torch.autocast("cpu", torch.bfloat16)) if case.precision == "autocast" else nullcontext
        )

    def step(self, update: bool = True) -> tuple[float, float]:
        """Return (seconds, loss)."""
        import torch

        set_fp32_precision("ieee" if self.variant == "trl_onednn" else "none")
        begun = CLOCK()
        with self.autocast():
            loss = self.trainer.training_step(self.model, self.batch)
        if update:
            torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], 1.0)
            self.trainer.optimizer.step()
            self.model.zero_grad()
        return CLOCK() - begun, float(loss)


def compare(case: Case, pairs: list[BenchPair]) -> dict[str, Any]:
    """Time the variants in turns on copies of one model; compare loss and gradients first."""
    import copy

    shape = SHAPES[case.shape]
    models = {"trl": make_model(shape, case.adapter, case.precision)}
    models["fast"] = copy.deepcopy(models["trl"])  # a trainer's two variants share a model
    steppers = {name: Stepper(name, case, models[name.split("_")[0]], pairs) for name in VARIANTS}
    _, their_loss = steppers["trl"].step(update=False)
    _, our_loss = steppers["fast"].step(update=False)
    difference = gradient_difference(models["fast"], models["trl"])
    for model in models.values():
        model.zero_grad()
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(case.repetitions + 1):
        for name, stepper in steppers.items():
            taken = stepper.step()[0]
            if number:  # the first round warms up, and makes AdamW's state
                seconds[name].append(taken)
    work = needed_work(case, pairs)
    return {
        "case": case.name,
        "batch": case.batch,
        "repetitions": case.repetitions,
        "loss": their_loss,
        "loss_difference": abs(our_loss - their_loss),
        "gradient_difference": difference,
        "seconds": {n: [statistics.median(s), min(s), max(s)] for n, s in seconds.items()},
        "needed_gflop": work / 1e9,
    }


def gradient_difference(ours: Any, theirs: Any) -> float:
    """Return the largest relative difference of a parameter's gradient, by norm."""
    reference = dict(theirs.named_parameters())
    worst = 0.0
    for name, weight in ours.named_parameters():
        if weight.grad is not None:
            grad = reference[name].grad.float()
            worst = max(worst, float((weight.grad.float() - grad).norm() / grad.norm()))
    return worst


def needed_work(case: Case, pairs: list[BenchPair]) -> float:
    """Count the operations that a step needs: each prompt once, logits where a loss looks, no padding, no attention.

    Frozen products count twice (forward, gradient to the input): 2 + 2 operations a weight and token.
    """
    shape = SHAPES[case.shape]
    size = shape["h"] // shape["heads"]
    layer = shape["h"] * (2 * shape["h"] + 2 * size * shape["kv"]) + 3 * shape["h"] * shape["m"]
    tokens = sum(len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) - 2 for p in pairs)
    places = sum(len(p.prompt_ids) - 1 + len(p.chosen_ids) + len(p.rejected_ids) for p in pairs)
    return 4.0 * (layer * shape["layers"] * tokens + shape["v"] * shape["h"] * places)


def set_fp32_precision(precision: str) -> None:
    import torch

    backend: Any = torch.backends.mkldnn  # torch's stubs lack its `matmul`
    backend.matmul.fp32_precision = precision


def matmul_peak(precision: str) -> float:
    """Return the best measured rate of products of 1024 x 1024 and larger, in operations per second."""
    import torch

    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    best = 0.0
    for setting in ("none", "ieee"):
        set_fp32_precision(setting)
        a, b = torch.randn(1024, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
        for _ in range(6):
            begun = CLOCK()
            _ = a @ b
            best = max(best, 2.0 * 1024 * 2048 * 2048 / (CLOCK() - begun))
    set_fp32_precision("none")
    return best


def memory_of(variant: str, case: Case) -> float:
    """Return the peak of a step over what was resident once the model was loaded, in MB; in a process of its own."""
    pairs = make_pairs(case.batch, SHAPES[case.shape]["v"])
    stepper = Stepper(variant, case, make_model(SHAPES[case.shape], case.adapter, case.precision), pairs)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    stepper.step()
    return resident("VmHWM") - before


def resident(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def run_apart(*arguments: str) -> Any:
    """Run this file with other arguments in a process of its own; return the JSON of its last line."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def sweep(repetitions: int) -> list[dict[str, Any]]:
    """Measure the embedded shape at several lengths, vocabularies and prompt shares; TRL with oneDNN against ours."""
    rows = []
    plain: dict[str, Any] = {"vocabulary": 8192, "lengths": (32, 32), "prompts": (32, 32)}
    changes: list[dict[str, Any]] = [
        {},
        *({"lengths": (n, n), "prompts": (n, n)} for n in (16, 64, 128, 256)),
        *({"vocabulary": v} for v in (2048, 32768, 131072)),
        *({"prompts": (n, n)} for n in (8, 128, 256)),
    ]
    for change in changes:
        now = {**plain, **change}
        SHAPES["sweep"] = {**SHAPES["embedded"], "v": now["vocabulary"]}
        pairs = make_pairs(4, now["vocabulary"], now["lengths"], now["prompts"])
        row = compare(Case("sweep", "all-linear", "fp32", batch=4, repetitions=repetitions), pairs)
        rows.append({**{k: v if isinstance(v, int) else v[0] for k, v in now.items()}, "seconds": row["seconds"]})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    columns = "".join(f" {name:>22}" for name in VARIANTS)
    print(f"{'case':26}{columns}  vs TRL  vs oneDNN  loss diff  grad diff  of peak")
    for row in rows:
        median = {name: values[0] for name, values in row["seconds"].items()}
        shown = [f"{v[0]:.2f} s ({v[1]:.2f}-{v[2]:.2f})" for v in row["seconds"].values()]
        share = row["needed_gflop"] * 1e9 / median["fast"] / row["peak_flops"]
        print(
            f"{row['case']:26}{''.join(f' {time:>22}' for time in shown)}  {median['trl'] / median['fast']:5.2f}x"
            f"  {median['trl_onednn'] / median['fast']:7.2f}x  {row['loss_difference']:9.1e}"
            f"  {row['gradient_difference']:9.1e}  {share:6.0%}"
        )
        if "memory_mb" in row:
            told = ", ".join(f"{name} {value:.0f} MB" for name, value in row["memory_mb"].items())
            print(f"{'':26} peak over the loaded model: {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    parser.add_argument("--cases", nargs="*", default=names, choices=names)
    parser.add_argument("--repetitions", type=int, help="rounds of each case (default: 7, and 3 for the 0.5B shape)")
    parser.add_argument("--batch", type=int, help="pairs of a step (default: 4, and 8 for the embedded shape)")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory measurements out")
    parser.add_argument("--sweep", action="store_true", help="the table of lengths, vocabularies and prompt shares")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--cpu-clock",
        action="store_true",
        help="count the process's CPU seconds, all threads together: rough figures from a machine that is not idle",
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    if given.cpu_clock:
        global CLOCK
        CLOCK = time.process_time
    cases = [case for case in CASES if case.name in given.cases]
    if given.repetitions or given.batch:
        cases = [
            Case(c.shape, c.adapter, c.precision, given.batch or c.batch, given.repetitions or c.repetitions)
            for c in cases
        ]
    if given.memory_of:
        print(json.dumps(memory_of(given.memory_of, cases[0])))
        return
    if given.sweep:
        print(json.dumps({"sweep": sweep(given.repetitions or 7), "threads": given.threads}))
        return
    if given.apart:
        case = cases[0]
        row = compare(case, make_pairs(case.batch, SHAPES[case.shape]["v"]))
        print(json.dumps({**row, "peak_flops": matmul_peak(case.precision)}))
        return
    rows = []
    for case in cases:
        same = ["--cases", case.name, "--threads", str(given.threads), "--batch", str(case.batch)]
        same += ["--cpu-clock"] if given.cpu_clock else []
        row = run_apart("--apart", "--repetitions", str(case.repetitions), *same)
        if not given.no_memory:
            row["memory_mb"] = {v: run_apart("--memory-of", v, *same) for v in VARIANTS}
        rows.append(row)
        show(rows[-1:])
        print(end="", flush=True)
    print()
    show(rows)
    print(
        json.dumps({"threads": given.threads, "cpu_clock": given.cpu_clock, "torch": torch.__version__, "rows": rows})
    )


if __name__ == "__main__":
    main()
