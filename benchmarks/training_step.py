"""Training steps side by side: TRL's trainer and this project's, in fp32 and in bfloat16.

    uv run benchmarks/training_step.py            # the cases of docs/training_speed.md
    uv run benchmarks/training_step.py --cases default-minimal --repetitions 7
    uv run benchmarks/training_step.py --sweep    # cost against length, vocabulary and prompt share
    uv run benchmarks/training_step.py --device cuda --variants trl_bf16 fast_bf16 fast_bf16_flex --batches 8

`default` is the default model with pairs of 60 to 120 tokens made of the shipped examples: `minimal` pairs differ in
their emojis only, `other` pairs have a reply to another prompt as the rejected one. The other shapes have random
weights. A step is forward, backward, clipping and AdamW over one batch; the variants take turns, the first round is not
counted, medians with minimum and maximum are shown. Losses are compared with TRL's in fp32, or else with the first
variant's. Memory is measured in a process of its own for each variant: the peak over what was there once the model was
loaded. On CUDA the clock is read when the device is done, and memory is what torch has allocated. With `--batches` each
step takes another batch, so that rows differ in length, which matters to what is compiled. The last line is JSON.
"""

import argparse
import gc
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "135m": {"kind": "llama", "v": 49152, "h": 576, "m": 1536, "layers": 30, "heads": 9, "kv": 3},
    "0.5b": {"kind": "qwen2", "v": 151936, "h": 896, "m": 4864, "layers": 24, "heads": 14, "kv": 2},
    "1.5b": {"kind": "qwen2", "v": 151936, "h": 1536, "m": 8960, "layers": 28, "heads": 12, "kv": 2},
    "tiny": {"kind": "llama", "v": 512, "h": 64, "m": 128, "layers": 2, "heads": 2, "kv": 1},
}
SHAPES["default"] = SHAPES["135m"]


@dataclass(frozen=True)
class Variant:
    """A trainer with the dtype of its model, what `--dtype` says, attention, and whether weights take 4 bits."""

    trainer: str
    dtype: str
    flag: str
    attention: str = "auto"
    quantize: str = "none"


VARIANTS = {
    "trl_fp32": Variant("trl", "float32", "float32"),
    "trl_bf16": Variant("trl", "bfloat16", "bfloat16"),
    "fast_fp32": Variant("fast", "float32", "float32"),
    "fast_auto": Variant("fast", "float32", "auto"),
    "fast_bf16": Variant("fast", "bfloat16", "bfloat16"),
    "fast_bf16_flex": Variant("fast", "bfloat16", "bfloat16", "flex_attention"),
    "fast_bf16_flash": Variant("fast", "bfloat16", "bfloat16", "flash_attention_2"),
    "trl_bf16_flash": Variant("trl", "bfloat16", "bfloat16", "flash_attention_2"),
    "fast_qlora": Variant("fast", "bfloat16", "bfloat16", quantize="4bit"),
    "trl_qlora": Variant("trl", "bfloat16", "bfloat16", quantize="4bit"),
}
USUAL_VARIANTS = {
    "cpu": ["trl_fp32", "trl_bf16", "fast_fp32", "fast_auto"],
    "cuda": ["trl_fp32", "trl_bf16", "fast_fp32", "fast_bf16"],
}
TARGETS: dict[str, Any] = {"all-linear": "all-linear", "qv": ["q_proj", "v_proj"]}
CLOCK: Callable[[], float] = time.perf_counter
DEVICE = "cpu"


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    shape: str
    pairs: str = "random"  # or minimal, other: of the shipped examples
    adapter: str = "all-linear"
    batch: int = 8
    repetitions: int = 7
    batches: int = 1

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.pairs}" + ("" if self.adapter == "all-linear" else f"-{self.adapter}")


CASES = [
    Case("default", "minimal"),
    Case("default", "other"),
    Case("135m", batch=4),
    Case("135m", adapter="qv", batch=4),
    Case("0.5b", batch=4, repetitions=3),
]
FURTHER_CASES = [Case("1.5b"), Case("tiny", batch=4, repetitions=2)]


@dataclass(frozen=True)
class BenchPair:
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    row: int = 0


def random_pairs(
    count: int, vocabulary: int, replies: tuple[int, int] = (16, 80), prompts: tuple[int, int] = (24, 96)
) -> list[BenchPair]:
    """Chat-like lengths: prompts of 24 to 96 tokens with their template, replies of 16 to 80."""
    draw = random.Random(7)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(draw.randint(low, high))]

    return [BenchPair(ids(*prompts), ids(*replies), ids(*replies), row) for row in range(count)]


