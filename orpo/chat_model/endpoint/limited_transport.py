"""HTTP whose whole answer has a limit in time and size; httpx limits only the wait for each next byte."""

import time
from collections.abc import Iterator
from typing import Final

import httpx

MOST_BYTES: Final = 4 * 2**20


def make_http_client(timeout_seconds: float) -> httpx.Client:
    """Return a client whose answers end after this time, and after `MOST_BYTES`, where the rest is cut off."""
    return httpx.Client(
        transport=_LimitedTransport(timeout_seconds),
        timeout=timeout_seconds,
        follow_redirects=True,
        headers={"Accept-Encoding": "identity"},  # a few compressed bytes could hold gigabytes
    )


class _LimitedTransport(httpx.HTTPTransport):
    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(trust_env=True)
        self._timeout_seconds = timeout_seconds

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + self._timeout_seconds
        response = super().handle_request(request)
        assert isinstance(response.stream, httpx.SyncByteStream)
        headers = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-encoding"]
        stream = _LimitedStream(response.stream, deadline)
        return httpx.Response(response.status_code, headers=headers, stream=stream, extensions=response.extensions)


class _LimitedStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        left = MOST_BYTES
        for chunk in self._stream:
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("the whole answer took too long")
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    def close(self) -> None:
        self._stream.close()
