"""Small real models with a context long enough for every held-out conversation."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

_TESTS = Path(__file__).parents[1]


def _load(file: Path) -> Any:
    """Load a module by its path, because the tests are no package."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


_load(_TESTS / "comparing" / "given_sides.py")


@pytest.fixture(autouse=True)
def own_cache(orpo_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is answered in the test's own home."""
    monkeypatch.setenv("ORPO_CACHE", str(orpo_home / "cache"))


@pytest.fixture(scope="session")
def tiny() -> Any:
    return _load(_TESTS / "chat_model" / "tiny_models.py")


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
