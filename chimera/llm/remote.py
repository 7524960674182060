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
from dataclasses import dataclass, field
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

ECHOED = frozenset({400, 404, 422})
"""Refusals that may repeat what was asked: a user's own words about billing say nothing of the account."""

FLAGGED = ("moderation", "flagged")
"""What stands in a 403 that is about what was asked, and not about the key, as OpenRouter has it."""

MAX_WAIT_S = 86_400.0
"""As long as this a server's wish for a pause is told on."""

MAX_COUNT = 10**12
"""A server that counts more tokens than this is not believed further."""

TOO_LONG = ("exceeds the context length", "exceed_context_size", "context size has been exceeded")
"""What stands in the refusal of a prompt that the model's window does not hold, whatever its status."""


@dataclass(frozen=True)
class Remote:
    """A server that is asked for a model. `key` is "" where it must not be sent; `key_from` is where it was read.

    The key does not show in its repr, and it cannot be pickled with one. Raises InputError for an address that is none.
    """

    name: str
    base_url: str
    key: str = field(default="", repr=False)
    key_from: str = ""

    def __post_init__(self) -> None:
        check_url(self.base_url)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.key:
            raise InputError(f"{self.name} holds a key, and is not to be pickled: send its name, and open it there")
        return Remote, (self.name, self.base_url, "", self.key_from)

    def clean(self, text: str) -> str:
        """What a server said, fit for one line of a log, and without the key."""
        text = self._without_key(text)  # first: half a key is one too many
        line = "".join(c for c in " ".join(text[:2_000].split()) if c.isprintable())
        return self._without_key(line)[:MAX_SAID_CHARS]  # again: what was between its letters may be gone

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text

    def refusal(self, status: int, text: str, headers: Mapping[str, str], *, missing: str = "") -> ModelError:
        """The error that an answer of this `status` is. `missing` is what to do about a 404."""
        said = f"{self.name}: the server answered {status}: {self.clean(reason(text))}"
        lower = text[:MAX_RESPONSE_BYTES].lower()
        if any(words in lower for words in TOO_LONG):
            return ModelRefused(f"{said}; the prompt is longer than the model's window")
        if status == 402 or (400 <= status < 500 and any(words in _of_money(status, text, lower) for words in UNPAID)):
            return ModelQuota(said, seconds(headers.get("retry-after", "")))
        if status in MAY_PASS or (status >= 500 and status != 501):  # 501: it cannot do that at all
            return ModelOutage(said, seconds(headers.get("retry-after", "")))
        if status == 401 or (status == 403 and not any(word in lower for word in FLAGGED)):
            if not self.key_from:
                return ModelUnauthorized(said)
            withheld = "" if is_private(self.base_url) else " (it is only sent over https, or to this machine)"
            return ModelUnauthorized(f"{said}; is {self.key_from} set to a key of this server?{withheld}")
        return ModelRefused(f"{said}; {missing}" if status == 404 and missing else said)

    def late(self, timeout_s: float, error: BaseException | None = None) -> ModelOutage:
        """What being out of time is: a call that got no connection, because the server is off, or because all that
        there may be are in use, was never sent."""
        import httpx2

        for cause in (error, error and error.__cause__):
            if isinstance(cause, httpx2.PoolTimeout):
                return ModelOutage(f"{self.name}: no call was made, all connections are in use; ask for less at a time")
            if isinstance(cause, httpx2.ConnectTimeout):
                return self.unreachable(cause)
        return ModelSilent(f"{self.name} did not answer within {timeout_s:g} s")

    def unreachable(self, error: BaseException) -> ModelOutage:
        """What a failed connection is: no call was made if it never stood, and one may have been if it broke off."""
        import httpx2

        cause = error if isinstance(error, httpx2.HTTPError) else error.__cause__
        if isinstance(cause, (httpx2.ConnectError, httpx2.ConnectTimeout)):
            return ModelOutage(f"{self.name}: no connection to {self.base_url}; is a server running there?")
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


def check_url(url: str) -> str:
    """`url`, if it is the base address of a server. Raises InputError that says what is wrong with it."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isprintable()
    except ValueError:
        fits = False
    if not fits or " " in url:
        shown = url.rpartition("@")[2]  # a password may stand before it
        raise InputError(f"{shown!a:.200} is not an address such as https://HOST/v1 or http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError("an address of a model has no user, password or query in it: a key stands in OPENAI_API_KEY")
    return url


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent there."""
    return urlsplit(url).scheme == "https" or is_here(url)


def is_here(url: str) -> bool:
    """Whether it is an address of this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
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


def _of_money(status: int, text: str, lower: str) -> str:
    """Where a refusal would speak of money: anywhere, or where it repeats what was asked, in what it is called."""
    if status not in ECHOED:
        return lower
    said = reason(text).lower()
    try:
        error = json.loads(text)["error"]
        called = f"{error.get('code')} {error.get('type')}".lower()
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError):
        called = ""
    return f"{called} credit balance" if said.startswith("your credit balance") else called


def seconds(text: str) -> float:
    """A Retry-After in seconds (RFC 9110, 10.2.3); 0 for a date or anything else."""
    try:
        wait_s = float(text)
    except ValueError:
        return 0.0
    return min(wait_s, MAX_WAIT_S) if math.isfinite(wait_s) and wait_s > 0 else 0.0


def count(usage: Any, *names: str) -> int:
    """The number called so, within what is called as the names before the last; 0 for what is none."""
    for name in names:
        usage = usage.get(name) if isinstance(usage, dict) else None
    return min(usage, MAX_COUNT) if isinstance(usage, int) and not isinstance(usage, bool) and usage >= 0 else 0


def arguments_of(given: Any) -> Any:
    """A tool call's arguments, of which some servers send the text. Raises ValueError for what JSON cannot hold:
    NaN, and halves of characters, which whoever writes them down later would trip over."""
    arguments = json.loads(given or "{}") if isinstance(given, str) else given
    json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    return arguments


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
