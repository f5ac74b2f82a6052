"""What all tests share: few threads, no network, a home of their own, and the embedded base model."""

import os

# Before any library is imported: they read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["CUDA_MODULE_LOADING"] = "LAZY"

from pathlib import Path

import pytest

from orpo.running.places import embedded_model_folder as find_embedded_model_folder

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose data or device is not at hand, with the reason."""
    for item in items:
        if item.get_closest_marker("shared_data") and not SHARED_DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason="../shared/data is not there"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def orpo_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test, and the commands it starts, an empty home, so that none reads or writes the checkout's."""
    home = tmp_path / "orpo_home"
    monkeypatch.setenv("ORPO_HOME", str(home))
    monkeypatch.delenv("ORPO_DEBUG", raising=False)
    return home


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the checkout under test."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return ../shared/data; for tests with the marker `shared_data`."""
    return SHARED_DATA


@pytest.fixture(scope="session")
def embedded_model_folder() -> Path:
    """Return the folder of the base model that comes with the package."""
    folder = find_embedded_model_folder()
    if not (folder / "config.json").is_file():
        pytest.skip("the embedded base model is not built yet (recipes/base_model)")
    return folder


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
