"""A small writer for the tests of this folder."""

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def writer_folder(parts: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = parts.save_writer(tmp_path_factory.mktemp("models") / "writer")
    return folder
