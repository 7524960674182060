"""The defence against injected text: authority. What a model was told by strangers cannot make it act.

No detector finds every attack, so none is asked here. A call that follows from a tainted context is refused unless a
capability says that this tool may be used so, on this resource; a payment needs that as much as a look-up. It is the
rule of least privilege at the one place that all calls pass (Saltzer and Schroeder 1975; CaMeL, Debenedetti et al.
2025).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from chimera.core.errors import Forbidden, InputError
from chimera.security.gateway.taint import Tainted


class Effect(StrEnum):
    """What a tool does to the world. Fetching a page tells its server something: that is `SENDS`."""

    READS = "reads"
    WRITES = "writes"
    SENDS = "sends"
    PAYS = "pays"


class Capability(Protocol):
    """What the caller may do. Operations are `pays:transfer`, or `tainted:pays:transfer` in a tainted context."""

    def verify(self, operation: str, resource: str) -> bool:
        """True where it covers the operation on the resource, is valid now and not revoked."""
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
        for effect in sorted(tool.effects):
            operation = f"{effect.value}:{tool.name}"
            if not _covers(capability, operation, call.resource):
                return Verdict(False, f"no capability for {operation} on this resource")
            if sources and not _covers(capability, f"tainted:{operation}", call.resource):
                return Verdict(False, f"{operation} follows from {_named(sources)}, and no capability permits that")
        return Verdict(True, "a capability permits it")

    def check(self, call: Call, *, tainted_by: frozenset[str], capability: Capability | None) -> None:
        """As `allow`; raises `Forbidden` where it refuses."""
        verdict = self.allow(call, tainted_by=tainted_by, capability=capability)
        if not verdict.allowed:
            raise Forbidden(verdict.why)


def _covers(capability: Capability | None, operation: str, resource: str) -> bool:
    """Fail closed: a capability that cannot be verified covers nothing, and only True is yes."""
    if capability is None:
        return False
    try:
        return capability.verify(operation, resource) is True
    except Exception:
        return False


def _sources(value: object) -> frozenset[str]:
    found: set[str] = set()
    waiting: list[object] = [value]
    while waiting:
        match waiting.pop():
            case Tainted(sources=sources):
                found |= sources
            case Mapping() as members:
                waiting += [*members.keys(), *members.values()]
            case list() | tuple() | set() | frozenset() as members:
                waiting += members
    return frozenset(found)


def _named(sources: frozenset[str]) -> str:
    first = sorted(sources)[:3]
    return ", ".join(first) + (" and others" if len(sources) > len(first) else "")
