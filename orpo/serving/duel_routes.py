"""The routes of blind votes: a duel begins, is answered, and is voted on; then it is told who was who."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Literal

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orpo.command.paths import data_folder
from orpo.serving.api_errors import ApiError, as_api_error
from orpo.serving.asking import EventStream, MakeJob, ask
from orpo.serving.bodies import RequestBody, read_body
from orpo.serving.command_lines import training_line
from orpo.serving.completions import Asked, client_of, find_model
from orpo.serving.jobs import Event, Failed, Job, Piece
from orpo.serving.service import Service
from orpo.serving.votes import SIDES, Duel, Votes, export_votes

EXPORT_NAME = "votes"


class NewDuel(Asked):
    """Which two models are to answer what."""

    models: tuple[str, str]


class NewVote(RequestBody):
    """Which side is better."""

    vote: Literal["left", "right", "both", "neither"]


def duel_routes(service: Service) -> list[Route]:
    """Return the routes."""
    votes = Votes(service.store)
    return [
        Route("/api/duels", partial(_begin, service, votes), methods=["POST"]),
        Route("/api/duels/open", partial(_find_open, votes)),
        Route("/api/duels/{number:int}", partial(_forget, votes), methods=["DELETE"]),
        Route("/api/duels/{number:int}/replies", partial(_answer, service, votes), methods=["POST"]),
        Route("/api/duels/{number:int}/vote", partial(_vote, service, votes), methods=["POST"]),
        Route("/api/votes", partial(_tallies, service, votes)),
        Route("/api/votes/export", partial(_export, service), methods=["POST"]),
    ]


async def _begin(service: Service, votes: Votes, request: Request) -> Response:
    asked = await read_body(request, NewDuel)
    names = [find_model(service, name) for name in asked.models]
    if names[0] == names[1]:
        raise ApiError(400, "models: name two different ones", param="models")
    messages = asked.conversation()
    sampling = asked.sampling(service.sampling, service.limits.max_reply_tokens)
    catalogue = service.catalogue
    sides = [(catalogue.label(name), catalogue.identity(name)) for name in names]
    return JSONResponse(_shown(await run_in_threadpool(votes.begin, messages, sampling, sides)))


async def _find_open(votes: Votes, request: Request) -> Response:
    duel = await run_in_threadpool(votes.find_open)
    return JSONResponse({"duel": None if duel is None else _shown(duel)})


async def _forget(votes: Votes, request: Request) -> Response:
    await run_in_threadpool(votes.forget, request.path_params["number"])
    return JSONResponse({"duel": None})


def _shown(duel: Duel) -> dict[str, object]:
    """Return what may be known before the vote."""
    return {"id": duel.id, "messages": duel.messages, "replies": duel.replies}


async def _answer(service: Service, votes: Votes, request: Request) -> Response:
    """Stream both replies, those that are there already at once; both are kept when they are whole."""
    duel = await run_in_threadpool(votes.find, request.path_params["number"])
    missing = [name for name in duel.models if service.catalogue.find(name) is None]
    if missing and duel.replies is None:
        raise ApiError(409, f"{missing[0]} is no longer served, so this duel cannot be answered; begin another")
    return EventStream(_replies(service, votes, duel, client_of(request)))


async def _replies(service: Service, votes: Votes, duel: Duel, client: str) -> AsyncGenerator[str, None]:
    if duel.replies is not None:
        for side, text in zip(SIDES, duel.replies, strict=True):
            yield json.dumps({"side": side, "piece": text}, ensure_ascii=False)
        yield json.dumps({"done": True})
        return
    texts = ["", ""]
    try:
        async with aclosing(ask(service.engine, _jobs(service, duel, client))) as events:
            async for number, event in events:
                if isinstance(event, Failed):
                    raise event.problem
                if isinstance(event, Piece):
                    texts[number] += event.text
                    yield json.dumps({"side": SIDES[number], "piece": event.text}, ensure_ascii=False)
        await run_in_threadpool(votes.keep_replies, duel.id, *texts)
    except Exception as problem:
        yield json.dumps(as_api_error(problem).as_dict(), ensure_ascii=False)
        return
    yield json.dumps({"done": True})


def _jobs(service: Service, duel: Duel, client: str) -> list[MakeJob]:
    def maker(label: str) -> MakeJob:
        def make(tell: Callable[[Event], None]) -> Job:
            return Job(find_model(service, label), duel.messages, duel.sampling, duel.seed, tell, client=client)

        return make

    return [maker(label) for label in duel.models]


async def _vote(service: Service, votes: Votes, request: Request) -> Response:
    asked = await read_body(request, NewVote)
    duel = await run_in_threadpool(votes.vote, request.path_params["number"], asked.vote)
    told = dict(zip(SIDES, duel.models, strict=True))
    return JSONResponse({"id": duel.id, "vote": duel.vote, "models": told, "seed": duel.seed})


async def _tallies(service: Service, votes: Votes, request: Request) -> Response:
    catalogue = service.catalogue
    identities = {catalogue.label(name): catalogue.identity(name) for name in catalogue.ids}
    return JSONResponse({"tallies": await run_in_threadpool(votes.tallies, identities)})


async def _export(service: Service, request: Request) -> Response:
    """Write the votes to data/votes, in place of an earlier export: the votes themselves stay where they are."""
    await read_body(request, RequestBody)
    folder = data_folder() / EXPORT_NAME
    done = await run_in_threadpool(lambda: export_votes(service.store, folder, overwrite=folder.exists()))
    told = {"folder": str(done.folder), "pairs": done.pairs, "left_out": done.left_out}
    return JSONResponse({**told, "line": training_line(done.folder)})
