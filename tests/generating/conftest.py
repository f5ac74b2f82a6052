"""A scripted endpoint and a small writer for the tests of this folder."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def parts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("writing_parts", Path(__file__).with_name("writing_parts.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["writing_parts"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def chat_server(parts: ModuleType) -> Iterator[Any]:
    with parts.serve_chat() as server:
        yield server


@pytest.fixture(scope="session")
def writer_folder(parts: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = parts.save_writer(tmp_path_factory.mktemp("models") / "writer")
    return folder
