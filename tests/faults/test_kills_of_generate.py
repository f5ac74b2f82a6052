"""Kills of generate at any moment: the run that goes on ends with the bytes of one that nobody stopped.

An endpoint counts what it was asked for. What it has answered is kept and never paid for again, except for the calls
that were under way when the kill came.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests import writing_parts
from tests.faults.forked_commands import ForkedCommands
from tests.faults.small_runs import generate_flags

COMMANDS: Final = ("generate",)
PROMPTS: Final = 80
CONCURRENCY: Final = 2
KILLS: Final = 10

pytestmark = [pytest.mark.slow, pytest.mark.faults("kills of generate", cases=KILLS)]


@pytest.fixture(scope="module")
def undisturbed(commands: ForkedCommands, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return what a run that nobody stops writes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with writing_parts.serve_chat() as server:
        done = commands.run("generate", *generate_flags(server.url, prompts_file(folder), folder / "pairs"))
    assert done.code == 0, done.err
    return written(folder / "pairs")


def prompts_file(folder: Path) -> Path:
    file = folder / "prompts.txt"
    file.write_text("".join(f"Question {number}, please?\n" for number in range(PROMPTS)), encoding="utf-8")
    return file


def written(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("pairs.jsonl", "dropped.jsonl", "README.md")}


def slowly(request: dict[str, Any], number: int) -> Any:
    answer = writing_parts.two_sided(request, number)
    answer.delay_seconds = 0.02
    return answer


@pytest.mark.parametrize(
    ("seed", "stop"),
    list(enumerate([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])),
)
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bytes_and_pays_once(
    commands: ForkedCommands, undisturbed: dict[str, bytes], tmp_path: Path, seed: int, stop: signal.Signals
) -> None:
    moments = random.Random(seed)
    out = tmp_path / "pairs"
    kills = 0
    with writing_parts.serve_chat() as server:
        server.script = slowly
        flags = generate_flags(server.url, prompts_file(tmp_path), out, concurrency=CONCURRENCY)
        while kills < KILLS:
            before = len(server.requests)
            running = commands.start("generate", *flags)
            # At any moment of the start, or after some calls: never so many that the run could end first.
            calls = moments.randint(0, PROMPTS // KILLS)
            while len(server.requests) - before < calls and not running.has_ended():
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.3 if calls == 0 else 0.02))
            running.kill(stop)
            done = running.wait()
            assert done.code in (-9, 130, 143, 0), done.err
            assert "Traceback" not in done.err and "Exception ignored" not in done.err, done.err
            assert (done.code == 0) == out.exists(), "whole or not there at all"
            if done.code == 0:  # faster than the kill
                break
            kills += 1
        time.sleep(0.2)
        done = commands.run("generate", *flags, *(["--overwrite"] if out.exists() else []))
        assert done.code == 0, done.err
        asked = len(server.requests)
    assert kills == KILLS, "every kill came before the end"
    assert written(out) == undisturbed
    assert 2 * PROMPTS <= asked <= 2 * PROMPTS + kills * 2 * CONCURRENCY, "paid twice beyond what was under way"
    assert not [left.name for left in tmp_path.iterdir() if left.name.startswith(".")]
