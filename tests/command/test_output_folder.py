"""Output folders appear whole or not at all, and nothing that was there is lost."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from orpo.command.errors import InputError, OutputError
from orpo.command.output_folder import check_output_folder, growing_folder, new_folder, write_whole
from tests.command.command_process import run, write_command


def write_result(folder: Path, word: str) -> None:
    (folder / "result.txt").write_text(word, encoding="utf-8")
    (folder / "run.json").write_text("{}", encoding="utf-8")


def make(path: Path, word: str, **flags: bool) -> None:
    with new_folder(path, **flags) as folder:
        write_result(folder, word)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@contextmanager
def interrupted(block: AbstractContextManager[Path], error: type[BaseException]) -> Iterator[Path]:
    with pytest.raises(error), block as folder:
        yield folder
        raise error


def test_a_new_folder_appears_at_the_end_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "data"
    with new_folder(target) as folder:
        write_result(folder, "one")
        assert not target.exists()
    assert (target / "result.txt").read_text() == "one"
    assert names(target.parent) == ["data"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_folder_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    make(tmp_path / "data", "old")
    with interrupted(new_folder(tmp_path / "data", overwrite=True), error) as folder:
        write_result(folder, "new")
    assert (tmp_path / "data" / "result.txt").read_text() == "old"
    assert names(tmp_path) == ["data"]


def test_an_existing_folder_asks_for_overwrite_and_stays(tmp_path: Path) -> None:
    make(tmp_path / "data", "old")
    with pytest.raises(OutputError, match="`overwrite`"):
        make(tmp_path / "data", "new")
    assert (tmp_path / "data" / "result.txt").read_text() == "old"


def test_overwrite_replaces_a_result_whole(tmp_path: Path) -> None:
    make(tmp_path / "data", "old")
    (tmp_path / "data" / "extra.txt").touch()
    make(tmp_path / "data", "new", overwrite=True)
    assert (tmp_path / "data" / "result.txt").read_text() == "new"
    assert names(tmp_path / "data") == ["result.txt", "run.json"] and names(tmp_path) == ["data"]


def test_overwrite_refuses_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"run\.json"):
        make(tmp_path / "home", "new", overwrite=True)
    assert names(tmp_path / "home") == ["thesis.txt"]


def test_an_empty_folder_is_taken_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    make(tmp_path / "data", "new")
    assert (tmp_path / "data" / "result.txt").read_text() == "new"


def test_a_link_to_a_folder_on_a_bigger_disk_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    make(tmp_path / "data", "new")
    assert (tmp_path / "data").is_symlink() and (tmp_path / "disk" / "result.txt").read_text() == "new"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(OutputError, match="file"):
            check_output_folder(path, overwrite=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_found_before_the_work(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    with pytest.raises(OutputError, match="permission"):
        check_output_folder(closed / "data", overwrite=False)
    closed.chmod(0o700)


def test_a_result_is_as_readable_as_any_other_folder(tmp_path: Path) -> None:
    """mkdtemp makes private folders; a result that only its owner can read would surprise."""
    (tmp_path / "plain").mkdir()
    make(tmp_path / "data", "new")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_folder_that_appeared_meanwhile_is_not_overwritten_and_the_new_result_is_kept(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="kept in") as caught, new_folder(tmp_path / "data") as folder:
        write_result(folder, "late")
        make(tmp_path / "data", "first")
    kept = Path(str(caught.value).split("kept in ")[1])
    assert (tmp_path / "data" / "result.txt").read_text() == "first" and (kept / "result.txt").read_text() == "late"


def test_a_growing_folder_is_in_place_from_the_start_and_marked_until_its_end(tmp_path: Path) -> None:
    with growing_folder(tmp_path / "run") as folder:
        assert folder == tmp_path / "run" and (folder / "unfinished.json").is_file()
        write_result(folder, "one")
    assert names(tmp_path / "run") == ["result.txt", "run.json"] and names(tmp_path) == ["run"]


def test_a_run_that_stops_without_checkpoints_gives_the_old_one_back(tmp_path: Path) -> None:
    make(tmp_path / "run", "old")
    with interrupted(growing_folder(tmp_path / "run", overwrite=True), KeyboardInterrupt) as folder:
        (folder / "events").touch()
    assert (tmp_path / "run" / "result.txt").read_text() == "old" and names(tmp_path) == ["run"]


def test_a_run_that_stops_with_checkpoints_is_resumed_and_the_old_one_waits_for_its_end(tmp_path: Path) -> None:
    make(tmp_path / "run", "old")
    with interrupted(growing_folder(tmp_path / "run", overwrite=True), KeyboardInterrupt) as folder:
        (folder / "checkpoint-5").mkdir()
    assert (tmp_path / ".run.old" / "result.txt").read_text() == "old"
    with pytest.raises(OutputError, match="`resume`"), growing_folder(tmp_path / "run"):
        pass
    with growing_folder(tmp_path / "run", resume=True) as folder:
        assert (folder / "checkpoint-5").is_dir()
        write_result(folder, "new")
    assert (tmp_path / "run" / "result.txt").read_text() == "new" and names(tmp_path) == ["run"]


def test_an_unfinished_run_can_be_started_again(tmp_path: Path) -> None:
    with interrupted(growing_folder(tmp_path / "run"), ValueError) as folder:
        (folder / "checkpoint-5").mkdir()
    with growing_folder(tmp_path / "run", overwrite=True) as folder:
        assert names(folder) == ["unfinished.json"]


def test_there_is_nothing_to_resume_in_a_finished_or_absent_run(tmp_path: Path) -> None:
    make(tmp_path / "run", "old")
    for path, state in ((tmp_path / "run", "is finished"), (tmp_path / "absent", "no unfinished run")):
        with pytest.raises(InputError, match=state), growing_folder(path, resume=True):
            pass
    assert names(tmp_path) == ["run"]


def test_a_stopped_run_promises_only_what_can_be_resumed(tmp_path: Path) -> None:
    """With the disk full the half of a checkpoint was there, and promised as one to go on from."""
    make(tmp_path / "run", "old")
    with (
        pytest.raises(ValueError, match="full") as caught,
        growing_folder(tmp_path / "run", overwrite=True, can_resume=lambda folder: False) as folder,
    ):
        (folder / "checkpoint-5").mkdir()
        raise ValueError("full")
    assert not hasattr(caught.value, "__notes__")
    assert (tmp_path / "run" / "result.txt").read_text() == "old" and names(tmp_path) == ["run"]


def test_resuming_in_vain_takes_nothing_away(tmp_path: Path) -> None:
    with interrupted(growing_folder(tmp_path / "run"), ValueError) as folder:
        (folder / "checkpoint-5").mkdir()
    with (
        pytest.raises(ValueError, match="damaged"),
        growing_folder(tmp_path / "run", resume=True, can_resume=lambda folder: False) as folder,
    ):
        raise ValueError("damaged")
    assert names(tmp_path / "run") == ["checkpoint-5", "unfinished.json"]


def test_a_text_is_written_whole_or_the_old_one_stays(tmp_path: Path) -> None:
    """A settings.json that a full disk had cut off switched the check for the same run off."""
    file = tmp_path / "settings.json"
    write_whole(file, "old")
    body = f"""
        import pathlib, resource
        from orpo.command.output_folder import write_whole
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, 5))
        write_whole(pathlib.Path({str(file)!r}), "new" * 1000)
    """
    done = run(tmp_path, body)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "larger than may be written" in done.stderr
    assert file.read_text() == "old" and names(tmp_path) == ["command.py", "settings.json"]
    write_whole(file, "new")
    assert file.read_text() == "new" and names(tmp_path) == ["command.py", "settings.json"]


@pytest.mark.parametrize("limit", [0, 100, 5000])
@pytest.mark.parametrize("kind", ["new_folder", "growing_folder"])
def test_a_disk_that_fills_up_is_one_line_and_the_old_result_stays(tmp_path: Path, limit: int, kind: str) -> None:
    make(tmp_path / "out" / "data", "old")
    body = f"""
        import json, pathlib, resource
        from orpo.command.output_folder import {kind}
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        with {kind}(pathlib.Path({str(tmp_path / "out" / "data")!r}), overwrite=True) as folder:
            stream = (folder / "replies.jsonl").open("w")
            for _ in range(10_000):
                stream.write("a line\\n")
            (folder / "run.json").write_text("x" * 10_000)
    """
    done = run(tmp_path, body)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ") and "larger than may be written" in done.stderr
    assert (tmp_path / "out" / "data" / "result.txt").read_text() == "old"
    left = [".data.lock"] if limit == 0 else []  # not even the lock's owner could be written
    assert [name for name in names(tmp_path / "out") if name not in left] == ["data"]


HOLD = """
    import pathlib
    from orpo.command.output_folder import {kind}
    with {kind}(pathlib.Path({path!r}), overwrite=True) as folder:
        (folder / "half.txt").touch()
        print("ready", flush=True)
        input()
        (folder / "run.json").touch()
