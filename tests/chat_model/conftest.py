"""Real models made in the test process."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests import small_models


@pytest.fixture(scope="session")
def tiny_models() -> ModuleType:
    return small_models


@pytest.fixture(scope="session")
def tokenizer(tiny_models: ModuleType) -> Any:
    return tiny_models.make_tokenizer()


@pytest.fixture(scope="session")
def random_model(tiny_models: ModuleType, tokenizer: Any) -> Any:
    return tiny_models.make_model(len(tokenizer))


@pytest.fixture(scope="session")
def memorised_model(tiny_models: ModuleType, tokenizer: Any) -> Any:
    """A model that answers the prompts of `tiny_models.MEMORISED` by heart and ends."""
    return tiny_models.make_memorised(tokenizer)


@pytest.fixture
def tuned_model(tiny_models: ModuleType, tokenizer: Any) -> Any:
    return tiny_models.add_adapter(tiny_models.make_model(len(tokenizer)))


@pytest.fixture(scope="session")
def model_folder(tiny_models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def adapter_folder(tiny_models: ModuleType, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_adapter(tmp_path_factory.mktemp("adapters") / "run", model_folder)


@pytest.fixture(autouse=True)
def restore_random_state() -> Any:
    with torch.random.fork_rng(devices=[]):
        yield
