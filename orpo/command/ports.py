"""Ports: find out before anything is loaded that one cannot be had."""

import errno
import socket

from orpo.command.errors import OutputError, SettingsError

LOCALHOST = "127.0.0.1"


def require_free_port(port: int, *, host: str = LOCALHOST, remedy: str = "choose another one with --port") -> None:
    """Raise an error of one line unless a server could listen there now; port 0 is always free."""
    if not 0 <= port <= 65535:
        raise SettingsError(f"port {port}: must be between 0 and 65535; {remedy}")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended holds nothing up
        try:
            trial.bind((host, port))
        except OSError as problem:
            if problem.errno in (errno.EADDRINUSE, errno.EACCES, errno.EPERM):
                raise OutputError(f"port {port} on {host} is in use or not allowed; {remedy}") from None
            raise OutputError(f"{host} is not an address of this machine; use 127.0.0.1") from None


def main(argv: list[str]) -> int:
    """Check the port that the Makefile was given."""
    port, remedy = argv
    if not port.isdecimal():
        raise SettingsError(f"PORT={port}: must be a number")
    require_free_port(int(port), remedy=remedy)
    return 0


if __name__ == "__main__":
    from orpo.command.run_command import run_command

    run_command(main)
