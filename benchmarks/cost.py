"""Does time grow with the work in a straight line? Replies and training steps on the default model, four plots.

    uv run benchmarks/cost.py                              # -> docs/cost.svg; about six minutes on two cores
    uv run benchmarks/cost.py --clock cpu --threads 1      # on a machine that others use too
    uv run benchmarks/cost.py --scale 0.25 --rounds 1 --out /tmp/cost.svg

Measured are the writing of replies against how many prompts there are and against how long the replies are (ends are
not looked at, so that each is as long as it may be), and training against how many pairs there are and against their
length. All points take turns, round after round; medians are fitted with a line. What is off a line at its upper end
is attention, which grows with the square of the length. The last line is JSON.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
PAIRS_OF_A_STEP = 4
INK, LINE = "#444c5c", "#e07b00"


@dataclass(frozen=True)
class Measure:
    """What is measured: does `work` for each point of the axis.

    Attributes:
        name: Its key in the JSON.
        title: The plot's title.
        axis: What the points count.
        points: How much work.
        work: Does that much.
    """

    name: str
    title: str
    axis: str
    points: Sequence[int]
    work: Callable[[int], None]


@dataclass(frozen=True)
class Fit:
    """A line through the medians.

    Attributes:
        slope: Seconds for each unit of work.
        intercept: Seconds without any.
        r_squared: The share of the variance that it explains.
        largest_deviation: The largest difference of a median from the line, relative to the line.
    """

    slope: float
    intercept: float
    r_squared: float
    largest_deviation: float

    def at(self, point: float) -> float:
        """Return the line's seconds for this much work."""
        return self.slope * point + self.intercept


def main() -> None:
    """Measure, print the table and the JSON line, and draw."""
    given = read_arguments()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    import torch

    torch.set_num_threads(given.threads)
    clock = CLOCKS[given.clock]
    measures = [*reply_measures(given.scale), *training_measures(given.scale)]
    seconds: dict[tuple[str, int], list[float]] = {(one.name, point): [] for one in measures for point in one.points}
    for one in measures:
        one.work(one.points[0])  # warms up
    for number in range(given.rounds):
        for one in measures:
            for point in one.points:
                begun = clock()
                one.work(point)
                seconds[one.name, point].append(clock() - begun)
        print(f"round {number + 1} of {given.rounds} done", file=sys.stderr, flush=True)
    medians = {one.name: [statistics.median(seconds[one.name, point]) for point in one.points] for one in measures}
    fits = {one.name: fit_line(one.points, medians[one.name]) for one in measures}
    for one in measures:
        fit = fits[one.name]
        print(f"{one.title}: {', '.join(f'{p} {s:.2f} s' for p, s in zip(one.points, medians[one.name], strict=True))}")
        print(
            f"  {fit.slope * 1e3:.2f} ms each and {fit.intercept:.2f} s, R2 {fit.r_squared:.4f}, "
            f"largest deviation {fit.largest_deviation:.1%}"
        )
    draw(measures, seconds, fits, given.out, given.clock)
    found = {
        one.name: {**vars(fits[one.name]), "points": list(one.points), "medians": medians[one.name]} for one in measures
    }
    print(json.dumps({"cost": found, "settings": {**vars(given), "out": str(given.out)}}))


def read_arguments() -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all points: 0.25 is a quick look")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "cost.svg")
    return parser.parse_args()


def scaled(points: Sequence[int], scale: float, at_least: int, step: int = 1) -> list[int]:
    """Return the points at another scale, rounded to a step, each once."""
    return sorted({max(at_least, round(point * scale / step) * step) for point in points})


def reply_measures(scale: float) -> list[Measure]:
    """Return replies against prompts and against their length."""
    from orpo.chat_model.chat_template import encode_prompt
    from orpo.chat_model.decoder import make_decoder
    from orpo.chat_model.decoding import Request, decode
    from orpo.chat_model.default_model import DEFAULT_MODEL
    from orpo.chat_model.loading import load_model, load_tokenizer
    from orpo.chat_model.token_picker import TokenPicker, row_keys
    from orpo.records.prompts import embedded_prompts
    from orpo.records.replies import Sampling

    tokenizer = load_tokenizer(DEFAULT_MODEL)
    decoder = make_decoder(load_model(DEFAULT_MODEL, device="cpu", dtype="auto"), None)
    if decoder is None:
        raise SystemExit("the default model is not driven by the project's own loop")
    prompts = [encode_prompt(tokenizer, prompt.conversation()) for prompt in embedded_prompts()]

    def write(count: int, length: int) -> None:
        rows = prompts[:count]
        picker = TokenPicker(Sampling(temperature=0.4, max_new_tokens=length), row_keys(rows), 0)
        tokens = sum(map(len, decode(decoder, Request(rows, picker, [], slots=16))))
        assert tokens == count * length

    counts, lengths = scaled((16, 32, 48, 64, 96), scale, 2), scaled((16, 32, 48, 64, 96), scale, 2)
    return [
        Measure("prompts", "Replies of 16 tokens", "prompts", counts, lambda count: write(count, 16)),
        Measure("reply_length", "Replies to 16 prompts", "tokens of each reply", lengths, lambda n: write(16, n)),
    ]


