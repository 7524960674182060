"""Which manager gets an attempt: one that has agents who may take it, and of those the least busy. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from chimera.core.types import FailureKind
from chimera.swarm.attempt import Appraisal, Attempt, Report

Kind = tuple[str, str, frozenset[str]]
"""What agents have in common: role, policy identity, skills."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent belongs."""

    manager: str
    kind: Kind


class _Sent(NamedTuple):
    manager: str
    task_key: str
    mission_id: str
    at: float


class Router:
    """Knows every agent's manager, and which manager has which attempt. One agent one vote holds over all of them."""

    def __init__(self) -> None:
        self._agents: dict[str, Place] = {}
        self._kinds: dict[str, Counter[Kind]] = defaultdict(Counter)
        self._open: dict[str, _Sent] = {}
        self._load: Counter[str] = Counter()
        self._by_task: Counter[tuple[str, str]] = Counter()
        self._policies: dict[str, list[str]] = {}
        self._up: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._agents)

    def __contains__(self, attempt_id: str) -> bool:
        return attempt_id in self._open

    @property
    def roles(self) -> set[str]:
        return {kind[0] for kinds in self._kinds.values() for kind in kinds}

    def agents_of(self, manager: str) -> int:
        """How many agents the manager has."""
        return sum(self._kinds[manager].values())

    def add(self, manager: str, agent_id: str, *, role: str, policy: str, skills: Iterable[str] = ()) -> None:
        """An agent, and the manager it belongs to."""
        kind = (role, policy, frozenset(skills))
        self._agents[agent_id] = Place(manager, kind)
        self._kinds[manager][kind] += 1
        self._policies.clear()

    def remove(self, agent_id: str) -> None:
        """The agent is gone."""
        if place := self._agents.pop(agent_id, None):
            self._kinds[place.manager][place.kind] -= 1
            if not self._kinds[place.manager][place.kind]:
                del self._kinds[place.manager][place.kind]
            self._policies.clear()

    def weigh(self, manager: str, up: float) -> None:
        """`up` of the manager's agents, a share, can be given work now. With none it gets what no other could take."""
        self._up[manager] = up

    def manager_of(self, attempt_id: str) -> str | None:
        """Who has the attempt, if it is in progress."""
        found = self._open.get(attempt_id)
        return found.manager if found else None

    def open_at(self, manager: str) -> set[str]:
        """The attempts that the manager has."""
        return {attempt_id for attempt_id, sent in self._open.items() if sent.manager == manager}

    def route(self, attempts: Iterable[Attempt], now: float = 0.0) -> tuple[dict[str, list[Attempt]], list[Report]]:
        """Attempts by manager, and refusals of those that nobody could ever take."""
        routed: dict[str, list[Attempt]] = defaultdict(list)
        refused: list[Report] = []
        for attempt in attempts:
            if attempt.different:
                policies = self._policies_of(attempt.role)
                if attempt.replica >= len(policies):
                    refused.append(_refusal(attempt, _too_few(attempt, len(policies))))
                    continue
                attempt = replace(attempt, policy=policies[attempt.replica])
            manager = self._open[attempt.id].manager if attempt.id in self._open else self._choose(attempt)
            if manager is None:
                refused.append(_refusal(attempt, _nobody(attempt)))
                continue
            if attempt.id not in self._open:
                self._open[attempt.id] = _Sent(manager, attempt.task_key, attempt.mission_id, now)
                self._load[manager] += 1
                self._by_task[manager, attempt.task_key] += 1
            routed[manager].append(attempt)
        return routed, refused

    def ended(self, attempt_id: str) -> tuple[str, float] | None:
        """The attempt has ended: whose it was and when it was sent, if it was in progress."""
        found = self._open.pop(attempt_id, None)
        if found is None:
            return None
        self._load[found.manager] -= 1
        key = (found.manager, found.task_key)
        self._by_task[key] -= 1
        if not self._by_task[key]:
            del self._by_task[key]
        return found.mission_id, found.at

    def sort(self, appraisals: Iterable[Appraisal]) -> dict[str, list[Appraisal]]:
        """Appraisals by the manager of whom they are about."""
        sorted_: dict[str, list[Appraisal]] = defaultdict(list)
        for appraisal in appraisals:
            if place := self._agents.get(appraisal.agent):
                sorted_[place.manager].append(appraisal)
        return sorted_

    def _choose(self, attempt: Attempt) -> str | None:
        best: tuple[bool, bool, float, str] | None = None
        for manager, kinds in self._kinds.items():
            able = sum(count for kind, count in kinds.items() if _may(kind, attempt))
            if not able:
                continue
            out = self._by_task[manager, attempt.task_key] if len(self._kinds) > 1 else 0
            out += sum(1 for agent in attempt.barred if (p := self._agents.get(agent)) and p.manager == manager)
            full = out >= able and len(self._kinds) > 1
            up = self._up.get(manager, 1.0)
            rank = (full, not up, (self._load[manager] + 1) / (able * (up or 1.0)), manager)
            if best is None or rank < best:
                best = rank
        return best[3] if best else None

    def _policies_of(self, role: str) -> list[str]:
        if role not in self._policies:
            found = {kind[1] for kinds in self._kinds.values() for kind in kinds if kind[0] == role}
            self._policies[role] = sorted(found)
        return self._policies[role]


def _may(kind: Kind, attempt: Attempt) -> bool:
    role, policy, skills = kind
    return (
        role == attempt.role
        and (not attempt.policy or attempt.policy == policy)
        and (not attempt.skill or attempt.skill in skills)
    )


def _nobody(attempt: Attempt) -> str:
    what = f"role {attempt.role!r}" + (f" and skill {attempt.skill!r}" if attempt.skill else "")
    return f"no agent has {what}; spawn one"


def _too_few(attempt: Attempt, policies: int) -> str:
    if not policies:
        return _nobody(attempt)
    return f"role {attempt.role!r} has {policies} different policies; replica {attempt.replica + 1} needs another"


def _refusal(attempt: Attempt, why: str) -> Report:
    return Report(attempt.id, attempt.mission_id, failure=FailureKind.NO_AGENT, detail=why)
