"""What every model behind a server has to be careful about: keys, endless answers, and what refusals mean.

Nothing that a server says is believed to be small, quick, or free of the key that it was sent. Imported late where it
needs `httpx2`, which comes with the `openai` and `anthropic` packages.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from chimera.core.errors import (
    InputError,
    ModelError,
    ModelOutage,
    ModelQuota,
    ModelRefused,
    ModelSilent,
    ModelUnauthorized,
)

if TYPE_CHECKING:
    import httpx2

MAX_RESPONSE_BYTES = 4_000_000
"""Of one answer, whole or in pieces."""

STREAM_TIMES = 10
"""An answer in pieces has ended after so many time-outs, however steadily they come."""

MAX_SAID_CHARS = 200
"""What is kept of an error's message, and of a request's id."""

MAY_PASS = frozenset({408, 409, 425, 429})
"""Refusals that are no refusal of the request itself. So are all from 500 on."""

UNPAID = ("credit balance", "billing", "spend limit", "spend_limit", "insufficient_quota")
"""What stands in a refusal that is about money."""

TOO_LONG = ("exceeds the context length", "exceed_context_size", "context size has been exceeded")
"""What stands in the refusal of a prompt that the model's window does not hold, whatever its status."""


@dataclass(frozen=True)
class Remote:
    """A server that is asked for a model. `key` is "" where it must not be sent; `key_from` is where it was read."""

    name: str
    base_url: str
    key: str = ""
    key_from: str = ""

    def clean(self, text: str) -> str:
        """What a server said, fit for one line of a log, and without the key."""
        text = text.replace(self.key, "***") if self.key else text  # first: half a key is one too many
        return "".join(c for c in " ".join(text[:2_000].split()) if c.isprintable())[:MAX_SAID_CHARS]

    def refusal(self, status: int, text: str, headers: Mapping[str, str], *, missing: str = "") -> ModelError:
        """The error that an answer of this `status` is. `missing` is what to do about a 404."""
        said = f"{self.name}: the server answered {status}: {self.clean(reason(text))}"
        lower = text[:MAX_RESPONSE_BYTES].lower()
        if any(words in lower for words in TOO_LONG):
            return ModelRefused(f"{said}; the prompt is longer than the model's window")
        if status == 402 or (400 <= status < 500 and any(words in lower for words in UNPAID)):
            return ModelQuota(said, seconds(headers.get("retry-after", "")))
        if status in MAY_PASS or (status >= 500 and status != 501):  # 501: it cannot do that at all
            return ModelOutage(said, seconds(headers.get("retry-after", "")))
        if status in (401, 403):
            if not self.key_from:
                return ModelUnauthorized(said)
            withheld = "" if is_private(self.base_url) else " (it is only sent over https, or to this machine)"
            return ModelUnauthorized(f"{said}; is {self.key_from} set to a key of this server?{withheld}")
        return ModelRefused(f"{said}; {missing}" if status == 404 and missing else said)

    def late(self, timeout_s: float) -> ModelSilent:
        return ModelSilent(f"{self.name} did not answer within {timeout_s:g} s")

    def unreachable(self, error: BaseException) -> ModelOutage:
        """What a failed connection is: no call was made if it never stood, and one may have been if it broke off."""
        import httpx2

        cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
        if isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout)):
            return ModelOutage(f"{self.name}: no connection to {self.base_url}")
        return ModelSilent(f"{self.name}: the connection to {self.base_url} broke off")

    def garbled(self, said: bytes | str) -> ModelSilent:
        """It answered, but with nothing that can be read."""
        text = said if isinstance(said, str) else said[:20_000].decode("utf-8", "replace")
        return ModelSilent(f"{self.name} did not answer as its interface says but with {self.clean(text)!r}")


def check_key(key: str, key_from: str) -> str:
    """`key`, if it can be one. Raises InputError that does not hold it."""
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise InputError(f"{key_from} is not a key: it has spaces in it, or characters that no key has")
    return key


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent there."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def reason(text: str) -> str:
    """The message in an error's body, in the forms that servers give it; else the body."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "detail", "message"):
        if isinstance(body, dict) and name in body:
            body = body[name]
    return body if isinstance(body, str) else text


def seconds(text: str) -> float:
    """A Retry-After in seconds (RFC 9110, 10.2.3); 0 for a date or anything else."""
    try:
        wait_s = float(text)
    except ValueError:
        return 0.0
    return wait_s if math.isfinite(wait_s) and wait_s > 0 else 0.0


def count(usage: Any, name: str) -> int:
    """The number called `name`; 0 for what is none."""
    number = usage.get(name) if isinstance(usage, dict) else 0
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else 0


def characters(text: str) -> str:
    """`text` without the surrogates that JSON can hold, which are no characters."""
    return text.encode("utf-8", "replace").decode()


async def lines(response: httpx2.Response, timeout_s: float) -> AsyncGenerator[bytes, None]:
    """The lines of an answer as they come, without their ends.

    Raises TimeoutError if nothing comes for `timeout_s` or all of it takes STREAM_TIMES as long, and what reading it
    raises.
    """
    loop = asyncio.get_running_loop()
    latest = loop.time() + STREAM_TIMES * timeout_s
    parts = response.aiter_bytes()
    line = bytearray()
    while True:
        async with asyncio.timeout_at(min(loop.time() + timeout_s, latest)):
            part = await anext(parts, None)
        if part is None:
            break
        *ended, rest = part.split(b"\n")
        for piece in ended:
            yield bytes(line + piece).rstrip(b"\r")
            line.clear()
        line += rest
    if line:
        yield bytes(line)
