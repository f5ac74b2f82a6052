"""Disks that are full after nine sizes: one line, nothing destroyed, and the same result once there is room.

The disk is a tmpfs where this process may mount one (as root); elsewhere no file may grow beyond the size, which
answers as a full disk does.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests import writing_parts
from tests.faults.forked_commands import Done, ForkedCommands
from tests.faults.small_runs import fingerprint, generate_flags, losses, train_flags, whole_run, write_pairs

COMMANDS: Final = ("generate", "train")
KILOBYTES_FOR_GENERATE: Final = (4, 16, 48, 96)
KILOBYTES_FOR_TRAIN: Final = (8, 64, 256, 640, 1600)
PROMPTS: Final = 60

pytestmark = [pytest.mark.slow, pytest.mark.faults("full disks")]


@dataclass(frozen=True)
class SmallDisk:
    """A folder that holds no more than some kilobytes until `grow`."""

    folder: Path
    largest_file: int
    is_mounted: bool

    def grow(self) -> int:
        """Make room, and return the largest size of a file then: 0 for any."""
        if self.is_mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(self.folder)], check=True)
        return 0


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[SmallDisk]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        is_mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    try:
        yield SmallDisk(folder, 0 if is_mounted else 1024 * kilobytes, is_mounted)
    finally:
        if is_mounted:
            subprocess.run(["umount", str(folder)], check=True)


def assert_full(done: Done) -> None:
    """Assert that a command said in one line that the disk is full, or that all was written."""
    assert "Traceback" not in done.err and "Exception ignored" not in done.err, done.err
    assert done.code in (0, 1), done.err
    if done.code:
        told = done.error()
        assert "disk is full" in told or "no more can be written" in told or "may be written here" in told, done.err


@pytest.mark.parametrize("kilobytes", KILOBYTES_FOR_GENERATE)
def test_generate_says_so_and_goes_on_once_there_is_room(
    commands: ForkedCommands, tmp_path: Path, kilobytes: int
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"Question {number}, please?\n" for number in range(PROMPTS)), encoding="utf-8")
    with writing_parts.serve_chat() as server, small_disk(tmp_path / "small", kilobytes) as disk:
        whole = commands.run("generate", *generate_flags(server.url, prompts, tmp_path / "whole"))
        assert whole.code == 0, whole.err
        flags = generate_flags(server.url, prompts, disk.folder / "pairs")
        done = commands.run("generate", *flags, largest_file=disk.largest_file)
        assert_full(done)
        assert done.code == 1 and not (disk.folder / "pairs").exists(), "no size holds the whole result"
        again = commands.run("generate", *flags, largest_file=disk.grow())
        assert again.code == 0, again.err
        assert (disk.folder / "pairs" / "pairs.jsonl").read_bytes() == (tmp_path / "whole" / "pairs.jsonl").read_bytes()
        left = [path.name for path in disk.folder.iterdir() if path.name.startswith(".")]
        assert not left


@pytest.fixture(scope="module")
def undisturbed(commands: ForkedCommands, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    return whole_run(commands, model, folder)


@pytest.mark.parametrize("kilobytes", KILOBYTES_FOR_TRAIN)
def test_train_says_so_promises_only_what_is_whole_and_goes_on_once_there_is_room(
    commands: ForkedCommands, model: Path, undisturbed: Path, tmp_path: Path, kilobytes: int
) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    with small_disk(tmp_path / "small", kilobytes) as disk:
        out = disk.folder / "out"
        flags = train_flags(model, data, out)
        done = commands.run("train", *flags, largest_file=disk.largest_file)
        assert_full(done)
        assert (done.code == 0) == (out / "run.json").exists()
        resumes = (out / "unfinished.json").exists()
        assert ("checkpoints are kept" in done.err) == resumes
        if done.code:
            again = commands.run("train", *flags, *(["--resume"] if resumes else []), largest_file=disk.grow())
            assert again.code == 0, again.err
        adapter = "adapter_model.safetensors"
        assert fingerprint(out / adapter) == fingerprint(undisturbed / adapter)
        assert losses(out) == losses(undisturbed)
