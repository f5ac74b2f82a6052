"""Seventy files of preference pairs as people bring them: what is in each, and what is right for it.

Right is the first pair's texts, or a pattern of the one line that refuses the file.
"""

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

YES, NO = "Yes 🎉", "No."
PAIR: Final = {"prompt": "Hi", "chosen": YES, "rejected": NO}
LONG_LINE: Final = "z" * 2_000_001


@dataclass(frozen=True)
class Read:
    """The prompt's messages and the replies of the first pair, and how many pairs there are."""

    prompt: tuple[str, ...] = ("Hi",)
    chosen: str = YES
    rejected: str = NO
    count: int = 1


@dataclass(frozen=True)
class DataFile:
    """A file's name, its bytes, and what is right for it; a text is the pattern of a refusal."""

    name: str
    content: bytes
    right: Read | str


def lines(*rows: Any) -> bytes:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def row(**changes: Any) -> bytes:
    """Return one pair with these columns changed; None leaves a column out."""
    return lines({name: value for name, value in {**PAIR, **changes}.items() if value is not None})


def talk(*turns: tuple[str, str]) -> list[dict[str, str]]:
    """Return chat messages."""
    return [{"role": role, "content": content} for role, content in turns]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Return rows as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def damaged(content: bytes, start: int) -> bytes:
    """Return bytes with 60 of them overwritten."""
    return content[:start] + b"\xff" * 60 + content[start + 60 :]


HORSES: Final = [("user", "What do horses eat?"), ("assistant", "Hay."), ("user", "And treats?")]
TREATS: Final = Read(("What do horses eat?", "Hay.", "And treats?"))
BOTH: Final = {"chosen": talk(*HORSES, ("assistant", YES)), "rejected": talk(*HORSES, ("assistant", NO))}
HH: Final = "\n\nHuman: What do horses eat?\n\nAssistant: Hay.\n\nHuman: And treats?\n\nAssistant: "
CSV: Final = "prompt,chosen,rejected\n"
PANDAS: Final = "\"[{'content': 'Tell me a joke', 'role': 'user'}]\""

