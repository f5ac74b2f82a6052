"""Ctrl-C ends a command with 130 and one line, whenever it comes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orpo.command.signals import NOTHING_KEPT
from tests.command.command_process import run, write_command

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="watches a process through /proc")


def handles_sigterm(process: int) -> bool:
    """Tell whether our handlers stand: Python itself takes SIGINT, and leaves SIGTERM alone."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def start_and_stop(command: list[str], seconds: float, number: int) -> subprocess.CompletedProcess[str]:
    """Start a command, and send it a signal some time after its first line ran."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not handles_sigterm(process.pid) and process.poll() is None:
        time.sleep(0.001)
    time.sleep(seconds)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.parametrize("count", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_ctrl_c_at_any_moment_of_the_start_is_130_and_one_line(repository: Path, count: int) -> None:
    """Seven of 36 starts ended with exit 70 or a traceback: what was being imported had swallowed the Ctrl-C."""
    moments = random.Random(count)
    commands = [
        [sys.executable, str(repository / "orpo" / "generate.py"), "--limit", "8"],
        [sys.executable, str(repository / "orpo" / "inference.py"), "--base-only", "--count", "8"],
    ]
    ends = []
    for number in range(count):
        done = start_and_stop(commands[number % 2], moments.uniform(0, 5 if count > 4 else 3), signal.SIGINT)
        ends.append((done.returncode, done.stderr.splitlines()[-1:]))
        assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    assert ends == [(130, [f"stopped; {NOTHING_KEPT}"])] * count


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_import_cannot_swallow_the_signal(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "greedy.py").write_text(
        "import time\nprint('ready', flush=True)\ntry:\n    time.sleep(60)\nexcept BaseException:\n    pass\n"
    )
    body = f"""
        import pathlib
        from orpo.command.output_folder import check_output_folder
        check_output_folder(pathlib.Path({str(tmp_path / "out" / "data")!r}), overwrite=False)
        sys.path.insert(0, {str(tmp_path)!r})
        import greedy
    """
    command = write_command(tmp_path, body)
    process = subprocess.Popen([sys.executable, command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, f"stopped; {NOTHING_KEPT}\n")
    assert not (tmp_path / "out").exists(), "the lock of the output folder went too"


@pytest.mark.parametrize("form", ["raise ImportError('half') from stop", "raise ImportError('half')"])
def test_an_error_that_a_library_made_of_ctrl_c_is_still_ctrl_c(tmp_path: Path, form: str) -> None:
    done = run(tmp_path, f"try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt as stop:\n    {form}")
    assert (done.returncode, done.stderr) == (130, f"stopped; {NOTHING_KEPT}\n")


def test_a_signal_after_the_end_changes_nothing(tmp_path: Path) -> None:
    body = """
        import atexit
        atexit.register(lambda: os.kill(os.getpid(), 2))
        return 3
    """
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (3, "")


def test_a_background_job_stays_deaf_to_ctrl_c(tmp_path: Path) -> None:
    """A shell without job control starts `command &` so, and its Ctrl-C is meant for another."""
    command = write_command(tmp_path, "os.kill(os.getpid(), 2); print('alive')")
    start = "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    ignoring = f"import os, signal, sys; signal.signal(2, signal.SIG_IGN); {start}"
    done = subprocess.run([sys.executable, "-c", ignoring, command], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stdout) == (0, "alive\n")


def test_importing_the_package_takes_no_signals() -> None:
    check = "import signal, orpo.train; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", check], check=True)
