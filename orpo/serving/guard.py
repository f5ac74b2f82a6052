"""Who may ask: the checks that stand before every request, and the headers on every answer.

A page of another site that is open in the user's browser must not be able to ask anything here: not by a name of its
own that points to this machine (DNS rebinding: the Host header tells), and not by a form or script (CSRF: the Origin
header and Sec-Fetch-Site tell). Whoever listens on more than this machine asks for a token too.
"""

import hmac
import ipaddress
import socket
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orpo.serving.api_errors import ApiError

PUBLIC_PATHS: Final = ("/", "/favicon.ico")
PUBLIC_FOLDER: Final = "/page/"
"""The page's own files: they hold nothing of the user's, and bring the form in which a token is typed."""

_SAFE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Tell whether an address to listen on is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


@dataclass(frozen=True)
class Admission:
    """Whom to let in.

    Attributes:
        host: The address that the server listens on.
        names: Further names by which it may be called.
        token: What every request must bring; None on loopback.
        most_bytes: The largest body.
    """

    host: str
    names: tuple[str, ...] = ()
    token: str | None = None
    most_bytes: int = 2**18

    def problem(self, scope: Scope) -> ApiError | None:
        """Return why a request is refused, if it is."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own_name(host):
            return ApiError(421, "this server is not known by that name; `allow_host` adds one", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return ApiError(403, "pages of other sites may not ask here", code="wrong_origin")
        is_page = scope["path"] in PUBLIC_PATHS or scope["path"].startswith(PUBLIC_FOLDER)
        if not is_page and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return ApiError(403, "pages of other sites may not ask here", code="wrong_origin")
        if not is_page and not self._has_token(headers.get("authorization", "")):
            return ApiError(
                401, "send the token that the server printed as Authorization: Bearer", code="invalid_api_key"
            )
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal() or int(length) > self.most_bytes:
            return self.too_large()
        return None

    def too_large(self) -> ApiError:
        """Return the error for a body that is too large."""
        return ApiError(413, f"the request is larger than {self.most_bytes // 1024} kB", code="too_large")

    def _is_own_name(self, host: str) -> bool:
        name = _without_port(host)
        if name in {one.lower() for one in self.names}:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            own = ("localhost",) if is_loopback(self.host) else ("localhost", socket.gethostname().lower())
            return name in own
        # An address in numbers is no name that somebody could point elsewhere.
        return address.is_loopback or not is_loopback(self.host)

    def _has_token(self, authorization: str) -> bool:
        if self.token is None:
            return True
        kind, _, given = authorization.partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token.encode())


class Guard:
    """The checks as a layer around an application."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        """Guard this application."""
        self._app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._admission.problem(scope)
        if problem is not None:
            await problem.response()(scope, receive, send_safely)
            return
        arrived = 0

        async def receive_little() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self._admission.most_bytes:
                raise self._admission.too_large()
            return message

        await self._app(scope, receive_little, send_safely)


def _without_port(host: str) -> str:
    """Return the name in a Host header: `[::1]:8000` is `::1`."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host