def example_pairs(count: int, kind: str) -> list[Any]:
    """Pairs of the shipped examples that have emojis, between 60 and 120 tokens long."""
    from orpo.chat_model.default_model import DEFAULT_MODEL
    from orpo.chat_model.loading import load_tokenizer
    from orpo.records.pairs import PreferencePair
    from orpo.scoring.finding import find_emojis
    from orpo.training.tokenization import tokenize_pairs

    file = Path(__file__).parents[1] / "orpo" / "records" / "examples.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [(row["prompt"], row["reply"], without_emojis(row["reply"], find_emojis(row["reply"]))) for row in rows]
    rows = [row for row in rows if row[1] != row[2]]
    pairs = []
    for number, (prompt, reply, plain) in enumerate(rows):
        rejected = plain if kind == "minimal" else rows[(number + 7) % len(rows)][2]
        better, worse = ([{"role": "assistant", "content": text}] for text in (reply, rejected))
        pairs.append(PreferencePair(prompt, better, worse))
    tokenized = tokenize_pairs(pairs, load_tokenizer(DEFAULT_MODEL), 512).pairs
    fitting = [pair for pair in tokenized if 60 <= pair.longest <= 120]
    return random.Random(7).sample(fitting, count)


def without_emojis(text: str, spans: Any) -> str:
    for span in reversed(list(spans)):
        text = text[: span.start] + text[span.end :]
    return " ".join(text.split())


def pairs_of(case: Case) -> list[Any]:
    count = case.batch * case.batches
    if case.pairs == "random":
        return random_pairs(count, SHAPES[case.shape]["v"])
    return example_pairs(count, case.pairs)


def make_model(case: Case, variant: Variant) -> Any:
    """Make a PEFT model with an adapter that is no zero, so that all gradients are compared."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    torch.manual_seed(0)
    model = load_default(variant) if case.shape == "default" else make_random(case, variant)
    if variant.quantize != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=16, lora_alpha=32, lora_dropout=0.0, target_modules=TARGETS[case.adapter], task_type="CAUSAL_LM"
    )
    peft_model = get_peft_model(model, lora)
    draw = torch.Generator().manual_seed(1)  # on the CPU, so that all devices have the same adapter
    with torch.no_grad():
        for name, weight in peft_model.named_parameters():
            if "lora_A" in name:
                weight.copy_(torch.empty(weight.shape).uniform_(-1, 1, generator=draw) / weight.shape[1] ** 0.5)
            elif "lora_B" in name:
                weight.copy_(0.01 * torch.randn(weight.shape, generator=draw))
    return peft_model


def load_default(variant: Variant) -> Any:
    """Load the default model as a variant wants it."""
    import torch

    from orpo.chat_model.default_model import DEFAULT_MODEL
    from orpo.chat_model.loading import load_model

    dtype = getattr(torch, variant.dtype)
    return load_model(DEFAULT_MODEL, device=DEVICE, dtype=dtype, attention=variant.attention, quantize=variant.quantize)


def make_random(case: Case, variant: Variant) -> Any:
    """Make a model of a shape with random weights, on the device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if variant.quantize != "none":
        raise SystemExit(f"{case.name}: only the default model is loaded in 4 bits; take --cases default-minimal")
    shape = SHAPES[case.shape]
    config = AutoConfig.for_model(
        shape["kind"], vocab_size=shape["v"], hidden_size=shape["h"], intermediate_size=shape["m"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"], num_key_value_heads=shape["kv"],
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2, max_position_embeddings=2048,
    )  # fmt: skip
    attention = {} if variant.attention == "auto" else {"attn_implementation": variant.attention}
    with torch.device(DEVICE):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, variant.dtype), **attention)


def make_tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


class Stepper:
    """One variant: a trainer and its batches, ready to do steps."""

    def __init__(self, name: str, case: Case, pairs: list[Any]) -> None:
        from orpo.command.settings import build_settings
        from orpo.training.settings import TrainSettings

        variant = VARIANTS[name]
        self.model = make_model(case, variant)
        values = {"nll": "prompt_and_completion", "batch_size": case.batch, "device": DEVICE, "eval_share": 0.0}
        settings = build_settings(TrainSettings, {**values, "learning_rate": 1e-6, "dtype": variant.flag})
        if variant.trainer == "fast":
            from orpo.training.fast.trainer import build_trainer as build
        else:
            from orpo.training.trl_trainer import build_trainer as build
        from orpo.training.trainer_arguments import TrainerParts

        parts = TrainerParts(
            self.model, make_tokenizer(), pairs, [], settings, Path(tempfile.mkdtemp()), [], learning_rate=1e-6
        )
        self.trainer: Any = build(parts)
        self.trainer.state.max_steps = 1000
        self.trainer.current_gradient_accumulation_steps = 1
        self.trainer.create_optimizer()
        self.model = self.trainer.accelerator.prepare_model(self.model)  # autocast, where a run has it
        self.batches: Iterator[Any] = itertools.cycle(list(self.trainer.get_train_dataloader()))
        self.first = next(self.batches)

    def step(self, update: bool = True) -> tuple[float, float]:
        """Return (seconds, loss); without an update that of the first batch."""
        import torch

        batch = next(self.batches) if update else self.first
        begun = now()
        loss = self.trainer.training_step(self.model, batch)
        if update:
            torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], 1.0)
            self.trainer.optimizer.step()
            self.model.zero_grad()
        return now() - begun, float(loss.detach())


