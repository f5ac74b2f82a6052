"""The page, and what it has to know: the models, the defaults, a message to begin with, the line that repeats."""

import random
from functools import cache, partial
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from orpo.records.prompts import TRAIN, embedded_prompts
from orpo.scoring import DEFAULT_SCORER, SCORERS
from orpo.serving.api_errors import ApiError
from orpo.serving.bodies import read_body
from orpo.serving.command_lines import repeat_line
from orpo.serving.completions import Asked, find_model
from orpo.serving.service import Service

PAGE_FOLDER: Final = Path(__file__).with_name("page")


class ToRepeat(Asked):
    """Which reply the line is to repeat."""

    model: str


def page_routes(service: Service) -> list[Route | Mount]:
    """Return the routes."""
    return [
        Route("/", _page),
        Mount("/page", StaticFiles(directory=PAGE_FOLDER)),
        Route("/favicon.ico", _icon),
        Route("/api/state", partial(_state, service)),
        Route("/api/message", _draw_message),
        Route("/api/line", partial(_line, service), methods=["POST"]),
    ]


async def _page(_: Request) -> Response:
    return FileResponse(PAGE_FOLDER / "index.html")


async def _icon(_: Request) -> Response:
    return FileResponse(PAGE_FOLDER / "icon.svg")


async def _state(service: Service, request: Request) -> Response:
    catalogue = service.catalogue
    models = [{"id": name, "label": catalogue.label(name)} for name in catalogue.ids]
    return JSONResponse(
        {
            "ready": service.engine.is_ready,
            "models": models,
            "temperature": service.sampling.temperature,
            "max_tokens": service.sampling.max_new_tokens,
            "most_tokens": service.limits.max_reply_tokens,
            "scorers": SCORERS,
            "scorer": DEFAULT_SCORER,
            **service.engine.counts(),
        }
    )


async def _draw_message(_: Request) -> Response:
    """Return a message to begin with; no held-out one, since what is voted on here may be trained on."""
    return JSONResponse({"message": random.choice(_messages())})


@cache
def _messages() -> list[str]:
    return [prompt.text for prompt in embedded_prompts(TRAIN) if prompt.messages is None]


async def _line(service: Service, request: Request) -> Response:
    asked = await read_body(request, ToRepeat)
    if asked.seed is None:
        raise ApiError(400, "seed: is what the reply is repeated by; name it", param="seed")
    if not service.engine.is_ready:
        raise ApiError(503, "the models are still being loaded; ask again in a moment")
    sampling = asked.sampling(service.sampling, service.limits.max_reply_tokens)
    model = find_model(service, asked.model)
    return JSONResponse({"line": repeat_line(service, model, asked.conversation(), sampling, asked.seed)})
