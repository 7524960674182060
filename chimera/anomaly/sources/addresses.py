"""Where a source listens, or asks: what is read of an address, and what is shown of it."""

from __future__ import annotations

import re

from chimera.core.errors import InputError

LOOPBACK = "127.0.0.1"

_ADDRESS = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.\-]{0,253})(?::(?P<port>[0-9]{1,5}))?")

_CLEAR = re.compile(r"(?:[^/?#@]*@)?((?:[\w.\-]+|\[[^\]]*\])(?::[0-9]*)?(?:/[^?#@]*)?)(?:[?#].*)?", re.DOTALL)


def parse_address(text: str, *, port: int) -> tuple[str, int]:
    """`HOST:PORT`, `HOST`, `:PORT`, `[::1]:PORT` or nothing: loopback and `port` are for what is left out.

    Port 0 lets the system choose. Raises InputError for anything else.
    """
    found = _ADDRESS.fullmatch(text)
    if not found or int(found["port"] or 0) > 65_535:
        raise InputError(f"{text!a:.100} is not an address to listen on: give HOST:PORT, such as {LOOPBACK}:{port}")
    return found["host"].strip("[]") or LOOPBACK, port if found["port"] is None else int(found["port"])


def shown_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def shown_url(url: str) -> str:
    """For people, names and logs: without user, password and query, any of which may be a secret.

    Where it is not clear what is which, as in no URL at all, nothing is left of what stands before the last @.
    """
    head, slashes, rest = url.partition("//") if "//" in url else ("", "", url)
    clear = _CLEAR.fullmatch(rest) if slashes else None
    where = clear[1] if clear else re.split("[?#]", rest.rpartition("@")[2], maxsplit=1)[0]
    return head.rpartition("@")[2] + slashes + where + ("?..." if "?" in url else "")
