"""The answers that the scripted endpoint may give."""

from types import ModuleType

import pytest

from tests import chat_server as scripted


@pytest.fixture
def parts() -> ModuleType:
    return scripted
