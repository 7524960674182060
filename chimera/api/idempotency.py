"""A POST that is sent twice with one Idempotency-Key is done once (draft-ietf-httpapi-idempotency-key-header).

The first answer is kept for a day, for the caller that it was given to, also when the node is started again; the same
key with another body is refused, one whose first is still under way is told to wait, and one whose first was cut off by
the end of its process is told so: nobody knows then whether it was done.
"""

from __future__ import annotations

import hashlib
import logging
from typing import ClassVar

from fastapi import Request, Response

from chimera.api.answers import Answers, Known
from chimera.api.guard import Guarded, Handler, services_of
from chimera.api.problems import problem
from chimera.core.errors import StorageError
from chimera.security.principal import Principal

log = logging.getLogger(__name__)

HEADER = "idempotency-key"

MAX_KEY = 255

MAX_ANSWER_BYTES = 100_000


class Remembered:
    """Answers by caller, route and key."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    async def once(self, request: Request, handle: Handler, *, repeats: bool) -> Response:
        """Answer, or answer again. Who asks was checked. With `repeats` off, an answer is told once only."""
        key = request.headers.get(HEADER)
        if key is None or request.method != "POST":
            return await handle(request)
        if not (1 <= len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
            return problem(
                400, "bad-idempotency-key", f"an Idempotency-Key has 1..{MAX_KEY} printable ASCII characters"
            )
        principal: Principal | None = getattr(request.state, "principal", None)
        caller = _caller(principal)
        name = hashlib.sha256("\n".join((caller, request.url.path, key)).encode()).digest()
        digest = hashlib.sha256(await request.body()).digest()
        owner = principal.subject if principal else "-"  # all of whose keys together have a place each
        found = await self._answers.begin(owner, name, digest, services_of(request).clock.now())
        if isinstance(found, Known):
            return _again(found, digest)
        try:
            response = await handle(request)
        except Exception:
            await self._answers.forget(found)
            raise
        except BaseException:  # this process ends
            self._answers.leave(found)
            raise
        await self._keep(found, response, repeats=repeats)
        return response

    async def _keep(self, number: int, response: Response, *, repeats: bool) -> None:
        body = bytes(response.body)
        try:
            if response.status_code >= 500 or response.status_code in (401, 403, 429) or len(body) > MAX_ANSWER_BYTES:
                await self._answers.forget(number)  # nothing was done, or it can be tried again
            else:
                headers = dict(response.headers) if repeats else {}
                await self._answers.finish(number, response.status_code, headers, body if repeats else None)
        except StorageError as error:  # it was done: whoever asks again is told that nobody knows
            log.warning("an answer cannot be kept: %s", error)
            self._answers.leave(number)


def _caller(principal: Principal | None) -> str:
    """A user is the same with each of their tokens; a key is a caller of its own."""
    if principal is None:
        return "-"
    return f"key:{principal.token_id}" if principal.kind == "api_key" else f"{principal.kind}:{principal.subject}"


def _again(known: Known, digest: bytes) -> Response:
    if known.digest != digest:
        return problem(422, "idempotency-key-reused", "this Idempotency-Key was used with another body: take a new one")
    if known.status is None and known.under_way:
        why = "the first request with this Idempotency-Key is under way"
        return problem(409, "in-progress", why, headers={"Retry-After": "1"})
    if known.status is None:
        why = "the node ended while the first request with this Idempotency-Key was under way, and whether it was done"
        return problem(409, "interrupted", f"{why} is not known: look for it, and take a new key to do it again")
    if known.body is None:
        return problem(409, "told-once", "this was done, and its answer is told once only: look for it in the list")
    return Response(known.body, known.status, headers={**known.headers, "Idempotent-Replayed": "true"})


class OnceRoute(Guarded):
    """A route whose POSTs are done once for each key. Who asks is checked each time."""

    repeats: ClassVar[bool] = True

    async def answer(self, request: Request, handle: Handler) -> Response:
        remembered: Remembered = request.app.state.remembered
        return await remembered.once(request, handle, repeats=self.repeats)


class SecretRoute(OnceRoute):
    """One whose answers hold a secret, which is not kept to be told again."""

    repeats: ClassVar[bool] = False
