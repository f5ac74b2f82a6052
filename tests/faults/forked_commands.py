"""Commands in processes of their own that start at once: forked from one process that has imported everything.

A command imports torch and transformers for five seconds and more; a suite of hundreds of starts would do nothing else.
What is forked is killed, runs out of disk and ends with an exit code as a command that a shell started.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]

_PARENT = """
import importlib, json, os, resource, signal, sys

from orpo.command.run_command import prepare_process, run_command
from orpo.command.signals import take_signals

prepare_process()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
answers = os.fdopen(os.dup(1), "w")
threads = [open(f"/proc/self/task/{number}/comm").read().strip() for number in os.listdir("/proc/self/task")]
print(json.dumps({"ready": threads}), file=answers, flush=True)
while line := sys.stdin.readline():
    asked = json.loads(line)
    if "wait" in asked:
        status = os.waitpid(asked["wait"], 0)[1]
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), file=answers, flush=True)
        continue
    # A command takes its signals in its first line; what is forked must not be stopped before it has come to that.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        print(json.dumps({"process": process}), file=answers, flush=True)
        continue
    answers.close()
    for number, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    take_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    os.chdir(asked["folder"])
    os.environ.update(asked["environment"])
    if asked["largest_file"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest_file"],) * 2)
    sys.argv = [asked["command"], *asked["arguments"]]
    run_command(importlib.import_module(f"orpo.{asked['command']}").main)
"""

_MODULES = {
    "generate": ["orpo.generate", "orpo.generating.run", "orpo.command.display", "openai"],
    "train": ["orpo.train", "orpo.training.run", "orpo.training.fast.trainer", "orpo.training.data"],
    "inference": ["orpo.inference", "orpo.comparing.run", "orpo.comparing.tables"],
}


@dataclass(frozen=True)
class Done:
    """How a command ended: below 0 by that signal."""

    code: int
    out: str
    err: str

    def error(self) -> str:
        """Return the line that tells a failure."""
        return next((line for line in self.err.splitlines() if line.startswith("error: ")), "")


class Running:
    """A command that runs."""

    def __init__(self, commands: "ForkedCommands", process: int, out: Path, err: Path) -> None:
        self.process = process
        self._commands, self._out, self._err = commands, out, err

    def kill(self, number: int) -> None:
        """Send a signal; harmless where it has ended."""
        os.kill(self.process, number)  # a zombie until it is waited for, so never another's number

    def has_ended(self) -> bool:
        """Tell whether it has ended, though nobody has waited for it yet."""
        state = Path(f"/proc/{self.process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        return state == "Z"

    def wait(self, seconds: float = 300.0) -> Done:
        """Return how it ended; one that does not is killed, and that is an error."""
        is_late = threading.Event()
        watch = threading.Timer(seconds, self._end, (is_late,))
        watch.start()
        try:
            code: int = self._commands.ask({"wait": self.process})["code"]
        finally:
            watch.cancel()
        out, err = (file.read_text(encoding="utf-8", errors="replace") for file in (self._out, self._err))
        assert not is_late.is_set(), f"did not end within {seconds} s; it said: {err}"
        return Done(code, out, err)

    def _end(self, is_late: threading.Event) -> None:
        is_late.set()
        self.kill(9)


class ForkedCommands:
    """Starts commands, each in a process of its own."""

    def __init__(self, parent: "subprocess.Popen[str]", folder: Path) -> None:
        self._parent, self._folder, self._count = parent, folder, 0

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Put a question to the process that forks."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(question) + "\n")
        self._parent.stdin.flush()
        answer: dict[str, Any] = json.loads(self._parent.stdout.readline())
        return answer

    def start(
        self,
        command: str,
        *arguments: object,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        largest_file: int = 0,
    ) -> Running:
        """Start a command, such as `train`; `largest_file` bytes and no more go into any file that it writes."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{name}" for name in ("out", "err"))
        for file in (out, err):  # the command may be killed before it has come to that
            file.touch()
        asked = {
            "command": command,
            "arguments": list(map(str, arguments)),
            "folder": str(folder or self._folder),
            "environment": dict(environment or {}),
            "largest_file": largest_file,
            "out": str(out),
            "err": str(err),
        }
        return Running(self, self.ask(asked)["process"], out, err)

    def run(self, command: str, *arguments: object, **further: Any) -> Done:
        """Start a command and wait for its end."""
        return self.start(command, *arguments, **further).wait()


@contextmanager
def forking(folder: Path, *commands: str) -> Iterator[ForkedCommands]:
    """Yield what starts these commands, until the block ends; their output is kept in the folder."""
    modules = sorted({name for command in commands for name in _MODULES[command]})
    environment = {**os.environ, "ORPO_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ORPO_DEBUG"):
        environment.pop(name, None)
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, json.dumps(modules)],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert parent.stdout is not None
        threads = json.loads(parent.stdout.readline())["ready"]
        # Arrow's allocator starts its own again after a fork; what else is forked would lack its threads.
        assert len([name for name in threads if not name.startswith("jemalloc")]) == 1, threads
        yield ForkedCommands(parent, folder)
    finally:
        assert parent.stdin is not None and parent.stdout is not None
        parent.stdin.close()
        parent.wait(timeout=60)
        parent.stdout.close()
