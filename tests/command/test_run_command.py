"""Whatever goes wrong is one line and an exit code; these run a real process, as a user does."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orpo.command.run_command import describe_failure
from orpo.command.signals import NOTHING_KEPT
from tests.command.command_process import run, write_command


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("raise SettingsError('--beta 0: must be above 0')", 2, "error: --beta 0: must be above 0"),
        ("raise InputError('pairs.jsonl:\\nrow 3 is empty')", 1, "error: pairs.jsonl: row 3 is empty"),
        ("raise ModelError('no such model')", 1, "error: no such model"),
        ("raise KeyboardInterrupt", 130, f"stopped; {NOTHING_KEPT}"),
        ("print('x', file=open('/dev/full', 'w'), flush=True)", 1, "error: the disk is full"),
        ("open('/absent/file')", 1, "error: /absent/file: there is no such file"),
        ("raise RuntimeError('I/O error: No space left on device (os error 28)')", 1, "error: the disk is full"),
        ("raise MemoryError", 1, "error: out of memory"),
    ],
)
def test_each_end_has_its_code_and_at_most_one_line(tmp_path: Path, body: str, code: int, line: str) -> None:
    done = run(tmp_path, body)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(line) and done.stderr.count("\n") == bool(line)


def test_notes_of_outer_layers_follow_the_line(tmp_path: Path) -> None:
    done = run(
        tmp_path, "e = TrainingError('loss is nan'); e.add_note('the checkpoints are kept in trained/x'); raise e"
    )
    assert done.stderr == "error: loss is nan\nthe checkpoints are kept in trained/x\n" and done.returncode == 1


def test_a_mistake_of_ours_keeps_its_traceback_in_a_file(tmp_path: Path) -> None:
    done = run(tmp_path, "return {}['key']", TMPDIR=str(tmp_path))
    assert done.returncode == 70 and done.stderr.startswith("error: unexpected KeyError: 'key'")
    assert done.stderr.count("\n") == 1
    (saved,) = tmp_path.glob("orpo-*.txt")
    assert str(saved) in done.stderr and "Traceback" in saved.read_text()


def test_an_error_line_cannot_steer_the_terminal_or_give_a_secret_away(tmp_path: Path) -> None:
    """A column's name, a template's message or an address came out as it was, escape sequences and password too."""
    text = r"column \x1b]0;title\x07 \u202e of http://me:word@host/?api_key=abc\n\x85"
    done = run(tmp_path, f"raise InputError('{text}')")
    assert done.stderr == "error: column \ufffd \ufffd of http://***@host/?api_key=***\n"
    verbose = run(tmp_path, f"raise InputError('{text}')", "--verbose").stderr
    assert "Traceback" in verbose and "\x1b" not in verbose and "word" not in verbose.splitlines()[-1]


@pytest.mark.parametrize(("argv", "environment"), [(["--verbose"], {}), ([], {"ORPO_DEBUG": "1"})])
def test_who_asks_sees_the_traceback(tmp_path: Path, argv: list[str], environment: dict[str, str]) -> None:
    done = run(tmp_path, "raise InputError('no rows')", *argv, **environment)
    assert "Traceback" in done.stderr and done.stderr.endswith("error: no rows\n") and done.returncode == 1


def test_telemetry_is_off_unless_the_user_turned_it_on(tmp_path: Path) -> None:
    body = "print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    environment = {"HF_HUB_DISABLE_TELEMETRY": "0"}
    assert run(tmp_path, body, **environment).stdout == "0 1\n"


def test_emojis_reach_a_pipe_whatever_the_locale(tmp_path: Path) -> None:
    """With PYTHONIOENCODING or a Windows code page a piped emoji ended in a UnicodeEncodeError."""
    done = run(tmp_path, "print('\\U0001f44d\\U0001f3fd', '\\ud83d')", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.stdout == "\U0001f44d\U0001f3fd ?\n" and done.returncode == 0


def test_a_reader_that_leaves_ends_the_command_in_silence(tmp_path: Path) -> None:
    command = write_command(tmp_path, "for _ in range(100_000): print('a line that fills the pipe')")
    with subprocess.Popen([sys.executable, command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_another_connection_that_breaks_is_not_taken_for_the_reader(tmp_path: Path) -> None:
    done = run(tmp_path, "raise BrokenPipeError(32, 'Broken pipe')", TMPDIR=str(tmp_path))
    assert done.returncode == 70 and "unexpected BrokenPipeError" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cleans_up_and_says_stopped(tmp_path: Path, number: int, code: int) -> None:
    target = tmp_path / "data"
    body = f"""
        import pathlib, time
        from orpo.command.output_folder import new_folder
        with new_folder(pathlib.Path({str(target)!r})) as folder:
            (folder / "half.txt").touch()
            print("ready", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, write_command(tmp_path, body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code and stderr.decode() == f"stopped; {NOTHING_KEPT}\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["command.py"]


def test_a_stop_says_what_the_blocks_that_it_left_have_kept(tmp_path: Path) -> None:
    """It said `stopped` alone at most moments, and nobody knew what was there and whether to start again."""
    done = run(tmp_path, "e = KeyboardInterrupt(); e.add_note('3 are kept'); e.add_note('and 4 more'); raise e")
    assert (done.returncode, done.stderr) == (130, "stopped; 3 are kept; and 4 more\n")


@pytest.mark.parametrize("is_handled", [True, False])
def test_an_impatient_second_ctrl_c_loses_no_word_of_what_is_kept(tmp_path: Path, is_handled: bool) -> None:
    """`timeout` sends SIGTERM twice; the second came while replies were counted, and the line said nothing was kept."""
    again = "os.kill(os.getpid(), 2); time.sleep(0.05)"
    body = f"""
        import time
        from orpo.command.signals import CleaningUp
        try:
            try:
                os.kill(os.getpid(), 2); time.sleep(60)
            except BaseException as stop:
                with CleaningUp():
                    {again if is_handled else "pass"}
                    stop.add_note("3 are kept")
                raise
        finally:
            {"pass" if is_handled else again}
    """
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (130, "stopped; 3 are kept\n")


def test_a_stop_after_the_result_is_there_says_where_it_is(tmp_path: Path) -> None:
    target = tmp_path / "data"
    body = f"""
        import pathlib
        from orpo.command.output_folder import new_folder
        with new_folder(pathlib.Path({str(target)!r})):
            pass
        os.kill(os.getpid(), 2)
    """
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (130, f"stopped; the result is whole, in {target}\n")
    assert target.is_dir()


def test_a_stopped_command_does_not_wait_for_its_threads(tmp_path: Path) -> None:
    """A thread in the midst of torch's code aborted the process, `terminate called`, when the interpreter went."""
    target = tmp_path / "out" / "data"
    body = f"""
        import pathlib, threading, time
        from orpo.command.output_folder import check_output_folder
        check_output_folder(pathlib.Path({str(target)!r}), overwrite=False)
        threading.Thread(target=time.sleep, args=(60,)).start()
        raise KeyboardInterrupt
    """
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr) == (130, f"stopped; {NOTHING_KEPT}\n")
    assert not target.parent.exists(), "the lock went too"


def test_the_cause_of_a_library_error_is_looked_through() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")
        except OSError as inner:
            raise RuntimeError("writing failed") from inner
    except RuntimeError as outer:
        assert describe_failure(outer) == (
            "model.safetensors: the disk is full; free some space or write to another disk"
        )
    assert describe_failure(ValueError("plain")) is None


def test_a_command_on_this_foundation_answers_help_in_well_under_a_second(tmp_path: Path) -> None:
    """Importing the heavy libraries takes seconds; the foundation imports none of them."""
    body = """
        from dataclasses import dataclass
        from orpo.command.settings import parse_settings, setting
        @dataclass(kw_only=True)
        class S:
            n: int = setting(1, "a number")
        parse_settings(S, argv, prog="s", description="Does.")
    """
    seconds = []
    for _ in range(3):  # CPU time, the least of it: other processes must not count, nor the first run, which compiles
        before = os.times()
        assert run(tmp_path, body, "--help").returncode == 0
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 0.3
