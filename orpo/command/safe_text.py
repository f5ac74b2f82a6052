"""Text made safe to show and to keep: others' text cannot steer the terminal, and no secret is given away."""

import re
from collections.abc import Mapping
from typing import Final

_MASK: Final = "***"
_SECRET_WORD: Final = r"(?:api_?key|key|secret|token|passw(?:or)?d|pwd|auth|sig|signature|credentials?)"
_SECRET_NAME: Final = re.compile(r"(^|_)(api_?key|secret|password|access_token|auth_token|hub_token)$", re.IGNORECASE)
# A password may hold an @ of its own, so the last @ before the path ends it.
_USER_AND_PASSWORD: Final = re.compile(r"(?<=://)[^\s/?#]*@")
_USER_AT_THE_START: Final = re.compile(r"\A[^\s/?#]*@")
_QUERY: Final = re.compile(rf"(?<=[?&;])((?:[\w.%-]*[_.-])?{_SECRET_WORD}=)[^\s&;#'\"]+", re.IGNORECASE)
# What the well-known services' keys look like; endpoints quote the key that they refuse, whole or in part.
_KEY: Final = re.compile(r"\b(?:sk|gsk|xai|hf|ghp)[-_](?=[\w.-]*[\d*])[\w*.-]{6,}|(?<=Bearer )(?=\S*\d)\S{12,}")

HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: it cannot be tokenized, nor written as UTF-8."""

# Escape sequences whole; other control characters but tab and newline; what reorders text in sight (bidi controls);
# separators that some terminals take for a line end; half a surrogate pair, which cannot be written.
_UNSAFE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)|[ -/]*[0-~])"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
    "|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Return text that is safe to show: others' text must not move the cursor, recolour or reorder what is seen."""
    return _UNSAFE.sub("\ufffd", text.replace("\r\n", "\n"))


def mask_text(text: str) -> str:
    """Return any text without the keys in it, and its addresses without `user:password@` and `?api_key=...`."""
    return _KEY.sub(_MASK, _QUERY.sub(rf"\1{_MASK}", _USER_AND_PASSWORD.sub(f"{_MASK}@", text)))


def mask_address(address: str) -> str:
    """Return one address without what is secret in it, also where its `http://` is missing."""
    masked = mask_text(address)
    return masked if "://" in masked else _USER_AT_THE_START.sub(f"{_MASK}@", masked)


def mask_secrets(settings: Mapping[str, object]) -> dict[str, object]:
    """Return settings with keys, tokens and passwords replaced by `***`: those of such a name, and those in texts."""
    return {
        name: _MASK if value and _SECRET_NAME.search(name) else _mask_value(value) for name, value in settings.items()
    }


def _mask_value(value: object) -> object:
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, dict):
        return mask_secrets(value)
    return [_mask_value(item) for item in value] if isinstance(value, list) else value
