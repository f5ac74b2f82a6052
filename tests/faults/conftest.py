"""What the fault tests of one file share: a process that forks its `COMMANDS`, and a model to train."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.forked_commands import ForkedCommands, forking
from tests.small_models import save_chat_model


@pytest.fixture(scope="module")
def commands(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCommands]:
    with forking(tmp_path_factory.mktemp("commands"), *request.module.COMMANDS) as forked:
        yield forked


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "tiny")
