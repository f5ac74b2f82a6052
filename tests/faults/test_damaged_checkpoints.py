"""Eighteen kinds of damage to an unfinished run: an older checkpoint is taken and said so, or one line says why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.faults.forked_commands import ForkedCommands
from tests.faults.small_runs import fingerprint, losses, train_flags, whole_run

COMMANDS: Final = ("train",)

pytestmark = [pytest.mark.slow, pytest.mark.faults("damaged checkpoints")]

NEWEST: Final = "checkpoint-8"
OLDER: Final = "checkpoint-6"

Damage = Callable[[Path], None]


def cut(name: str) -> Damage:
    def damage(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: len(content) // 2])

    return damage


def zeroed(name: str) -> Damage:
    def damage(run: Path) -> None:
        (run / name).write_bytes(bytes((run / name).stat().st_size))

    return damage


def gone(name: str) -> Damage:
    return lambda run: (run / name).unlink()


def of_another_rank(run: Path) -> None:
    """The weights of an adapter of rank 4, as of another run."""
    import torch
    from safetensors.torch import load_file, save_file

    file = run / NEWEST / "adapter_model.safetensors"
    weights = {name: (w[:4] if "lora_A" in name else w[:, :4]).clone() for name, w in load_file(file).items()}
    assert all(torch.is_tensor(weight) for weight in weights.values())
    save_file(weights, file)


def one_bit_off(run: Path) -> None:
    file = run / NEWEST / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(run: Path) -> None:
    shutil.rmtree(run / NEWEST)
    (run / NEWEST).mkdir()


def both(run: Path) -> None:
    cut(f"{NEWEST}/optimizer.pt")(run)
    cut(f"{OLDER}/adapter_model.safetensors")(run)


FALLS_BACK: Final[dict[str, Damage]] = {
    "weights cut": cut(f"{NEWEST}/adapter_model.safetensors"),
    "weights zeroed": zeroed(f"{NEWEST}/adapter_model.safetensors"),
    "weights gone": gone(f"{NEWEST}/adapter_model.safetensors"),
    "weights of another rank": of_another_rank,
    "optimiser cut": cut(f"{NEWEST}/optimizer.pt"),
    "optimiser zeroed": zeroed(f"{NEWEST}/optimizer.pt"),
    "optimiser gone": gone(f"{NEWEST}/optimizer.pt"),
    "one bit of the optimiser": one_bit_off,
    "schedule cut": cut(f"{NEWEST}/scheduler.pt"),
    "state cut": cut(f"{NEWEST}/trainer_state.json"),
    "state zeroed": zeroed(f"{NEWEST}/trainer_state.json"),
    "random state cut": cut(f"{NEWEST}/rng_state.pth"),
    "sums of the log gone": gone(f"{NEWEST}/0_pending_log.json"),
    "seal cut": cut(f"{NEWEST}/whole.json"),
    "an empty folder": empty,
}

SAID: Final[dict[str, tuple[Damage, str]]] = {
    "settings cut": (cut("settings.json"), "settings.json is damaged"),
    "settings zeroed": (zeroed("settings.json"), "settings.json is damaged"),
}


@pytest.fixture(scope="module")
def finished(commands: ForkedCommands, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run with its last two checkpoints, and its data beside it."""
    folder = tmp_path_factory.mktemp("finished")
    return whole_run(commands, model, folder)


def unfinished(finished: Path, folder: Path) -> Path:
    """Return a copy of the run as a kill after its last checkpoint leaves it."""
    run = folder / "out"
    run.mkdir()
    for name in (NEWEST, OLDER, "tensorboard"):
        shutil.copytree(finished / name, run / name)
    shutil.copy(finished / "settings.json", run)
    (run / "unfinished.json").write_text(json.dumps({"process": 999_999_999, "host": "elsewhere"}), encoding="utf-8")
    return run


@pytest.mark.parametrize("name", FALLS_BACK)
def test_an_older_checkpoint_is_taken_said_and_gives_the_same_adapter(
    commands: ForkedCommands, model: Path, finished: Path, tmp_path: Path, name: str
) -> None:
    run = unfinished(finished, tmp_path)
    FALLS_BACK[name](run)
    done = commands.run("train", *train_flags(model, finished.parent / "pairs.jsonl", run), "--resume")
    assert done.code == 0 and "Traceback" not in done.err, done.err
    assert f"{NEWEST} is damaged" in done.err and f"going on from {OLDER}" in done.err
    adapter = "adapter_model.safetensors"
    assert fingerprint(run / adapter) == fingerprint(finished / adapter) and losses(run) == losses(finished)


@pytest.mark.parametrize("name", SAID)
def test_damage_that_cannot_be_gone_around_is_one_line(
    commands: ForkedCommands, model: Path, finished: Path, tmp_path: Path, name: str
) -> None:
    run = unfinished(finished, tmp_path)
    damage, says = SAID[name]
    damage(run)
    done = commands.run("train", *train_flags(model, finished.parent / "pairs.jsonl", run), "--resume")
    assert done.code == 1 and says in done.error() and "Traceback" not in done.err, done.err
    assert (run / NEWEST).is_dir(), "nothing is thrown away"


def test_with_no_whole_checkpoint_it_starts_again_and_says_so(
    commands: ForkedCommands, model: Path, finished: Path, tmp_path: Path
) -> None:
    run = unfinished(finished, tmp_path)
    both(run)
    done = commands.run("train", *train_flags(model, finished.parent / "pairs.jsonl", run), "--resume")
    assert done.code == 0 and f"{OLDER} is damaged" in done.err and "starting again" in done.err, done.err
    adapter = "adapter_model.safetensors"
    assert fingerprint(run / adapter) == fingerprint(finished / adapter)