_MAKERS: Final[dict[str, Callable[[], DataFile]]] = {
    # forms of files
    "JSON lines": lambda: DataFile("a.jsonl", lines(PAIR, PAIR), Read(count=2)),
    "JSON lines of another name": lambda: DataFile("a.ndjson", lines(PAIR), Read()),
    "a JSON array": lambda: DataFile("a.json", json.dumps([PAIR]).encode(), Read()),
    "an array in .jsonl": lambda: DataFile("a.jsonl", json.dumps([PAIR, PAIR]).encode(), Read(count=2)),
    "a JSON object of a table": lambda: DataFile("a.json", json.dumps({"data": [PAIR]}).encode(), Read()),
    "packed": lambda: DataFile("a.jsonl.gz", gzip.compress(lines(PAIR)), Read()),
    "packed, cut off": lambda: DataFile("a.jsonl.gz", gzip.compress(lines(PAIR))[:-9], "not a gzip file, or it is dam"),
    "not packed at all": lambda: DataFile("a.jsonl.gz", lines(PAIR), "not a gzip file"),
    "a byte order mark": lambda: DataFile("a.jsonl", b"\xef\xbb\xbf" + lines(PAIR), Read()),
    "UTF-16": lambda: DataFile("a.jsonl", lines(PAIR).decode().encode("utf-16"), Read()),
    "UTF-16 without a mark": lambda: DataFile("a.jsonl", lines(PAIR).decode().encode("utf-16-le"), Read()),
    "UTF-32": lambda: DataFile("a.jsonl", lines(PAIR).decode().encode("utf-32"), Read()),
    "Latin-1": lambda: DataFile("a.jsonl", b'{"prompt": "caf\xe9"}', "is not UTF-8 text .byte"),
    "zero bytes": lambda: DataFile("a.jsonl", b"\0\0\0\0" * 8, "zero bytes, so it is not a text file"),
    "Windows' line ends": lambda: DataFile("a.jsonl", lines(PAIR, PAIR).replace(b"\n", b"\r\n"), Read(count=2)),
    "blank lines between": lambda: DataFile("a.jsonl", lines(PAIR) + b"\n  \n" + lines(PAIR), Read(count=2)),
    "a line separator within": lambda: DataFile(
        "a.jsonl", json.dumps({**PAIR, "prompt": "a\u2028b"}, ensure_ascii=False).encode(), Read(("a\u2028b",))),
    "nothing": lambda: DataFile("a.jsonl", b"", "holds no rows"),
    "only blanks": lambda: DataFile("a.jsonl", b" \n\n", "holds no rows"),
    "an unknown ending": lambda: DataFile("a.xlsx", b"PK", "its name must end in one of"),
    "CSV": lambda: DataFile("a.csv", (CSV + f"Hi,{YES},{NO}\n").encode(), Read()),
    "TSV": lambda: DataFile("a.tsv", (CSV.replace(",", "\t") + f"Hi\t{YES}\t{NO}\n").encode(), Read()),
    "CSV with a line break in a cell": lambda: DataFile(
        "a.csv", (CSV + f'"Hi\nyou",{YES},{NO}\n').encode(), Read(("Hi\nyou",))),
    "CSV with a cell too many": lambda: DataFile("a.csv", (CSV + "Hi,a,b,c\n").encode(), "has 4 cells where .* in lin"),
    "CSV with an open quote": lambda: DataFile("a.csv", (CSV + '"Hi,a,b\n').encode(), "is not CSV"),
    "CSV with a column twice": lambda: DataFile("a.csv", b"prompt,prompt\na,b\n", "two columns have the same name"),
    "CSV with what pandas made of messages": lambda: DataFile(
        "a.csv", (CSV + f"{PANDAS},{YES},{NO}\n").encode(), Read(("Tell me a joke",))),
    "CSV with semicolons, as Excel's": lambda: DataFile(
        "a.csv", (CSV.replace(",", ";") + f"Hi;{YES};{NO}\n").encode("utf-8-sig"), Read()),
    "CSV with tabs in UTF-16, as Excel's": lambda: DataFile(
        "a.csv", (CSV.replace(",", "\t") + f"Hi\t{YES}\t{NO}\n").encode("utf-16"), Read()),
    "CSV with pandas' nan": lambda: DataFile("a.csv", (CSV + f"Hi,nan,{NO}\n").encode(), "chosen is null in line 2"),
    "CSV with numpy's array of messages": lambda: DataFile(
        "a.csv", (CSV + f'"array({PANDAS[1:-1]}, dtype=object)",{YES},{NO}\n').encode(),
        Read(("Tell me a joke",))),
    "CSV with messages that have an id": lambda: DataFile(
        "a.csv", (CSV + PANDAS.replace("{", "{'id': 1, ") + f",{YES},{NO}\n").encode(), Read(("Tell me a joke",))),
    "CSV with messages that Excel cut off": lambda: DataFile(
        "a.csv", (CSV + PANDAS[:40] + f'",{YES},{NO}\n').encode(), "messages as text that is cut off in line 2"),
    "Parquet": lambda: DataFile("a.parquet", parquet([PAIR, PAIR]), Read(count=2)),
    "Parquet with messages": lambda: DataFile("a.parquet", parquet([{"prompt": talk(*HORSES[:1]), **BOTH}]), TREATS),
    "Parquet with a damaged page": lambda: DataFile(
        "a.parquet", damaged(parquet([PAIR] * 50), 8), "not a Parquet file, or it is damaged|cannot be read|not UTF"),
    "Parquet, cut off": lambda: DataFile("a.parquet", parquet([PAIR])[:-30], "not a Parquet file, or it is damaged"),
    "text that calls itself Parquet": lambda: DataFile("a.parquet", lines(PAIR), "not a Parquet file, or it is damag"),
    # forms of rows
    "the prompt is the first user turn": lambda: DataFile("a.jsonl", lines(
        {"prompt": "What do horses eat?", **BOTH}), TREATS),
    "no prompt, whole conversations": lambda: DataFile("a.jsonl", lines(BOTH), TREATS),
    "a prompt of something else": lambda: DataFile("a.jsonl", lines({"prompt": "Else", **BOTH}), "not hold prompt"),
    "a dialogue within text": lambda: DataFile("a.jsonl", lines({"chosen": HH + YES, "rejected": HH + NO}), TREATS),
    "the prompt has other line ends": lambda: DataFile("a.jsonl", lines(
        {"prompt": "What do\r\nhorses eat?", **BOTH}), TREATS),
    "conversations that end with the user": lambda: DataFile("a.jsonl", row(
        prompt=None, chosen=talk(*HORSES), rejected=talk(*HORSES)), "chosen ends with the role user in line 1"),
    "a dialogue of single lines": lambda: DataFile("a.jsonl", row(
        prompt="Human: Hi\nAssistant:", chosen=f" {YES}", rejected=f" {NO}"), Read()),
    "a system column": lambda: DataFile("a.jsonl", row(system="Be a pirate."), Read(("Be a pirate.", "Hi"))),
    "two system prompts": lambda: DataFile("a.jsonl", row(
        system="a", prompt=talk(("system", "b"), ("user", "Hi"))), "hold two system prompts in line 1"),
    "an input column": lambda: DataFile("a.jsonl", row(input="you there"), Read(("Hi\n\nyou there",))),
    "an input of a word that the instruction holds": lambda: DataFile("a.jsonl", row(
        prompt="Is no a noun?", input="no"), Read(("Is no a noun?\n\nno",))),
    "an input that the instruction ends with": lambda: DataFile("a.jsonl", row(
        prompt="In French: cat", input="cat"), Read(("In French: cat",))),
    "an input that is a number": lambda: DataFile("a.jsonl", row(prompt="Odd?", input=7), Read(("Odd?\n\n7",))),
    "an input that is a list": lambda: DataFile("a.jsonl", row(input=["a b"]), "input is not text, but a list in line"),
    "half a character in the input": lambda: DataFile("a.jsonl", row(input="\ud83c"), "input holds half of a char"),
    "names in capitals": lambda: DataFile("a.jsonl", lines(
        {"Prompt": "Hi", "Chosen": YES, "Rejected": NO, "System": "Be."}), Read(("Be.", "Hi"))),
    "blanks after the commas of a CSV's names": lambda: DataFile(
        "a.csv", f"prompt, chosen, rejected\nHi,{YES},{NO}\n".encode(), Read()),
    "a question": lambda: DataFile("a.jsonl", row(prompt=None, question="Hi"), Read()),
    "ShareGPT's conversations": lambda: DataFile("a.jsonl", row(
        prompt=None, conversations=[{"from": "human", "value": "Hi"}]), Read()),
    "replies of other names": lambda: DataFile("a.jsonl", lines(
        {"instruction": "Hi", "chosen_response": YES, "rejected_response": NO}), Read()),
    "no replies": lambda: DataFile("a.jsonl", lines({"prompt": "Hi", "answer": "a"}), "no column 'chosen' and no colu"),
    "text in parts": lambda: DataFile("a.jsonl", row(
        prompt=[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]), Read()),
    "an image in parts": lambda: DataFile("a.jsonl", row(
        prompt=[{"role": "user", "content": [{"type": "image_url"}]}]), "a part of the type 'image_url' in line 1"),
    "a role that is a list": lambda: DataFile("a.jsonl", row(
        prompt=[{"role": ["user"], "content": "Hi"}]), "whose role is a list in line 1"),
    "an unknown role": lambda: DataFile("a.jsonl", row(prompt=talk(("tool", "x"))), "has the role 'tool' in line 1"),
    "an empty object": lambda: DataFile("a.jsonl", row(prompt={}), "a message without role and content in line 1"),
    "two user turns": lambda: DataFile("a.jsonl", row(prompt=talk(("user", "a"), ("user", "b"))), "must take turns"),
    # values
    "a null reply": lambda: DataFile("a.jsonl", lines({**PAIR, "chosen": None}, PAIR), "chosen is null in line 1"),
    "a blank reply": lambda: DataFile("a.jsonl", row(chosen="  "), "chosen is empty in line 1"),
    "a tie": lambda: DataFile("a.jsonl", row(rejected=YES + " "), "are the same in line 1"),
    "half a character": lambda: DataFile("a.jsonl", row(chosen="Woo \ud83c"), "half of a character .* in line 1"),
    "half a character in an id": lambda: DataFile("a.jsonl", row(prompt_id="\ud83c"), Read()),
    "deep nesting": lambda: DataFile("a.jsonl", lines(PAIR) + b"[" * 100_000, "nested too deeply in line 2"),
    "a number of 6,000 digits": lambda: DataFile("a.jsonl", b'{"prompt": ' + b"9" * 6000 + b"}", "thousands of digits"),
    "a message without end": lambda: DataFile("a.jsonl", row(prompt=LONG_LINE), "more than 2,000,000 characters in l"),
    "a conversation without end": lambda: DataFile("a.jsonl", row(
        prompt=talk(*[("user", LONG_LINE[::2]), ("assistant", "a")] * 3, ("user", "b"))), "00 characters in all"),
    "a line cut off": lambda: DataFile("a.jsonl", lines(PAIR) + b'{"prompt": "a', "is not JSON: .* in line 2"),
    "a line that is a number": lambda: DataFile("a.jsonl", lines(PAIR, 3), "but a number in line 2"),
    "an escape sequence in a column's name": lambda: DataFile(
        "a.jsonl", lines({"\x1b[2Jprompt": "Hi"}), "no column 'chosen'"),
    "an infinite score": lambda: DataFile("a.jsonl", lines(PAIR)[:-2] + b', "chosen_score": 1e999}', Read()),
    "Excel's NaN": lambda: DataFile("a.jsonl", b'{"prompt": "Hi", "chosen": NaN, "rejected": "No."}', "chosen is null"),
}  # fmt: skip

DATA_FILES: Final = {name: make() for name, make in _MAKERS.items()}
