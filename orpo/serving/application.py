"""The application: every route, and the guard around them."""

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from orpo.serving.api_errors import ApiError, answer_error
from orpo.serving.completions import completion_routes
from orpo.serving.guard import Admission, Guard
from orpo.serving.jobs import BusyError
from orpo.serving.service import Service

PAGE_FOLDER: Final = Path(__file__).with_name("page")


def make_application(service: Service, admission: Admission) -> Starlette:
    """Return the application."""
    return Starlette(
        routes=[
            Route("/", _page),
            Mount("/page", StaticFiles(directory=PAGE_FOLDER)),
            *completion_routes(service),
        ],
        middleware=[Middleware(Guard, admission=admission)],
        exception_handlers={
            ApiError: answer_error,
            BusyError: answer_error,
            HTTPException: answer_error,
            Exception: answer_error,
        },
    )


async def _page(_: Request) -> Response:
    return FileResponse(PAGE_FOLDER / "index.html")