"""


@contextmanager
def another_process(tmp_path: Path, kind: str, target: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Write a folder in another process, which waits in the midst of it."""
    command = write_command(tmp_path, HOLD.format(kind=kind, path=str(target)))
    other = subprocess.Popen([sys.executable, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"ready\n"
    try:
        yield other
    finally:
        other.communicate(b"\n")


@pytest.mark.parametrize("kind", ["new_folder", "growing_folder"])
def test_a_folder_that_another_process_is_writing_is_left_alone(tmp_path: Path, kind: str) -> None:
    """Two generate runs into one folder paid every reply twice, and the loser learned it at its end."""
    target = tmp_path / "out" / "data"
    with another_process(tmp_path, kind, target) as other:
        for flags in ({}, {"overwrite": True}):
            with pytest.raises(OutputError, match=f"by process {other.pid}; stop it first"):
                check_output_folder(target, overwrite=bool(flags))
        if kind == "growing_folder":
            with pytest.raises(OutputError, match=str(other.pid)), growing_folder(target, resume=True):
                pass
    assert names(target) == ["half.txt", "run.json"] and names(target.parent) == ["data"]
    with new_folder(target, overwrite=True) as folder:
        write_result(folder, "next")
    assert names(target.parent) == ["data"]


def test_the_next_command_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "out" / "data"
    make(target, "old")
    for other in (".data.more.abcdefgh.partial", ".data.abcdefgh.kept", ".database.abcdefgh.partial"):
        (tmp_path / "out" / other).mkdir()
    stays = names(target.parent)
    with another_process(tmp_path, "new_folder", target) as process:
        process.kill()
        process.wait()
    assert len(names(target.parent)) == len(stays) + 2, "a partial folder and the lock"
    check_output_folder(target, overwrite=True)
    assert [name for name in names(target.parent) if name != ".data.lock"] == stays


def test_a_result_that_a_killed_command_had_moved_aside_comes_back(tmp_path: Path) -> None:
    make(tmp_path / "aside", "old")
    (tmp_path / ".data.abcdefgh.old").mkdir()
    (tmp_path / "aside").rename(tmp_path / ".data.abcdefgh.old" / "data")
    with pytest.raises(OutputError, match="already exists"):
        check_output_folder(tmp_path / "data", overwrite=False)
    assert (tmp_path / "data" / "result.txt").read_text() == "old" and names(tmp_path) == ["data"]


def test_a_command_that_writes_nothing_leaves_no_folder(tmp_path: Path) -> None:
    body = f"""
        import pathlib
        from orpo.command.output_folder import check_output_folder
        check_output_folder(pathlib.Path({str(tmp_path / "deep" / "er" / "data")!r}), overwrite=False)
        raise InputError("no rows")
    """
    assert run(tmp_path, body).stderr == "error: no rows\n"
    assert names(tmp_path) == ["command.py"]


def test_a_path_that_is_no_utf8_is_refused_before_the_work(tmp_path: Path) -> None:
    """TensorBoard's writer and the weights' failed there with exit 70."""
    with pytest.raises(OutputError, match="its path is not UTF-8 text"):
        check_output_folder(tmp_path / "w\udcffd" / "out", overwrite=False)
