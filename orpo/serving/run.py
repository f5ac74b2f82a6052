"""From the settings of `serve` to a server that runs until it is stopped."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orpo.command.display import console_err, console_out, print_warnings
from orpo.command.errors import InputError, SettingsError
from orpo.command.paths import data_folder, resolve_user_path
from orpo.command.ports import require_free_port
from orpo.serving.guard import Admission, is_loopback
from orpo.serving.judgements import STORE_NAME, JudgementStore
from orpo.serving.settings import ServeSettings

if TYPE_CHECKING:
    import uvicorn

    from orpo.serving.models import ServedModels
    from orpo.serving.votes import ExportedVotes

TOKEN_VARIABLE: Final = "ORPO_SERVE_TOKEN"
_SHORTEST_TOKEN: Final = 16
_CLOSING_SECONDS: Final = 2
# Before a connection that asks nothing is closed: uvicorn's 5 are fewer than a busy machine may let a client sleep, and
# a request that meets the closing connection is lost.
_IDLE_SECONDS: Final = 75


def export(settings: ServeSettings) -> "ExportedVotes":
    """Write the votes as preference pairs."""
    from orpo.serving.votes import export_votes

    assert settings.export_votes is not None
    file = _store_file(settings)
    if not file.is_file():
        raise InputError(f"{file}: there are no votes yet; vote on the page of `uv run orpo/serve.py` first")
    folder = resolve_user_path(settings.export_votes)
    return export_votes(JudgementStore(file), folder, overwrite=settings.overwrite)


def _store_file(settings: ServeSettings) -> Path:
    return data_folder() / STORE_NAME if settings.store is None else resolve_user_path(settings.store)


def run_server(settings: ServeSettings) -> None:
    """Answer until Ctrl-C; the page is there at once, and the models are loaded meanwhile."""
    require_free_port(settings.port, host=settings.host)
    admission, is_made = _admission(settings)

    import uvicorn

    from orpo.serving.application import make_application
    from orpo.serving.engine import Engine
    from orpo.serving.models import find_models
    from orpo.serving.service import Service

    catalogue = find_models(settings)
    print_warnings(catalogue.notes)

    def load() -> "ServedModels":
        from orpo.serving.models import ServedModels

        return ServedModels(catalogue, settings.base)

    def say_ready() -> None:
        console_err.print(f"ready: {', '.join(catalogue.ids)}", soft_wrap=True)

    def stop() -> None:
        server.should_exit = True

    engine = Engine(
        load,
        slots=settings.base.batch_size,
        most_waiting=settings.limits.max_waiting,
        on_loaded=say_ready,
        on_failure=stop,
    )
    store = JudgementStore(_store_file(settings))
    data = tuple(settings.data)
    service = Service(catalogue, engine, store, settings.sampling, settings.limits, settings.base, data)
    config = uvicorn.Config(
        make_application(service, admission),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=_CLOSING_SECONDS,
        timeout_keep_alive=_IDLE_SECONDS,
    )
    server = _own_server(
        config, lambda port: _announce(settings, port, admission.token if is_made else None), engine.begin_to_stop
    )
    engine.start()
    try:
        server.run()
    except KeyboardInterrupt as stopped:
        stopped.add_note(f"votes and reviews are kept in {store.file}; the same command serves them again")
        raise
    finally:
        engine.stop()
        store.close()
    if engine.failure is not None:
        raise engine.failure


def _admission(settings: ServeSettings) -> tuple[Admission, bool]:
    """Return whom to let in, and whether the token was made here."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip() or None
    if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise SettingsError(
            f"{TOKEN_VARIABLE}: must be at least {_SHORTEST_TOKEN} letters and digits; or leave it unset"
        )
    is_made = token is None and not is_loopback(settings.host)
    names = tuple(name.strip().lower() for name in settings.allow_host)
    made = secrets.token_urlsafe(24) if is_made else token
    return Admission(settings.host, names, made, settings.limits.max_body_kb * 1024), is_made


def _own_server(
    config: "uvicorn.Config", announce: Callable[[int], None], before_shutdown: Callable[[], None]
) -> "uvicorn.Server":
    """Return a server that says where it listens as soon as it does, and ends what it answers before it closes."""
    import socket

    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for server in self.servers:
                announce(server.sockets[0].getsockname()[1])
                break

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            before_shutdown()  # else uvicorn waits, cancels what is being answered, and prints tracebacks
            await super().shutdown(sockets)

    return Server(config)


def _announce(settings: ServeSettings, port: int, made_token: str | None) -> None:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    end = f"/#token={made_token}" if made_token else "/"
    console_out.print(f"page      http://{host}:{port}{end}", soft_wrap=True)
    console_out.print(f"endpoint  http://{host}:{port}/v1", soft_wrap=True)
    if made_token:
        console_out.print(f"token     {made_token}   (shown once; {TOKEN_VARIABLE} sets one)", soft_wrap=True)
    console_err.print("loading the models; Ctrl-C stops", soft_wrap=True)
