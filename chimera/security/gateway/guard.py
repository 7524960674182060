"""The defence against injected text: authority. What a model was told by strangers cannot make it act.

No detector finds every attack, so none is asked here. A call that follows from a tainted context is refused unless a
capability says that this tool may be used so, on this resource; a payment needs that as much as a look-up. It is the
rule of least privilege at the one place that all calls pass (Saltzer and Schroeder 1975; CaMeL, Debenedetti et al.
2025).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import PurePath
from typing import Final, Protocol
from uuid import UUID

from chimera.core.errors import Forbidden, InputError
from chimera.security.gateway.taint import Tainted

PLAIN: Final = (str, bytes, int, float, complex, Decimal, date, time, timedelta, UUID, Enum, PurePath, type(None))
"""Arguments that hold nothing but themselves."""

UNKNOWN: Final = "unknown"
"""The source of an argument that nobody can look into: it may hold anything."""


class Effect(StrEnum):
    """What a tool does to the world. Fetching a page tells its server something: that is `SENDS`."""

    READS = "reads"
    WRITES = "writes"
    SENDS = "sends"
    PAYS = "pays"


class Capability(Protocol):
    """What the caller may do. Operations are `pays:transfer`, or `tainted:pays:transfer` in a tainted context."""

    def verify(self, operations: tuple[str, ...], resource: str) -> bool:
        """True where it covers all that one call is, on this resource, is valid now and not revoked."""
        ...


@dataclass(frozen=True)
class Tool:
    """A tool and all of its effects."""

    name: str
    effects: frozenset[Effect]

    def __post_init__(self) -> None:
        if not self.effects:
            raise InputError(f"the tool {self.name} has to declare its effects: reads, writes, sends or pays")


@dataclass(frozen=True)
class Call:
    """What a model wants to do: a tool's name, what it acts on, and its arguments."""

    tool: str
    resource: str
    arguments: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Verdict:
    """Whether a call may be made, and why."""

    allowed: bool
    why: str


class ToolGuard:
    """Knows the tools and their effects, and no other tool."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in self._tools:
                raise InputError(f"the tool {tool.name} is declared twice")
            self._tools[tool.name] = tool

    def allow(self, call: Call, *, tainted_by: frozenset[str], capability: Capability | None) -> Verdict:
        """Refuse all that is not permitted. `tainted_by` is `Trail.sources`; tainted arguments count besides."""
        tool = self._tools.get(call.tool)
        if tool is None:
            return Verdict(False, f"no tool {call.tool[:64]!r} is declared")
        sources = tainted_by | _sources(call.arguments)
        if not sources and tool.effects == {Effect.READS}:
            return Verdict(True, "reads, and nothing from outside had a part in it")
        operations = tuple(f"{effect.value}:{tool.name}" for effect in sorted(tool.effects))
        tainted = tuple(f"tainted:{operation}" for operation in operations) if sources else ()
        if _covers(capability, operations + tainted, call.resource):  # one question: a call is one use
            return Verdict(True, "a capability permits it")
        asked = ", ".join(operations)
        if sources:
            return Verdict(False, f"{asked} follows from {_named(sources)}, and no capability permits that")
        return Verdict(False, f"no capability for {asked} on this resource")

    def check(self, call: Call, *, tainted_by: frozenset[str], capability: Capability | None) -> None:
        """As `allow`; raises `Forbidden` where it refuses."""
        verdict = self.allow(call, tainted_by=tainted_by, capability=capability)
        if not verdict.allowed:
            raise Forbidden(verdict.why)


def _covers(capability: Capability | None, operations: tuple[str, ...], resource: str) -> bool:
    """Fail closed: a capability that cannot be verified covers nothing, and only True is yes."""
    if capability is None:
        return False
    try:
        return capability.verify(operations, resource) is True
    except Exception:
        return False


def _sources(value: object) -> frozenset[str]:
    """Where what stands in a value is from, however deep; what cannot be looked into counts as from outside."""
    found: set[str] = set()
    seen: dict[int, object] = {}  # and so alive: an id is not given twice meanwhile
    waiting: list[object] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, PLAIN) or id(each) in seen:
            continue
        seen[id(each)] = each
        match each:
            case Tainted(sources=sources):
                found |= sources
            case Mapping() as members:
                waiting += [*members.keys(), *members.values()]
            case Collection() as members:
                waiting += members
            case _:
                found.add(UNKNOWN)
    return frozenset(found)


def _named(sources: frozenset[str]) -> str:
    first = sorted(sources)[:3]
    return ", ".join(first) + (" and others" if len(sources) > len(first) else "")
