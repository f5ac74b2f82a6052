"""A command of a few lines, run as a process of its own, as a user runs one."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path


def write_command(folder: Path, body: str) -> Path:
    file = folder / "command.py"
    lines = [
        "import os, sys",
        "from orpo.command.run_command import run_command",
        "from orpo.command.errors import *",
        "def main(argv):",
        textwrap.indent(textwrap.dedent(body), "    "),
        "run_command(main)",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def run(folder: Path, body: str, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, write_command(folder, body), *argv],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        timeout=60,
    )
