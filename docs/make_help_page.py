"""Write docs/help.md: the help of every command, as the command prints it.

uv run docs/make_help_page.py           # writes the page
uv run docs/make_help_page.py --check   # fails if the page is not what the commands print
"""

import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("help.md")
PACKAGE = Path(__file__).parents[1] / "orpo"


def make_page() -> str:
    """Return the page."""
    parts = [
        "# The commands and their flags\n\nMade by `uv run docs/make_help_page.py`; a test keeps it as it should be.\n"
    ]
    for command in sorted(file for file in PACKAGE.glob("*.py") if file.stem != "__init__"):
        help_text = subprocess.run(
            [sys.executable, command, "--help"], capture_output=True, text=True, check=True
        ).stdout
        parts.append(f"## {command.name}\n\n```\n{help_text.strip()}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or compare it."""
    page = make_page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page:
        print(
            "error: docs/help.md is not what the commands print; run `uv run docs/make_help_page.py`", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
