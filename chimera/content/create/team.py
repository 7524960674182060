"""Who makes an item: one that plans, some that write, some that judge. Models do, or without one, rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import Field

from chimera.content.create.brief import Brief
from chimera.content.create.item import Claim, Kind, Part, Score
from chimera.core.hashing import digest
from chimera.core.types import Frozen, Name


class Plan(Frozen):
    """What kind of item, which sources it rests on, and what it is to bring across."""

    kind: Kind
    source_ids: tuple[Name, ...] = Field(min_length=1, max_length=12)
    angle: str = Field(default="", max_length=300)


class Draft(Frozen):
    """What one writer wrote."""

    parts: tuple[Part, ...] = Field(min_length=1, max_length=25)
    claims: tuple[Claim, ...] = Field(default=(), max_length=64)

    @property
    def id(self) -> str:
        return digest(self.model_dump(mode="json"), size_bytes=8)


class Planner(Protocol):
    """Plans from the brief's own fields; it never sees what a source says."""

    async def plan(self, brief: Brief) -> Plan: ...


class Writer(Protocol):
    """Writes one draft, from the sources of the plan."""

    name: str

    async def write(self, brief: Brief, plan: Plan) -> Draft: ...


class Judge(Protocol):
    """Scores a draft. One that bears a writer's name is that writer, and is not asked about its own."""

    name: str

    async def judge(self, brief: Brief, draft: Draft) -> Score: ...


@dataclass(frozen=True, slots=True)
class Team:
    """`wrote` is the model's name, for the item."""

    planner: Planner
    writers: Sequence[Writer]
    judges: Sequence[Judge]
    wrote: str
