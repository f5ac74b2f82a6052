"""docs/scoring.md says what the code says."""

import subprocess
import sys
from pathlib import Path


def test_the_page_of_scored_examples_is_what_the_code_gives(repository: Path) -> None:
    script = repository / "docs" / "make_scoring_page.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_shipped_model_is_small(repository: Path) -> None:
    data = repository / "orpo" / "scoring" / "data"
    sizes = {file.name: file.stat().st_size for file in data.iterdir()}
    assert sizes["encoder.npz"] < 4_000_000
    assert sum(sizes.values()) < 8_000_000
