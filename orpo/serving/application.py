"""The application: every route, and the guard around them."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from orpo.command.errors import OrpoError
from orpo.serving.api_errors import ApiError, answer_error
from orpo.serving.completions import completion_routes
from orpo.serving.duel_routes import duel_routes
from orpo.serving.guard import Admission, Guard
from orpo.serving.jobs import BusyError, StoppingError
from orpo.serving.page_routes import page_routes
from orpo.serving.review_routes import review_routes
from orpo.serving.service import Service
from orpo.serving.shown_score import score_routes


def make_application(service: Service, admission: Admission) -> Starlette:
    """Return the application."""
    return Starlette(
        routes=[
            *page_routes(service),
            *completion_routes(service),
            *duel_routes(service),
            *review_routes(service),
            *score_routes(),
        ],
        middleware=[Middleware(Guard, admission=admission)],
        exception_handlers=dict.fromkeys(
            (ApiError, BusyError, StoppingError, OrpoError, HTTPException, Exception), answer_error
        ),
    )
