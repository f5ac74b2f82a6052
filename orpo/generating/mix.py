"""What the pairs of one data set teach, in which shares.

Where emojis are in place, the kind of a pair is drawn by these shares from the seed and the prompt's id, so that it
stays the same whatever other prompts there are. Restraint follows the prompts themselves, and so does obedience where
a prompt holds a wish; where obedience is drawn, a prompt makes two pairs, with a ban and with the opposite wish.
"""

import hashlib
import random
from collections.abc import Mapping
from typing import Final

from orpo.command.errors import SettingsError
from orpo.records.pairs import PairKind

DRAWN_KINDS: Final[tuple[PairKind, ...]] = ("presence", "fit", "excess", "place", "obedience")
DEFAULT_MIX: Final[dict[PairKind, float]] = {
    "presence": 0.62,
    "fit": 0.06,
    "excess": 0.03,
    "place": 0.03,
    "obedience": 0.26,
}


def shown_mix(shares: dict[PairKind, float]) -> str:
    """Return shares as a user writes them."""
    return ",".join(f"{kind}={share:g}" for kind, share in shares.items())


def parse_mix(text: str) -> dict[PairKind, float]:
    """Read `presence=0.5,fit=0.3` as shares that sum to one."""
    shares: dict[PairKind, float] = {}
    for entry in text.split(","):
        name, _, value = (part.strip() for part in entry.partition("="))
        kind = next((kind for kind in DRAWN_KINDS if kind == name), None)
        share = _as_share(value)
        if kind is None or share is None or kind in shares:
            raise SettingsError(
                f"{text}: {entry.strip()!r} is not KIND=SHARE, each kind once, with the kinds "
                f"{', '.join(DRAWN_KINDS)} and a share of 0 or above",
                setting="mix",
            )
        shares[kind] = share
    total = sum(shares.values())
    if total <= 0:
        raise SettingsError(f"{text}: all shares are 0; at least one kind needs a share above 0", setting="mix")
    return {kind: share / total for kind, share in shares.items()}


def drawn_kind(mix: Mapping[PairKind, float], seed: int, prompt_id: str) -> PairKind:
    """Return what the pair of a prompt teaches, drawn by the shares."""
    kinds = list(mix)
    return stream(seed, prompt_id, "kind").choices(kinds, [mix[kind] for kind in kinds])[0]


def stream(seed: int, prompt_id: str, purpose: str) -> random.Random:
    """Return random numbers that depend on seed, prompt and purpose alone."""
    digest = hashlib.sha256(f"{seed}:{prompt_id}:{purpose}".encode("utf-8", "surrogatepass")).digest()
    return random.Random(int.from_bytes(digest[:8], "big"))


def _as_share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 <= share < 1e6 else None
