"""A port in use is found before anything is loaded."""

import socket

import pytest

from orpo.command.errors import OrpoError, OutputError, SettingsError
from orpo.command.ports import main, require_free_port


def test_a_port_in_use_is_named_with_the_remedy() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(OutputError, match=f"port {port} .*--port"):
            require_free_port(port)
        with pytest.raises(OutputError, match="PORT=6007"):
            main([str(port), "make tensorboard PORT=6007"])
    require_free_port(port)
    assert main([str(port), ""]) == 0


def test_a_port_that_is_no_port_is_a_settings_error() -> None:
    for port in (-1, 70_000):
        with pytest.raises(SettingsError, match=str(port)):
            require_free_port(port)
    with pytest.raises(SettingsError, match="PORT=x"):
        main(["x", ""])


def test_a_host_that_is_not_this_machine_is_named() -> None:
    with pytest.raises(OrpoError, match=r"192\.0\.2\.1 is not an address"):
        require_free_port(0, host="192.0.2.1")
