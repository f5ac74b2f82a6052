"""What the fault suite ends with: how many cases of each kind were tried, and how many came out right."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import pytest

WANTED: Final = {
    "kills of generate": 50,
    "kills of train": 50,
    "damaged checkpoints": 17,
    "full disks": 9,
    "endpoint answers": 40,
    "data files": 60,
    "chat templates": 30,
    "model and adapter folders": 20,
    "keys and addresses": 15,
}
"""The kinds of faults, and how many cases of each there are to be at least."""

_PROPERTY: Final = "faults"


def note_kind(item: pytest.Item) -> None:
    """Write the kind of fault and the number of cases that a test stands for into its report."""
    if mark := item.get_closest_marker("faults"):
        kind = mark.args[0]
        assert kind in WANTED, f"{item.nodeid}: {kind!r} is no kind of fault"
        item.user_properties.append((_PROPERTY, [kind, mark.kwargs.get("cases", 1)]))


def tell(reports: Iterable[pytest.TestReport]) -> list[str]:
    """Return the table's lines; one that says NOT ENOUGH where cases are missing, failed or were skipped."""
    tried: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for report in reports:
        for name, value in report.user_properties:
            if name == _PROPERTY and isinstance(value, list | tuple) and (report.when == "call" or not report.passed):
                kind, cases = value
                tried[kind] += cases
                right[kind] += cases if report.passed else 0
    lines = [f"{'fault':28}{'wanted':>8}{'tried':>8}{'right':>8}"]
    for kind, wanted in WANTED.items():
        enough = right[kind] == tried[kind] >= wanted
        lines.append(f"{kind:28}{wanted:8}{tried[kind]:8}{right[kind]:8}{'' if enough else '  NOT ENOUGH'}")
    return lines