def training_measures(scale: float) -> list[Measure]:
    """Return training against pairs and against their length."""
    sys.path.insert(0, str(REPOSITORY))
    from benchmarks.training_step import Case, Stepper, random_pairs
    from orpo.training.fast.trainer import collate_pairs

    vocabulary = 49152
    pairs: Sequence[Any] = random_pairs(64, vocabulary, replies=(48, 48), prompts=(48, 48))
    stepper = Stepper("fast_auto", Case("default", "random", batch=PAIRS_OF_A_STEP), list(pairs))

    def train_on(count: int) -> None:
        stepper.batches = iter(
            [collate_pairs(pairs[start : start + PAIRS_OF_A_STEP]) for start in range(0, count, PAIRS_OF_A_STEP)]
        )
        for _ in range(0, count, PAIRS_OF_A_STEP):
            stepper.step()

    def train_long(length: int) -> None:
        half = length // 2
        long: Sequence[Any] = random_pairs(PAIRS_OF_A_STEP, vocabulary, replies=(half, half), prompts=(half, half))
        stepper.batches = itertools.repeat(collate_pairs(long))
        stepper.step()

    counts = scaled((4, 8, 12, 16, 24), scale, PAIRS_OF_A_STEP, PAIRS_OF_A_STEP)
    lengths = scaled((64, 128, 256, 384, 512), scale, 16, 2)
    return [
        Measure("pairs", "Training, pairs of 96 tokens", "pairs", counts, train_on),
        Measure("pair_length", "A step of 4 pairs", "tokens of each prompt with its reply", lengths, train_long),
    ]


def fit_line(points: Sequence[int], seconds: Sequence[float]) -> Fit:
    """Return the line of least squares."""
    import numpy as np

    slope, intercept = np.polyfit(points, seconds, 1)
    on_line = [float(slope * point + intercept) for point in points]
    mean = statistics.fmean(seconds)
    unexplained = sum((own - line) ** 2 for own, line in zip(seconds, on_line, strict=True))
    r_squared = 1 - unexplained / sum((own - mean) ** 2 for own in seconds)
    largest = max(abs(own - line) / line for own, line in zip(seconds, on_line, strict=True))
    return Fit(float(slope), float(intercept), r_squared, largest)


def draw(
    measures: Sequence[Measure],
    seconds: dict[tuple[str, int], list[float]],
    fits: dict[str, Fit],
    out: Path,
    clock: str,
) -> None:
    """Write the plots as SVG: every measured value, and the line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "cost",
        "font.size": 9,
        "axes.edgecolor": INK,
        "text.color": INK,
    }
    colours: dict[Any, Any] = {
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.grid": True,
        "grid.alpha": 0.3,
    }
    with pyplot.rc_context({**style, **colours}):
        figure, axes = pyplot.subplots(2, 2, figsize=(8.4, 5.6), layout="constrained")
        for one, plot in zip(measures, axes.flat, strict=True):
            fit, most = fits[one.name], max(one.points)
            plot.plot([0, most], [fit.at(0), fit.at(most)], color=LINE, linewidth=1.2)
            for point in one.points:
                measured = seconds[one.name, point]
                plot.plot([point] * len(measured), measured, "o", color=INK, markersize=4)
            plot.set_title(f"{one.title}: R² {fit.r_squared:.4f}", fontsize=9)
            plot.set_xlabel(one.axis)
            plot.set_ylabel(f"seconds ({clock})")
            plot.set_xlim(left=0)
            plot.set_ylim(bottom=0)
        figure.savefig(out, metadata={"Date": None})
        pyplot.close(figure)


if __name__ == "__main__":
    main()
