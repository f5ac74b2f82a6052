"""The routes of pair review, and which data sets there are to review."""

import getpass
import threading
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orpo.command.paths import data_folder, resolve_user_path
from orpo.records.read_rows import PAIRS_FILE
from orpo.serving.api_errors import ApiError
from orpo.serving.bodies import RequestBody, read_body
from orpo.serving.command_lines import training_line
from orpo.serving.reviews import Review
from orpo.serving.service import Service
from orpo.serving.shown_score import segments

_Text = Annotated[str, Field(max_length=50_000)]
_Name = Annotated[str, Field(min_length=1, max_length=80)]
_FOLDER_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"


class Opened(RequestBody):
    """Which data set to review, by its name."""

    data: str


class NewDecision(RequestBody):
    """What was decided on a pair; `undo` forgets an earlier decision."""

    decision: Literal["keep", "flip", "drop", "edit", "undo"]
    who: _Name
    chosen: _Text | None = None
    rejected: _Text | None = None


class NewFolder(RequestBody):
    """Where the reviewed pairs go, under data/, and what becomes of the rest."""

    name: Annotated[str, Field(pattern=rf"^{_FOLDER_NAME}$")]
    rest: Literal["keep", "leave out"]
    who: _Name


class Reviews:
    """The data sets that may be reviewed, and those that are being reviewed.

    Only these are read, whatever a request says: a page must not read any file of this machine.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._open: dict[int, Review] = {}

    def sources(self) -> dict[str, str]:
        """Return the path of each data set by its name: those that were named, and folders of pairs in data/."""
        named = {Path(source).name: source for source in self._service.data}
        if data_folder().is_dir():
            for folder in sorted(data_folder().iterdir()):
                if not folder.name.startswith(".") and (folder / PAIRS_FILE).is_file():
                    named.setdefault(folder.name, str(folder))
        return named

    def open(self, name: str) -> Review:
        """Return the review of a data set as it is now; ApiError where there is no such set."""
        source = self.sources().get(name)
        if source is None:
            known = ", ".join(self.sources()) or "none yet"
            raise ApiError(404, f"there is no data set {name!r}; there are {known}", param="data")
        path = resolve_user_path(source)
        review = Review(self._service.store, str(path) if path.exists() else source)
        with self._lock:
            self._open = {**self._open, review.id: review}
        return review

    def find(self, number: int) -> Review:
        """Return a review that is open; ApiError where it has to be opened first."""
        review = self._open.get(number)
        if review is None:
            raise ApiError(404, f"review {number} is not open; open its data set first")
        return review


def review_routes(service: Service) -> list[Route]:
    """Return the routes."""
    reviews = Reviews(service)
    return [
        Route("/api/data", partial(_list, reviews)),
        Route("/api/reviews", partial(_open, reviews), methods=["POST"]),
        Route("/api/reviews/{review:int}/pairs/{number:int}", partial(_show, reviews)),
        Route("/api/reviews/{review:int}/pairs/{number:int}", partial(_decide, reviews), methods=["POST"]),
        Route("/api/reviews/{review:int}/write", partial(_write, reviews), methods=["POST"]),
    ]


async def _list(reviews: Reviews, request: Request) -> Response:
    return JSONResponse({"data": list(await run_in_threadpool(reviews.sources)), "who": _user()})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return ""


async def _open(reviews: Reviews, request: Request) -> Response:
    asked = await read_body(request, Opened)
    review = await run_in_threadpool(reviews.open, asked.data)
    return JSONResponse({"id": review.id, "count": len(review.pairs), "decisions": _marks(review)})


def _marks(review: Review) -> dict[int, str]:
    return {number: decided.decision for number, decided in review.decisions().items()}


async def _show(reviews: Reviews, request: Request) -> Response:
    review = reviews.find(request.path_params["review"])
    return JSONResponse(await run_in_threadpool(_shown, review, request.path_params["number"]))


def _shown(review: Review, number: int) -> dict[str, object]:
    pair = review.find(number)
    sides = {
        side: {"text": text, "segments": segments(text), "model": model, **report.as_dict()}
        for side, text, model, report in zip(
            ("chosen", "rejected"),
            (pair.chosen_text, pair.rejected_text),
            (pair.chosen_model, pair.rejected_model),
            review.scores(number),
            strict=True,
        )
    }
    decided = review.decisions().get(number)
    return {
        "number": number,
        "prompt": pair.prompt,
        "kind": pair.kind,
        "duplicates": asdict(review.duplicates(number)),
        "decided": None if decided is None else asdict(decided),
        **sides,
    }


async def _decide(reviews: Reviews, request: Request) -> Response:
    asked = await read_body(request, NewDecision)
    review, number = reviews.find(request.path_params["review"]), request.path_params["number"]
    if asked.decision == "undo":
        await run_in_threadpool(review.undo, number)
    else:
        decide = partial(review.decide, chosen=asked.chosen, rejected=asked.rejected)
        await run_in_threadpool(decide, number, asked.decision, asked.who)
    return JSONResponse({"decisions": _marks(review)})


async def _write(reviews: Reviews, request: Request) -> Response:
    asked = await read_body(request, NewFolder)
    review = reviews.find(request.path_params["review"])
    folder = data_folder() / asked.name
    counts = await run_in_threadpool(partial(review.write, folder, rest=asked.rest, who=asked.who))
    return JSONResponse({"folder": str(folder), "counts": counts, "line": training_line(folder)})
