"""Addresses of endpoints as they may be shown and kept: without the user and password that one may hold."""

import re
from typing import Final

_USERINFO: Final = re.compile(r"\A((?:[\w+.-]+://)?)[^/?#\s]*@")


def mask_userinfo(address: str) -> str:
    """Return an address with `user:password@` replaced by `***@`; only the client is to know them."""
    return _USERINFO.sub(r"\1***@", address)
