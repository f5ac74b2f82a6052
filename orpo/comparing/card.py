"""The table of a report in the model card of an adapter."""

import re
from pathlib import Path
from typing import Final

from orpo.command.markdown import table
from orpo.command.output_folder import write_whole
from orpo.comparing.comparison import Comparison
from orpo.comparing.tables import notes, with_interval, with_verdict

CARD_NAME: Final = "README.md"
_BEGIN: Final = "<!-- report: begin -->"
_END: Final = "<!-- report: end -->"
_SECTION: Final = re.compile(rf"{re.escape(_BEGIN)}.*?{re.escape(_END)}", flags=re.DOTALL)


def result_table(comparison: Comparison, number: int) -> str:
    """Return the main figures of the base and of one side as a Markdown table, with intervals."""
    base, ours = comparison.figures[0], comparison.figures[number]
    rows = [
        (
            measure.label,
            with_interval(measure, base.get(measure.key)),
            with_interval(measure, ours.get(measure.key)),
            with_verdict(measure, ours.get(measure.key)),
        )
        for measure in comparison.measures
        if measure.is_main
    ]
    return table(("measure", comparison.sides[0].name, "tuned", "difference"), rows)


def report_section(folder: Path) -> str:
    """Return the report's section of an adapter's card; empty where it has none."""
    file = folder / CARD_NAME
    found = _SECTION.search(file.read_text(encoding="utf-8")) if file.is_file() else None
    return found[0] if found else ""


def update_card(folder: Path, comparison: Comparison, number: int) -> None:
    """Put the table into an adapter's card, in place of an earlier one; a folder without a card gets one."""
    file = folder / CARD_NAME
    card = file.read_text(encoding="utf-8") if file.is_file() else f"# {folder.name}\n"
    section = "\n".join(
        [
            _BEGIN,
            "## Beside the base model",
            "",
            result_table(comparison, number),
            "",
            *(f"{note[0].upper()}{note[1:]}.  " for note in notes(comparison)),
            _END,
        ]
    )
    without = _SECTION.sub("", card).rstrip()
    write_whole(file, f"{without}\n\n{section}\n")
