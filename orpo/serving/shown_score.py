"""A text as the page shows it: cut at its emojis, with every part of its score and why, and what would suit it."""

from dataclasses import asdict
from typing import Annotated

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orpo.scoring import DEFAULT_SCORER, SCORERS, find_emojis, get_scorer, strip_emojis, suggest_emojis
from orpo.serving.api_errors import ApiError
from orpo.serving.bodies import RequestBody, read_body

_LONGEST = 20_000  # characters

Text = Annotated[str, Field(max_length=_LONGEST)]


class ToScore(RequestBody):
    """A text, what it answers, and whose taste judges it."""

    text: Text
    prompt: Text = ""
    system: Text = ""
    profile: str = DEFAULT_SCORER
    suggest: bool = False


def score_routes() -> list[Route]:
    """Return the route that scores a text."""
    return [Route("/api/score", _score, methods=["POST"])]


async def _score(request: Request) -> Response:
    asked = await read_body(request, ToScore)
    if asked.profile not in SCORERS:
        raise ApiError(400, f"profile: {asked.profile!r} is not one of {', '.join(SCORERS)}", param="profile")
    return JSONResponse(await run_in_threadpool(_scored, asked))


def _scored(asked: ToScore) -> dict[str, object]:
    shown = shown_text(asked.text, asked.prompt, asked.system, asked.profile)
    if asked.suggest:
        shown["suggestions"] = [asdict(pick) for pick in suggest_emojis(strip_emojis(asked.text), asked.prompt)]
    return shown


def shown_text(text: str, prompt: str = "", system: str = "", profile: str = DEFAULT_SCORER) -> dict[str, object]:
    """Return the text in segments, its score, and its parts."""
    report = get_scorer(profile).explain(text, prompt, system=system)
    return {"segments": segments(text), **report.as_dict()}


def segments(text: str) -> list[dict[str, object]]:
    """Cut a text at its emojis: offsets would not do, for JavaScript counts characters differently."""
    found: list[dict[str, object]] = []
    position = 0
    for span in find_emojis(text):
        if span.start > position:
            found.append({"text": text[position : span.start], "emoji": False})
        found.append({"text": span.text, "emoji": True})
        position = span.end
    if position < len(text):
        found.append({"text": text[position:], "emoji": False})
    return found
