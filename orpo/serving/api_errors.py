"""Errors as OpenAI's API tells them: a status, and a JSON body with message, type, code and the parameter at fault."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from orpo.command.errors import OrpoError, with_flags
from orpo.command.safe_text import mask_text, printable
from orpo.serving.jobs import BusyError, StoppingError

# What the API calls a setting.
_PARAMS = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "max_new_tokens": "max_tokens"}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is not answered.

    Attributes:
        status: The HTTP status.
        message: What is wrong, and what to do.
        code: A word for programs.
        param: The parameter at fault, if one is.
    """

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def as_dict(self) -> dict[str, object]:
        """Return the body."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        message = mask_text(printable(with_flags(self.message)))
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """Return the answer."""
        headers = {"Retry-After": "1"} if self.status in (429, 503) else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.as_dict(), self.status, headers)


def as_api_error(problem: Exception) -> ApiError:
    """Return any failure as an error of the API; a mistake of this program says nothing of its inside."""
    if isinstance(problem, ApiError):
        return problem
    if isinstance(problem, BusyError):
        return ApiError(429, "as many requests wait as may; ask again in a moment", code="server_busy")
    if isinstance(problem, StoppingError):
        return ApiError(503, "the server is being stopped; ask again once it is back", code="server_stopping")
    if isinstance(problem, OrpoError):
        if "model's context" in str(problem):
            return ApiError(400, str(problem), code="context_length_exceeded", param="messages")
        return ApiError(400, str(problem.args[0]), param=_PARAMS.get(problem.setting))
    return ApiError(500, "the server failed; its terminal says how", code="internal_error")


async def answer_error(request: Request, problem: Exception) -> Response:
    """Answer a request that failed."""
    if isinstance(problem, HTTPException):
        what = f"{request.method} {request.url.path}: {problem.detail}"
        return ApiError(
            problem.status_code, what, code="unknown_url" if problem.status_code == 404 else None
        ).response()
    return as_api_error(problem).response()
