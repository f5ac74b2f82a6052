"""Small real models with a context long enough for every held-out conversation."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import small_models


@pytest.fixture(autouse=True)
def own_cache(orpo_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is answered in the test's own home."""
    monkeypatch.setenv("ORPO_CACHE", str(orpo_home / "cache"))


@pytest.fixture(scope="session")
def tiny() -> Any:
    return small_models


@pytest.fixture(scope="session")
def model_folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny.save_model(tmp_path_factory.mktemp("models") / "tiny")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def adapter_folder(tiny: Any, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny.save_adapter(tmp_path_factory.mktemp("adapters") / "first", model_folder)
    return folder


@pytest.fixture
def trained(orpo_home: Path, adapter_folder: Path) -> Path:
    """A home in which a run has finished."""
    return Path(shutil.copytree(adapter_folder, orpo_home / "trained" / "first"))
