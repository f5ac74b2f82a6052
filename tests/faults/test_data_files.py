"""Files of pairs: read rightly, or refused in one line; and the commands end as the library does."""

import re
from pathlib import Path
from typing import Final

import pytest

from orpo.command.errors import InputError
from orpo.records.read_pairs import read_pairs
from tests.faults.data_files import DATA_FILES, DataFile, Read
from tests.faults.forked_commands import ForkedCommands

COMMANDS: Final = ("train",)


def write(folder: Path, name: str) -> tuple[Path, DataFile]:
    file = DATA_FILES[name]
    path = folder / file.name
    path.write_bytes(file.content)
    return path, file


@pytest.mark.faults("data files")
@pytest.mark.parametrize("name", DATA_FILES)
def test_a_file_is_read_rightly_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path, file = write(tmp_path, name)
    if isinstance(file.right, str):
        with pytest.raises(InputError, match=file.right) as caught:
            read_pairs(str(path))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        assert str(path) in str(caught.value)
        return
    pairs = read_pairs(str(path)).pairs
    prompt = tuple(message["content"] for message in pairs[0].prompt)
    assert Read(prompt, pairs[0].chosen_text, pairs[0].rejected_text, len(pairs)) == file.right


@pytest.mark.slow
@pytest.mark.faults("data files")
@pytest.mark.parametrize("name", DATA_FILES)
def test_train_ends_with_that_line_and_code_1(commands: ForkedCommands, tmp_path: Path, name: str) -> None:
    """What is read comes as far as the model, which is not there."""
    path, file = write(tmp_path, name)
    done = commands.run("train", "--data", path, "--model", tmp_path / "no-model", "--out", tmp_path / "out")
    assert done.code == 1 and "Traceback" not in done.err, done.err
    told = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    assert len(told) == 1 and told[0].startswith("error: ") and "\x1b" not in done.err
    assert re.search(file.right if isinstance(file.right, str) else "there is no such folder", told[0])
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
