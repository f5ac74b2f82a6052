"""What all tests share: few threads, no network, a home of their own, and the embedded base model."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Before any library is imported: they read these once.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # not as a default: a worker inherits the 2 of the process that started it
else:
    os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["CUDA_MODULE_LOADING"] = "LAZY"
# The default model is converted once, not in the home of each test.
os.environ["ORPO_CACHE"] = str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "d" / "orpo")

import shutil
import signal
import sys
from importlib.util import find_spec

import pytest

from tests import writing_parts
from tests.faults.table import note_kind, tell

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def keep_bytecode() -> None:
    """Compile torch and transformers once and not in every process, where nobody else has kept their bytecode.

    With PYTHONDONTWRITEBYTECODE (Docker images set it) and packages that came without bytecode (uv installs them so),
    each command that a test starts, and each worker, spent two thirds of its start on compiling the same files.
    """
    torch = find_spec("torch")
    is_kept = torch is not None and torch.cached is not None and Path(torch.cached).is_file()
    if sys.dont_write_bytecode and sys.pycache_prefix is None and not is_kept:
        sys.dont_write_bytecode = False
        sys.pycache_prefix = str(REPOSITORY / ".pytest_cache" / "d" / "bytecode")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix


keep_bytecode()
# A shell without job control starts its background jobs deaf to Ctrl-C, and so would every command started here be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests whose data or device is not at hand, with the reason."""
    for item in items:
        note_kind(item)
        if item.get_closest_marker("shared_data") and not SHARED_DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason="../shared/data is not there"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let `make faults` end with its table."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if (
        "faults" in (config.option.markexpr or "").split()
        and reporter is not None
        and not hasattr(config, "workerinput")
    ):
        reports = [one for group in reporter.stats.values() for one in group if isinstance(one, pytest.TestReport)]
        print("", *tell(reports), sep="\n")


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
def parts() -> ModuleType:
    """Return the parts of a scripted endpoint and of a small writer."""
    return writing_parts


@pytest.fixture
def chat_server() -> Iterator[Any]:
    """Return a real endpoint on 127.0.0.1 that answers from a script."""
    with writing_parts.serve_chat() as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return the Chromium that is installed, headless."""
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if installed is None:
        pytest.skip("no Chromium is installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return ../shared/data; for tests with the marker `shared_data`."""
    return SHARED_DATA


@pytest.fixture(scope="session")
def default_model_folder() -> Path:
    """Return the folder of the default model, converted once for all test runs of this checkout."""
    from orpo.chat_model.default_model import default_model_folder as find_default_model_folder

    return find_default_model_folder()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
