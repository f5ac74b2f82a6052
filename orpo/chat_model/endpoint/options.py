"""How calls to an endpoint are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class EndpointOptions:
    """How calls are made.

    Attributes:
        timeout_seconds: How long one whole answer may take.
        retries: How often a failed call is repeated; pauses of 0.5 s, 1 s, 2 s and so on, or as the endpoint asks.
        extra: Fields that go into every request.
        omit: Fields that no request is to have.
    """

    timeout_seconds: float = 120.0
    retries: int = 4
    extra: Mapping[str, object] = field(default_factory=dict)
    omit: frozenset[str] = frozenset()
