"""A POST that is sent twice with one Idempotency-Key is done once (draft-ietf-httpapi-idempotency-key-header).

The first answer is kept for a day, for the caller that it was given to; the same key with another body is refused, and
one whose first is still under way is told to wait. Kept in memory: after a restart a key is new.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from fastapi import Request, Response

from chimera.api.guard import Guarded, Handler, services_of
from chimera.api.problems import problem
from chimera.security.principal import Principal

HEADER = "idempotency-key"

MAX_KEY = 255

MAX_KEPT = 10_000

MAX_EACH = 1_000
"""Of one caller, who then loses their own oldest and nobody else's."""

MAX_ANSWER_BYTES = 100_000

MAX_BYTES = 50_000_000
"""Of all answers together."""

KEEP_S = 86_400.0

Name = tuple[str, str, str]


@dataclass(slots=True)
class _Kept:
    """`answer` is None while the first request is under way; its body is None if it may be told once only."""

    digest: bytes
    until: float
    answer: tuple[int, bytes | None, dict[str, str]] | None = None

    @property
    def size(self) -> int:
        return len(self.answer[1] or b"") if self.answer else 0


class Remembered:
    """Answers by caller, route and key. The oldest are forgotten first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Name, _Kept] = OrderedDict()
        self._by: dict[str, OrderedDict[Name, None]] = {}
        self._bytes = 0

    async def once(self, request: Request, handle: Handler, *, repeats: bool) -> Response:
        """Answer, or answer again. Who asks was checked. With `repeats` off, an answer is told once only."""
        key = request.headers.get(HEADER)
        if key is None or request.method != "POST":
            return await handle(request)
        if not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
            return problem(
                400, "bad-idempotency-key", f"an Idempotency-Key has 1..{MAX_KEY} printable ASCII characters"
            )
        now = services_of(request).clock.monotonic()
        name = (_caller(getattr(request.state, "principal", None)), request.url.path, key)
        digest = hashlib.sha256(await request.body()).digest()
        known = self._kept.get(name)
        if known is not None and known.until > now:
            return _again(known, digest)
        self._forget(name)
        kept = self._keep(name, _Kept(digest, now + KEEP_S))
        try:
            response = await handle(request)
        except BaseException:
            self._forget(name)
            raise
        body = bytes(response.body)
        if response.status_code >= 500 or response.status_code in (401, 403, 429) or len(body) > MAX_ANSWER_BYTES:
            self._forget(name)  # nothing was done, or it can be tried again
        elif self._kept.get(name) is kept:
            kept.answer = response.status_code, body if repeats else None, dict(response.headers)
            self._bytes += kept.size
            while self._bytes > MAX_BYTES:
                self._forget(next(iter(self._kept)))
        return response

    def _keep(self, name: Name, kept: _Kept) -> _Kept:
        mine = self._by.setdefault(name[0], OrderedDict())
        if len(mine) >= MAX_EACH:
            self._forget(next(iter(mine)))
        elif len(self._kept) >= MAX_KEPT:
            self._forget(next(iter(self._kept)))
        self._kept[name] = kept
        self._by.setdefault(name[0], mine)[name] = None
        return kept

    def _forget(self, name: Name) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            self._bytes -= kept.size
            mine = self._by[name[0]]
            del mine[name]
            if not mine:
                del self._by[name[0]]


def _caller(principal: Principal | None) -> str:
    """A user is the same with each of their tokens; a key is a caller of its own."""
    if principal is None:
        return "-"
    return f"key:{principal.token_id}" if principal.kind == "api_key" else f"{principal.kind}:{principal.subject}"


def _again(known: _Kept, digest: bytes) -> Response:
    if known.digest != digest:
        return problem(422, "idempotency-key-reused", "this Idempotency-Key was used with another body: take a new one")
    if known.answer is None:
        why = "the first request with this Idempotency-Key is under way"
        return problem(409, "in-progress", why, headers={"Retry-After": "1"})
    status, body, headers = known.answer
    if body is None:
        return problem(409, "told-once", "this was done, and its answer is told once only: look for it in the list")
    return Response(body, status, headers={**headers, "Idempotent-Replayed": "true"})


class OnceRoute(Guarded):
    """A route whose POSTs are done once for each key. Who asks is checked each time."""

    repeats: ClassVar[bool] = True

    async def answer(self, request: Request, handle: Handler) -> Response:
        remembered: Remembered = request.app.state.remembered
        return await remembered.once(request, handle, repeats=self.repeats)


class SecretRoute(OnceRoute):
    """One whose answers hold a secret, which is not kept to be told again."""

    repeats: ClassVar[bool] = False