def now() -> float:
    """Read the clock, once the device has done what it was given."""
    if DEVICE.startswith("cuda"):
        import torch

        torch.cuda.synchronize()
    return CLOCK()


def compare(case: Case, pairs: list[Any], names: list[str]) -> dict[str, Any]:
    """Time the variants in turns; compare losses and gradients first."""
    steppers = {name: Stepper(name, case, pairs) for name in names}
    losses = {name: stepper.step(update=False)[1] for name, stepper in steppers.items()}
    compared_with = "trl_fp32" if "trl_fp32" in names else names[0]
    reference = {
        name: p.grad.float() for name, p in steppers[compared_with].model.named_parameters() if p.grad is not None
    }
    differences = {name: gradient_difference(one.model, reference) for name, one in steppers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(case.repetitions + 1):
        for name, stepper in steppers.items():
            if not number:
                stepper.model.zero_grad()
            taken = stepper.step()[0]
            if number:  # the first round warms up, and makes AdamW's state
                seconds[name].append(taken)
    return {
        **asdict(case),
        "case": case.name,
        "compared_with": compared_with,
        "losses": losses,
        "gradient_differences": differences,
        "seconds": {n: [statistics.median(s), min(s), max(s)] for n, s in seconds.items()},
        "layouts": {name: one.trainer.step.layout for name, one in steppers.items() if hasattr(one.trainer, "step")},
        "needed_gflop": needed_work(case, pairs[: case.batch]) / 1e9,
        "load": Path("/proc/loadavg").read_text().split()[:3] if Path("/proc/loadavg").exists() else [],
    }


def gradient_difference(model: Any, reference: dict[str, Any]) -> float:
    """Return the norm of the difference of all gradients over the norm of the reference's."""
    own = {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}
    away = sum(float((own[name] - grad).square().sum()) for name, grad in reference.items())
    return float((away / sum(float(grad.square().sum()) for grad in reference.values())) ** 0.5)


def needed_work(case: Case, pairs: list[Any]) -> float:
    """Count the operations that a step needs: what replies share once, logits where a loss looks, no attention.

    Frozen products count twice (forward, gradient to the input): 2 + 2 operations a weight and token.
    """
    from orpo.training.fast.packing import ReplyGroup, pack_replies

    shape = SHAPES[case.shape]
    size = shape["h"] // shape["heads"]
    layer = shape["h"] * (2 * shape["h"] + 2 * size * shape["kv"]) + 3 * shape["h"] * shape["m"]
    groups = [ReplyGroup(pair.prompt_ids, (pair.chosen_ids, pair.rejected_ids)) for pair in pairs]
    row = pack_replies(groups, layout="shared", nll_on_prompt=True)
    tokens, places = row.input_ids.shape[1], len(row.targets)
    return 4.0 * (layer * shape["layers"] * tokens + shape["v"] * shape["h"] * places)


def matmul_peak(dtype: str) -> float:
    """Return the best measured rate of large products, in operations per second.

    On a CPU oneDNN is asked too: fp32 products are MKL's by default, which takes no AVX-512 on AMD's processors.
    """
    import torch

    best, size = 0.0, 8192 if DEVICE.startswith("cuda") else 2048
    a, b = (torch.randn(*shape, device=DEVICE).to(getattr(torch, dtype)) for shape in ((size // 2, size), (size, size)))
    ways = [lambda: a @ b]
    if DEVICE == "cpu" and torch.backends.mkldnn.is_available():
        ways.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    for way in ways * 8:
        begun = now()
        way()
        best = max(best, 2.0 * size // 2 * size * size / (now() - begun))
    return best


def memory_of(variant: str, case: Case) -> float:
    """Return the peak of a step over what was there once the model was loaded, in MB; in a process of its own."""
    import torch

    stepper = Stepper(variant, case, pairs_of(case))
    gc.collect()
    if DEVICE.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        loaded = torch.cuda.memory_allocated()
        stepper.step()
        return (torch.cuda.max_memory_allocated() - loaded) / 2**20
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


def sweep(repetitions: int, names: list[str]) -> list[dict[str, Any]]:
    """Measure a small shape at several lengths, vocabularies and prompt shares."""
    small = {"kind": "llama", "v": 8192, "h": 320, "m": 832, "layers": 6, "heads": 5, "kv": 5}
    plain: dict[str, Any] = {"vocabulary": 8192, "replies": (32, 32), "prompts": (32, 32)}
    changes: list[dict[str, Any]] = [
        {},
        *({"replies": (n, n), "prompts": (n, n)} for n in (16, 64, 128, 256)),
        *({"vocabulary": v} for v in (2048, 32768, 131072)),
        *({"prompts": (n, n)} for n in (8, 128, 256)),
    ]
    rows = []
    for change in changes:
        now = {**plain, **change}
        SHAPES["sweep"] = {**small, "v": now["vocabulary"]}
        pairs = random_pairs(4, now["vocabulary"], now["replies"], now["prompts"])
        row = compare(Case("sweep", batch=4, repetitions=repetitions), pairs, names)
        rows.append({**{k: v if isinstance(v, int) else v[0] for k, v in now.items()}, "seconds": row["seconds"]})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table for each case."""
    for row in rows:
        print(f"{row['case']}, batch {row['batch']}, load {' '.join(row['load'])}")
        print("  variant          seconds (min-max)  to TRL, same numbers  of peak  loss off  gradient off")
        for name, (median, low, high) in row["seconds"].items():
            peer = "trl_fp32" if name.endswith("fp32") else "trl_bf16"
            peak = row["peaks"]["float32" if name.endswith("fp32") else "bfloat16"]
            ratio = f"{row['seconds'][peer][0] / median:.2f}x" if peer in row["seconds"] else ""
            share = row["needed_gflop"] * 1e9 / median / peak
            off = row["losses"][name] - row["losses"][row["compared_with"]]
            memory = f" {row['memory_mb'][name]:6.0f} MB over the model" if "memory_mb" in row else ""
            print(
                f"  {name:15} {f'{median:.3f} ({low:.3f}-{high:.3f})':>22} {ratio:>17} {share:8.0%} {off:+9.1e}"
                f" {row['gradient_differences'][name]:13.1e}{memory}"
            )


def read_arguments() -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in CASES]
    further = [case.name for case in FURTHER_CASES]
    parser.add_argument("--cases", nargs="*", default=names, choices=names + further, metavar="CASE")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, help="(default: fp32 and bfloat16 of both trainers)")
    parser.add_argument("--repetitions", type=int, help="rounds of each case (default: 7, and 3 for the 0.5B shape)")
    parser.add_argument("--batches", type=int, default=1, help="different batches that the steps take in turn")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory measurements out")
    parser.add_argument("--sweep", action="store_true", help="the table of lengths, vocabularies and prompt shares")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cpu-clock", action="store_true", help="count CPU seconds: rough, for a machine under load")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    global CLOCK, DEVICE
    given = read_arguments()
    import torch

    torch.set_num_threads(given.threads)
    DEVICE = given.device
    CLOCK = time.process_time if given.cpu_clock else CLOCK
    names = given.variants or USUAL_VARIANTS[DEVICE.partition(":")[0]]
    cases = [
        replace(case, repetitions=given.repetitions or case.repetitions, batches=given.batches)
        for case in CASES + FURTHER_CASES
        if case.name in given.cases
    ]
    if given.memory_of:
        print(json.dumps(memory_of(given.memory_of, cases[0])))
    elif given.sweep:
        print(json.dumps({"sweep": sweep(given.repetitions or 7, names), "threads": given.threads}))
    elif given.apart:
        row = compare(cases[0], pairs_of(cases[0]), names)
        print(json.dumps({**row, "peaks": {dtype: matmul_peak(dtype) for dtype in ("float32", "bfloat16")}}))
    else:
        same = ["--threads", str(given.threads), "--device", DEVICE, *(["--cpu-clock"] if given.cpu_clock else [])]
        rows = [measure_apart(case, names, same, with_memory=not given.no_memory) for case in cases]
        machine = {"threads": given.threads, "torch": torch.__version__, "device": device_name()}
        print(json.dumps({"cases": rows, **machine}))


def measure_apart(case: Case, names: list[str], same: list[str], *, with_memory: bool) -> dict[str, Any]:
    """Measure a case in processes of its own and print its table."""
    of_case = ["--cases", case.name, "--repetitions", str(case.repetitions), "--batches", str(case.batches), *same]
    row: dict[str, Any] = run_apart(*of_case, "--variants", *names, "--apart")
    if with_memory and (DEVICE != "cpu" or Path("/proc/self/clear_refs").exists()):
        row["memory_mb"] = {name: run_apart(*of_case, "--memory-of", name) for name in names}
    show([row])
    return row


def device_name() -> str:
    """Return what the device calls itself."""
    import torch

    return torch.cuda.get_device_name(DEVICE) if DEVICE.startswith("cuda") else DEVICE


if __name__ == "__main__":
    main()
