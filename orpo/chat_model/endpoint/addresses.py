"""Checks of an endpoint's address and key before anything is sent, so that a typing error is one clear line."""

from typing import Final
from urllib.parse import urlsplit

from orpo.command.errors import SettingsError
from orpo.command.safe_text import mask_address, printable

KEY_VARIABLE: Final = "OPENAI_API_KEY"
ENDPOINT_PREFIX: Final = "openai:"
"""How a model at an endpoint is named: `openai:NAME`."""


def check_address(address: str, *, setting: str) -> None:
    """Raise SettingsError for what is not the address of a web server."""
    shown = " ".join(printable(mask_address(address)).split())
    problem = ""
    if not address.startswith(("http://", "https://")):
        problem = "must begin with http:// or https://"
    elif any(not character.isprintable() or character.isspace() for character in address):
        problem = "holds a blank or a control character; type it again"
    else:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname or "", parts.port
            host.encode("idna")
        except (ValueError, UnicodeError):
            problem = "is not a web address; the form is http://HOST:PORT/v1"
        else:
            if not host or port == 0:
                problem = "names no host; the form is http://HOST:PORT/v1"
    if not problem:
        return
    if setting.isupper():  # an environment variable
        raise SettingsError(f"{setting} {shown}: {problem}")
    raise SettingsError(f"{shown}: {problem}", setting=setting)


def check_key(key: str) -> None:
    """Raise SettingsError for a key that cannot be sent; its characters are not shown."""
    for position, character in enumerate(key, start=1):
        if not "!" <= character <= "~":
            raise SettingsError(
                f"{KEY_VARIABLE}: its character {position} (U+{ord(character):04X}) cannot stand in a key; set it "
                "again without quotes, blanks or line breaks"
            )
