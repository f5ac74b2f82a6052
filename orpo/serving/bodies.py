"""The body of a request as a typed object, or an error that names the field at fault."""

import asyncio
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from orpo.serving.api_errors import ApiError

Body = TypeVar("Body", bound="RequestBody")

_SECONDS: Final = 30.0


class RequestBody(BaseModel):
    """What a request holds; a field that nobody reads is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Return the JSON body of a request; ApiError where it is none, or not of this kind."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send JSON, with the header Content-Type: application/json")
    try:
        content = await asyncio.wait_for(request.body(), _SECONDS)
    except TimeoutError:
        raise ApiError(408, f"the request did not arrive within {_SECONDS:g} seconds") from None
    try:
        return kind.model_validate_json(content)
    except ValidationError as problem:
        raise _as_api_error(problem) from None


def _as_api_error(problem: ValidationError) -> ApiError:
    first = problem.errors(include_url=False)[0]
    param = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return ApiError(
            400, f"{param}: this server knows no such parameter; leave it out", code="unknown_parameter", param=param
        )
    if not param:
        return ApiError(400, f"the body is not what was expected: {first['msg']}")
    return ApiError(400, f"{param}: {first['msg']}", code="invalid_value", param=param)
