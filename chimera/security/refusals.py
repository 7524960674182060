"""What was refused in the course of one request, held for whoever writes that request down: it stands there once.

Who refuses knows the permission and the resource; whoever answers the request knows where it came from. Within `held`
the first hands over to the second. Elsewhere, and once it was taken, who refuses writes it down themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

MAX_HELD = 16
"""Of one request. More are written by whoever refuses."""


class AuditSink(Protocol):
    """Where it is written down who did what, and what was refused."""

    def append(
        self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue]
    ) -> object: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """Who was refused which permission, on what."""

    actor: str
    permission: str
    resource: str
    detail: Mapping[str, JsonValue] = field(default_factory=dict)


class Refusals:
    """Those of one request, in their order."""

    def __init__(self) -> None:
        self._held: list[Refusal] = []
        self._taken = False

    def hold(self, refusal: Refusal) -> bool:
        """Whether it is somebody else's to write down now."""
        if self._taken or len(self._held) >= MAX_HELD:
            return False
        self._held.append(refusal)
        return True

    def take(self) -> tuple[Refusal, ...]:
        """All of them, for good: from now on none is held."""
        self._taken = True
        return tuple(self._held)


_HERE: ContextVar[Refusals | None] = ContextVar("chimera_refusals", default=None)


@contextmanager
def held() -> Iterator[Refusals]:
    """Hold what is refused within, in this task and in what it starts, for whoever asks the `Refusals` for it."""
    refusals = Refusals()
    token = _HERE.set(refusals)
    try:
        yield refusals
    finally:
        _HERE.reset(token)


def hold(refusal: Refusal) -> bool:
    """Whether whoever writes down the request that this belongs to has taken it on."""
    refusals = _HERE.get()
    return refusals is not None and refusals.hold(refusal)
