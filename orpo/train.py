"""Train a LoRA adapter on preference pairs with ORPO or another method: pairs -> adapter, with TensorBoard beside it.

    uv run orpo/train.py
    uv run orpo/train.py --model Qwen/Qwen2.5-0.5B-Instruct --data pairs.jsonl --out trained/qwen
    uv run orpo/train.py --recipe recipes/qwen2.5-0.5b-lora.yaml
    uv run orpo/train.py --method dpo
    uv run orpo/train.py --data data/preferences:2 more.jsonl
    uv run orpo/train.py --estimate

Without arguments it trains the default model on what generate.py wrote, into trained/SmolLM2-135M-Instruct-orpo, where
TensorBoard can watch it (`make tensorboard`). Ctrl-C stops with a checkpoint, and --resume goes on from it.
"""

from orpo.command.run_command import run_command
from orpo.command.settings import parse_settings
from orpo.training.settings import TrainSettings


def main(argv: list[str]) -> int:
    """Train, and print a table of what came out and where it is."""
    settings = parse_settings(TrainSettings, argv, prog="train.py", description=__doc__)

    from orpo.training.data import check_and_read

    sets = check_and_read(settings)

    from orpo.command.display import console_out, print_table
    from orpo.training.card import summary_rows
    from orpo.training.run import TENSORBOARD_FOLDER, estimate, train

    if settings.estimate:
        print_table(("memory of a training step", "size"), estimate(settings, sets).as_rows())
        return 0
    result = train(settings, sets)
    counts = result.counts
    print_table(("measured", "first", "last"), summary_rows(result.metrics), title="training")
    speed = result.tokens_per_second
    lines = [f"data         {one}" for one in result.sets] if len(result.sets) > 1 else []
    lines += [
        f"pairs        {counts['train']} to train on, {counts['evaluation']} to evaluate on, of {counts['pairs']}",
        f"steps        {counts['steps']} in {result.wall_seconds:.0f} s" + (f", {speed:.0f} tokens/s" if speed else ""),
        f"verdict      {result.verdict}",
        f"adapter      {result.folder}",
    ]
    if result.best is not None:
        lines.append(f"early stop   {result.best}")
    if "tensorboard" in settings.watch.report_to:
        lines.append(f"TensorBoard  {result.folder / TENSORBOARD_FOLDER}")
    for line in lines:
        console_out.print(line, soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_command(main)
