"""Errors as problem+json (RFC 9457): the same words as in Python, a status, and nothing of the inside."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from chimera.core import errors
from chimera.core.errors import ChimeraError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.Unauthenticated, 401),
    (errors.Forbidden, 403),
    (errors.NotThere, 404),
    (errors.RateLimited, 429),
    (errors.Overloaded, 503),
    (errors.NotBuilt, 501),
    (errors.NoAgents, 409),
    (errors.ReloadError, 409),
    (errors.BudgetExceeded, 402),
    (errors.PatchInvalid, 422),
    (errors.HealingError, 502),
    (errors.StorageUnavailable, 503),
    (errors.LedgerUnavailable, 503),
    (errors.ClusterError, 503),
    (errors.ModelError, 502),
    (errors.InputError, 400),
)
"""The first that fits. What is not here is a fault of ours: 500, and its words stay in the log."""

UNTOLD: tuple[tuple[type[Exception], str], ...] = (
    (errors.StorageUnavailable, "this node's storage is out of reach for now: try again"),
    (
        errors.LedgerUnavailable,
        "the treasury does not answer for now: ask again; a payment with the same Idempotency-Key or id is made once",
    ),
    (errors.ClusterError, "this node's swarm is out of reach for now: try again"),
    (errors.ModelError, "the model gave no answer: try again, or tell who runs this node"),
)
"""Errors whose own words name servers, addresses and files: they stay in the log, and these are said."""

MAX_COMPLAINTS = 20

VAULT_RETRY_S = 2.0
"""After which a treasury that does not answer may have been started again."""


class Problem(BaseModel):
    """What went wrong. `type` is stable, for programs; `detail` says what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


def problem(
    status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    """One answer. `kind` is the last part of `urn:chimera:problem:KIND`."""
    body = {
        "type": f"urn:chimera:problem:{kind}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail[:2_000],
        **more,
    }
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def of(error: Exception) -> JSONResponse:
    """What a caller is told of this error."""
    for kind, status in STATUS:
        if isinstance(error, kind):
            headers = {}
            if status == 401:
                headers["WWW-Authenticate"] = "Bearer"
            default_s = VAULT_RETRY_S if isinstance(error, errors.LedgerUnavailable) else None
            if (wait_s := getattr(error, "retry_after_s", default_s)) is not None:
                headers["Retry-After"] = str(max(1, math.ceil(min(wait_s, 86_400.0))))
            untold = next((words for inside, words in UNTOLD if isinstance(error, inside)), None)
            if untold is not None:
                log.warning("a request failed: %s", error)
            return problem(status, _dashed(type(error).__name__), untold or str(error), headers=headers)
    log.error("a request failed", exc_info=error)
    return problem(500, "internal", "an internal fault; it is in the server's log")


def install(app: FastAPI) -> None:
    """Have the errors of `app` answered so; what nobody expected is left to `Noted`."""

    @app.exception_handler(ChimeraError)
    async def _ours(request: Request, error: Exception) -> JSONResponse:
        return of(error)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, ChimeraError):  # FastAPI's words for a body that cannot be read say less
            return of(error.__cause__)
        kind = _dashed(HTTPStatus(error.status_code).phrase.title().replace(" ", ""))
        return problem(error.status_code, kind, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        said = [
            {"at": ".".join(str(part) for part in each["loc"])[:200], "why": str(each["msg"])[:200]}
            for each in error.errors()[:MAX_COMPLAINTS]
        ]
        first = f"{said[0]['at']}: {said[0]['why']}" if said else "it does not fit"
        if first.startswith("body: ") and "json" not in request.headers.get("content-type", ""):
            first = "its body is JSON, and says so: Content-Type: application/json"
        return problem(422, "invalid-request", f"the request does not fit: {first}", errors=said)


def _dashed(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")
