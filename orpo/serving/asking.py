"""Between the engine's thread and a request: events as they come, and no further ones once the client has gone."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orpo.serving.engine import Engine
from orpo.serving.jobs import Event, Failed, Finished, Job

Result = TypeVar("Result")
MakeJob = Callable[[Callable[[Event], None]], Job]


async def ask(engine: Engine, makers: Sequence[MakeJob]) -> AsyncGenerator[tuple[int, Event], None]:
    """Yield (which job, event) until every job is finished or one has failed; leaving early cancels them all.

    Each maker gets the function that its job tells its events.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

    def teller(number: int) -> Callable[[Event], None]:
        def tell(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the server has stopped
                loop.call_soon_threadsafe(events.put_nowait, (number, event))

        return tell

    jobs = [make(teller(number)) for number, make in enumerate(makers)]
    engine.submit(jobs)
    left = len(jobs)
    try:
        while left:
            number, event = await events.get()
            yield number, event
            if isinstance(event, Failed):
                return
            left -= isinstance(event, Finished)
    finally:
        if left:
            for job in jobs:
                engine.cancel(job)


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Return what the work comes to; ClientGoneError, and the work is cancelled, where the client leaves before."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGoneError
    finally:
        for one in (task, gone):
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await one


class EventStream(Response):
    """An answer in server-sent events; a client that goes away closes the iterator of its lines at once."""

    media_type = "text/event-stream"

    def __init__(self, lines: AsyncGenerator[str, None]) -> None:
        """Answer with these, each the data of one event."""
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client leaves."""
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for one in (sending, gone):
                one.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await one
            await self._lines.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for line in self._lines:
            await send({"type": "http.response.body", "body": f"data: {line}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
