"""Problem documents of the API (RFC 9457) as the errors that they were made of."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from chimera.core import errors
from chimera.core.errors import ChimeraError

URN = "urn:chimera:problem:"

MAX_DETAIL = 2_000

BY_STATUS: Mapping[int, type[ChimeraError]] = {
    400: errors.InputError,
    401: errors.Unauthenticated,
    402: errors.BudgetExceeded,
    403: errors.Forbidden,
    404: errors.NotThere,
    408: errors.InputError,
    409: errors.Overloaded,
    413: errors.InputError,
    422: errors.InputError,
    429: errors.RateLimited,
    501: errors.NotBuilt,
    502: errors.ModelError,
    503: errors.Overloaded,
}
"""What a status is where the document names no error of ours. Any other: SwarmError."""

USUAL_WAIT_S = 1.0


def error_of(status: int, document: object, retry_after: str | None = None) -> ChimeraError:
    """The error that this answer tells of. `document` is its JSON, None where it has none."""
    told: Mapping[str, Any] = document if isinstance(document, dict) else {}
    kind = str(told.get("type", "")).removeprefix(URN)
    given: dict[str, Any] = {
        "message": str(told.get("detail") or f"the node answered {status}")[:MAX_DETAIL],
        "retry_after_s": wait_s(retry_after),
        "reason": str(told.get("reason", "")),
    }
    found = _KINDS.get(kind) or BY_STATUS.get(status, errors.SwarmError)
    for each in found.__mro__:
        if issubclass(each, ChimeraError) and _needs(each) <= given.keys():
            return each(**{name: given[name] for name in _needs(each)})
    raise AssertionError("ChimeraError itself needs a message only")


def wait_s(retry_after: str | None) -> float:
    """Seconds of a Retry-After header."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        return USUAL_WAIT_S
    return min(seconds, 86_400.0) if math.isfinite(seconds) and seconds >= 0 else USUAL_WAIT_S


def _needs(kind: type[ChimeraError]) -> set[str]:
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return {each.name for each in parameters if each.default is each.empty or each.name == "retry_after_s"}


def _dashed(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


_KINDS = {
    _dashed(name): kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, ChimeraError)
} | {"interrupted": errors.SwarmError}
