"""The reply store loses nothing, mixes nothing up, and says in a line when it cannot be used."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orpo.command.errors import OutputError
from orpo.generating.reply_store import ReplyStore, reply_key
from orpo.records.replies import Reply


def test_what_is_added_is_found_after_reopening(tmp_path: Path) -> None:
    store = ReplyStore(tmp_path / "new" / "replies.sqlite")
    replies = {f"k{number}": Reply(f"reply {number} 👨‍👩‍👧‍👦", number % 2 == 0, number) for number in range(1200)}
    store.add("model", replies.items())
    store.add("model", [("k1", Reply("another", True, 1))])
    store.close()
    again = ReplyStore(tmp_path / "new" / "replies.sqlite")
    assert len(again) == 1200
    assert again.find([*replies, "unknown"]) == replies
    again.add("model", [("k1", Reply("another", True, 1))], replace=True)
    assert again.find(["k1"])["k1"].text == "another" and len(again) == 1200
    again.close()


def test_a_key_changes_with_everything_that_decides_the_answer() -> None:
    base = {"model": "m", "sampling": {"temperature": 0.7}, "messages": [{"role": "user", "content": "a"}], "seed": 0}
    others = [
        {**base, "model": "n"},
        {**base, "sampling": {"temperature": 0.8}},
        {**base, "messages": [{"role": "user", "content": "b"}]},
        {**base, "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "a"}]},
        {**base, "seed": 1},
    ]
    keys = {reply_key(**arguments) for arguments in [base, *others]}  # type: ignore[arg-type]
    assert len(keys) == len(others) + 1
    assert reply_key(**base) == reply_key(**base)  # type: ignore[arg-type]


def test_threads_and_processes_write_at_once_without_loss(tmp_path: Path) -> None:
    file = tmp_path / "replies.sqlite"
    store = ReplyStore(file)
    code = (
        "import sys; from pathlib import Path; from orpo.generating.reply_store import *\n"
        "s = ReplyStore(Path(sys.argv[1]))\n"
        "for n in range(100): s.add('m', [(f'p{n}', Reply('x', True, 1))])\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(file)])

    def write(name: str) -> None:
        for number in range(100):
            store.add("m", [(f"{name}{number}", Reply("x", True, 1))])

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.wait(timeout=60) == 0
    assert len(store) == 400
    store.close()


def test_a_killed_writer_leaves_every_finished_answer(tmp_path: Path) -> None:
    file = tmp_path / "replies.sqlite"
    code = (
        "import os, signal, sys; from pathlib import Path; from orpo.generating.reply_store import *\n"
        "s = ReplyStore(Path(sys.argv[1]))\n"
        "for n in range(10): s.add('m', [(f'k{n}', Reply('x', True, 1))])\n"
        "s._connection.execute('BEGIN IMMEDIATE')\n"
        "s._connection.execute(\"INSERT INTO replies VALUES ('half', 'm', 'x', 1, 1)\")\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(file)]).returncode == -9
    store = ReplyStore(file)
    assert len(store) == 10 and not store.find(["half"])
    store.close()


def test_a_file_that_is_no_store_is_named_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "replies.sqlite"
    file.write_bytes(b"something else entirely, and long enough to be looked at" * 20)
    before = file.read_bytes()
    with pytest.raises(OutputError, match=r"is damaged or no reply store .*move it away"):
        ReplyStore(file)
    assert file.read_bytes() == before


def test_a_full_disk_is_one_clear_line_and_keeps_what_was_there(tmp_path: Path) -> None:
    """A limit on the file's size gives SQLite the same answer as a full disk."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from orpo.generating.reply_store import *\n"
        "from orpo.command.errors import OutputError\n"
        "s = ReplyStore(Path(sys.argv[1]))\n"
        "s.add('m', [('first', Reply('x', True, 1))])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try:\n"
        "    s.add('m', [(f'k{n}', Reply('x' * 1000, True, 1)) for n in range(200)])\n"
        "except OutputError as problem: print(problem)\n"
        "assert list(s.find(['first', 'k0'])) == ['first']\n"
    )
    file = tmp_path / "replies.sqlite"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no more can be written" in done.stdout
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT COUNT(*) FROM replies").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("page", range(1, 12))
def test_a_zeroed_page_is_damage_and_told_in_one_line(tmp_path: Path, page: int) -> None:
    """A store with a zeroed page ended with exit 70, which hid the cause."""
    file = tmp_path / "replies.sqlite"
    store = ReplyStore(file)
    keys = [f"k{number}" for number in range(300)]
    store.add("model", [(key, Reply("x" * 100, True, 1)) for key in keys])
    store.close()
    content = bytearray(file.read_bytes())
    content[page * 4096 : (page + 1) * 4096] = bytes(4096)
    file.write_bytes(content)
    with pytest.raises(OutputError, match=r"is damaged or no reply store .*move it away") as caught:
        damaged = ReplyStore(file)
        try:
            damaged.find(keys)
            damaged.add("model", [(f"new{number}", Reply("y", True, 1)) for number in range(50)])
            raise AssertionError("the damage lay where nothing was read")
        finally:
            assert damaged.count() >= 0, "counting what is kept does not fail in its turn"
            damaged.close()
    assert "\n" not in str(caught.value)
