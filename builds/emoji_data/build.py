"""Build the emoji table that the package ships from Unicode's own file.

    python builds/emoji_data/build.py --emoji-test emoji-test.txt.gz

The input is `emoji-test.txt` of https://www.unicode.org/Public/emoji/ (plain or gzip); emojis newer than that file come
from the table of the installed `emoji` package. The output is `orpo/scoring/data/emojis.tsv.gz`, one line per
fully-qualified emoji: the sequence, the emoji version that brought it, `text` where its bare character is a sign of
running text, and its name. The same input gives the same bytes.
"""

import argparse
import gzip
import re
from pathlib import Path

import emoji

OUTPUT = Path(__file__).resolve().parents[2] / "orpo" / "scoring" / "data" / "emojis.tsv.gz"

# Signs that belong to running text. Bare, they are text; VS16 makes them emojis. Pictures such as a bare U+2764 heart
# are emojis: platforms show them so in chat, and people type them bare.
TEXT_SIGNS = set(
    "\u00a9\u00ae\u2122"  # copyright, registered, trade mark
    "\u2194\u2195\u2196\u2197\u2198\u2199\u21a9\u21aa\u2934\u2935\u27a1\u2b05\u2b06\u2b07"  # arrows
    "\u25b6\u25c0\u25aa\u25ab\u25fb\u25fc"  # triangles and squares, often bullets
    "\u203c\u2049\u2139\u24c2\u3030\u303d\u3297\u3299"  # !!, !?, i, M, wavy dash, part mark, circled ideographs
    "\u2640\u2642\u26a7\u2695\u267e\u2716"  # female, male, transgender, medicine, infinity, times
)

LINE = re.compile(r"^([0-9A-F ]+?)\s*;\s*([a-z-]+)\s*# \S+ E(\d+\.\d+) (.+)$")


def read_text(path: Path) -> str:
    """Read a text file, plain or gzip."""
    data = path.read_bytes()
    return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")


def read_rows(text: str) -> list[tuple[str, str, str, str]]:
    """Return (sequence, version, bare kind, name) for each fully-qualified emoji."""
    rows: list[tuple[str, str, str, str]] = []
    for match in filter(None, map(LINE.match, text.splitlines())):
        if match[2] == "fully-qualified":
            sequence = "".join(chr(int(code, 16)) for code in match[1].split())
            kind = "text" if sequence.replace("\ufe0f", "") in TEXT_SIGNS else ""
            rows.append((sequence, match[3], kind, match[4]))
    return rows


def newer_rows(listed: set[str]) -> list[tuple[str, str, str, str]]:
    """Return the `emoji` package's fully-qualified emojis that the file lacks."""
    return [
        (sequence, f"{float(entry['E']):.1f}", "", entry["en"].strip(":").replace("_", " "))
        for sequence, entry in sorted(emoji.EMOJI_DATA.items())
        if entry["status"] == emoji.STATUS["fully_qualified"] and sequence not in listed
    ]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji-test", type=Path, required=True, help="Unicode's emoji-test.txt, plain or gzip")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    rows = read_rows(read_text(arguments.emoji_test))
    rows += newer_rows({row[0] for row in rows})
    body = "".join("\t".join(row) + "\n" for row in rows).encode("utf-8")
    arguments.output.write_bytes(gzip.compress(body, compresslevel=9, mtime=0))
    print(f"{len(rows)} emojis, {arguments.output.stat().st_size} bytes: {arguments.output}")


if __name__ == "__main__":
    main()
