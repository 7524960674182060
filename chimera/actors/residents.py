"""The agents of a cell, and what becomes of them when the code of their policies changes.

An agent is its policy's object. With a new version of the module that the object's class is of, it becomes an object of
the new class with the same state: the very same, or what the module's `migrate(state, old_version)` makes of a copy.
The first may happen while the agent is at work, since old and new code then share what they change; the second must
wait until it is idle, or what it does meanwhile would be lost. So must an object with slots, which cannot be shared.
Agents that are one object change together.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from chimera.actors.agent_state import can_share, check_class, check_places, copied, give, holder_of, home_of, state_of
from chimera.core.errors import ReloadError
from chimera.reload.deadline import OutOfTime, ends_us, said, time_limit
from chimera.reload.held import migrated, moved_back
from chimera.reload.versions import ModuleVersion
from chimera.swarm.policy import Policy, Seat

log = logging.getLogger(__name__)

TRIAL_S = 15.0
"""What `migrate` has for a trial on all agents of a process together."""

SWITCH_S = 10.0
"""What it has for one of them when it is done in earnest."""


@dataclass(slots=True, eq=False)
class Resident:
    """An agent that lives here. `busy` counts its attempts in hand; `due` are changes that wait until there are none
    of its `mates` either, which are the same object, and `later` is what waits for those."""

    seat: Seat
    policy: Policy
    busy: int = 0
    due: list[Change] = field(default_factory=list)
    later: list[Callable[[], None]] = field(default_factory=list)
    mates: list[Resident] = field(default_factory=list)
    left: tuple[int, dict[str, Any]] | None = None
    """The version that it left last with a migration, and the state that it had then."""

    def is_of(self, module: str) -> bool:
        """Whether its code, or what its policy is called by, is of that module."""
        return home_of(self.policy) == module or (not self.seat.pickled and self.seat.policy.startswith(f"{module}:"))


@dataclass(frozen=True)
class Change:
    """From `leaving` (version `old`) to `coming`. `back_to` is set if that is an older version again.

    `lossy` gives agents back the state in which they left that version, or makes them anew.
    """

    leaving: ModuleType | None
    old: ModuleVersion | None
    coming: ModuleType
    new: ModuleVersion
    back_to: ModuleVersion | None = None
    lossy: bool = False

    @property
    def name(self) -> str:
        return self.new.module

    @property
    def converts(self) -> bool:
        """Whether states are made anew, and not shared."""
        if self.leaving is None:
            return False
        if self.back_to is None:
            return "migrate" in vars(self.coming)
        return not vars(self.leaving).keys().isdisjoint(("migrate", "migrate_back"))

    def state_of(self, resident: Resident, state: dict[str, Any]) -> dict[str, Any] | None:
        """What `state` becomes; None for an agent that begins anew. Raises ReloadError."""
        if self.leaving is None or self.old is None:
            return state
        if self.back_to is None:
            return _a_dict(migrated(self.coming, state, self.old), self.coming)
        if self.lossy and self.converts:
            return resident.left[1] if resident.left and resident.left[0] == self.new.version else None
        if self.lossy:
            return state
        return _a_dict(moved_back(self.leaving, state, self.back_to), self.leaving)


class Residents:
    """Agents by id. All of it is used in the cell's own event loop, but for `try_out` and the counts."""

    def __init__(self) -> None:
        self._all: dict[str, Resident] = {}
        self.begun_anew = 0
        """Agents whose state could not be taken over after all, and was lost."""

    def __len__(self) -> int:
        return len(self._all)

    def get(self, agent_id: str) -> Resident | None:
        return self._all.get(agent_id)

    def add(self, seat: Seat, policy: Policy) -> None:
        self._all[seat.agent_id] = Resident(seat, policy)

    def remove(self, agent_ids: Iterable[str]) -> None:
        for agent_id in agent_ids:
            if resident := self._all.pop(agent_id, None):
                _call(resident.later)

    def clear(self) -> None:
        self.remove(list(self._all))

    def try_out(self, change: Change) -> None:
        """Whether every agent could change, tried on copies of their states. From any thread. Raises ReloadError."""
        groups = self._groups(change)
        what = f"migrate() of {change.name} over the states of {len(groups)} agents"
        with time_limit(TRIAL_S, what) if change.converts else nullcontext():
            for first, *_ in groups:
                state = None
                if change.converts or first.due:
                    state = copied(first.policy, first.seat.agent_id)
                    for due in list(first.due):
                        state = due.state_of(first, state) if state is not None else None
                _tried(first, change, state)

    def switch(self, change: Change) -> None:
        """Agents go over to the new version: at once, or those at work whose state is to be migrated, after it."""
        for group in self._groups(change):
            if any(each.due for each in group) or (any(each.busy for each in group) and _waits(group[0], change)):
                for each in group:
                    each.due.append(change)
                    each.mates = group
            else:
                self._change(group, change)

    def ended(self, resident: Resident) -> None:
        """One of its attempts is over. If it was due to change, it changes now, and what waited for that begins."""
        resident.busy -= 1
        if not resident.due or any(mate.busy for mate in resident.mates):
            return
        group, changes = resident.mates, resident.due
        for mate in group:
            mate.due, mate.mates = [], []
        for change in changes:
            self._change(group, change)
        for mate in group:
            _call(mate.later)

    def due(self, module: str) -> int:
        """How many of its agents are still on an older version."""
        return sum(bool(resident.due) for resident in list(self._all.values()) if resident.is_of(module))

    def count(self, module: str) -> int:
        return sum(resident.is_of(module) for resident in list(self._all.values()))

    def _change(self, group: list[Resident], change: Change) -> None:
        first, state = group[0], state_of(group[0].policy)
        try:
            with time_limit(SWITCH_S, f"migrate() of {change.name}") if change.converts else nullcontext():
                policy = _renewed(first, change, state)
        except ReloadError as error:
            # Everybody else runs the new version by now: it begins anew, as after a crash of its cell.
            log.error("agent %s loses its state: %s", first.seat.agent_id, error)
            self.begun_anew += len(group)
            policy = _anew(first, change)
        for each in group:
            if change.converts:
                each.left = (change.old.version, state) if change.old and state and change.back_to is None else None
            each.policy = policy

    def _groups(self, change: Change) -> list[list[Resident]]:
        """Those that are to change; agents that are one object are together. They came with the new version already
        where they are of it."""
        groups: dict[tuple[int, str], list[Resident]] = {}
        for resident in list(self._all.values()):
            if resident.is_of(change.name) and not _is_of(resident, change):
                key = (id(holder_of(resident.policy) or resident.policy), _path(resident, change))
                groups.setdefault(key, []).append(resident)
        return list(groups.values())


def late(seat: Seat, policy: Policy, module: ModuleType) -> Policy:
    """`policy`, just made, as its own `module` has it in the version in use.

    A module that was loaded before and has `from module import Policy` still gives the class of an older version.
    """
    target = _at(module, _qualname(policy))
    if target is None or target is policy or target is type(policy):
        return policy
    made: Any = policy
    if inspect.isroutine(policy) and holder_of(policy) is None:
        made = target
    elif inspect.isclass(target) and _is_class(seat):
        made = target(**seat.options)
    return made  # type: ignore[no-any-return]


def _tried(resident: Resident, change: Change, state: dict[str, Any] | None) -> None:
    """`_renewed`, but for an object: whatever it does when it goes would be done with the state in use."""
    target, agent = _found(resident, change), resident.seat.agent_id
    if inspect.isclass(target):
        check_class(type(holder_of(resident.policy)), agent)
        check_class(target, agent)
    kept = change.state_of(resident, state) if state is not None else None
    if not change.converts and not resident.due:
        kept = state_of(resident.policy)  # which is not changed, and so needs no copy
    if kept is not None and inspect.isclass(target):
        check_places(target, kept)
    begins_anew = holder_of(resident.policy) is None or (state is not None and kept is None)
    if begins_anew and inspect.isclass(target):
        _safely(resident, change, lambda: target(**resident.seat.options))


def _renewed(resident: Resident, change: Change, state: dict[str, Any] | None) -> Policy:
    """The agent's policy in the new version, with that state. Raises ReloadError, whatever went wrong."""

    def make() -> Any:
        target = _found(resident, change)
        kept = change.state_of(resident, state) if state is not None else None
        if inspect.isclass(target):
            if kept is None:
                return target(**resident.seat.options)
            made = object.__new__(target)
            give(made, kept, state)
            return made
        if kept is not None and (holder := holder_of(target)) is not None:
            give(holder, kept, state)
        return target

    policy: Policy = _safely(resident, change, make)
    return policy


def _safely(resident: Resident, change: Change, make: Callable[[], Any]) -> Any:
    """Raises ReloadError for whatever else code of the new version raises."""
    try:
        return make()
    except (ReloadError, OutOfTime):
        raise
    except BaseException as error:
        if ends_us(error):
            raise
        what = f"{change.name}.{_path(resident, change)}"
        raise ReloadError(f"{what} cannot be made for agent {resident.seat.agent_id}: {said(error)}") from error


def _anew(resident: Resident, change: Change) -> Policy:
    """One that cannot even be made anew stays what it was."""

    def make() -> Any:
        target = _found(resident, change)
        return target(**resident.seat.options) if inspect.isclass(target) else target

    try:
        policy: Policy = _safely(resident, change, make)
        return policy
    except ReloadError:
        log.exception("agent %s stays with the version before", resident.seat.agent_id)
        return resident.policy


def _waits(resident: Resident, change: Change) -> bool:
    """Whether what it does on its old state is lost to the new one."""
    if (holder := holder_of(resident.policy)) is None:
        return False
    target = _at(change.coming, _path(resident, change))
    return change.converts or not can_share(type(holder), target if inspect.isclass(target) else type(target))


def _is_of(resident: Resident, change: Change) -> bool:
    target = _at(change.coming, _path(resident, change))
    return target is not None and (target is resident.policy or target is type(resident.policy))


def _path(resident: Resident, change: Change) -> str:
    """What the agent's policy is called in its module."""
    module, _, path = resident.seat.policy.partition(":")
    if not resident.seat.pickled and module == change.name:
        return path
    return _qualname(resident.policy)


def _qualname(policy: Policy) -> str:
    return str(policy.__qualname__ if inspect.isroutine(policy) else type(policy).__qualname__)


def _found(resident: Resident, change: Change) -> Any:
    """The agent's policy, or its class, in the new version. Raises ReloadError where it is not there any more."""
    path, agent = _path(resident, change), resident.seat.agent_id
    target = _at(change.coming, path)
    bound = resident.seat.pickled and inspect.isroutine(resident.policy) and holder_of(resident.policy) is not None
    if callable(target) and not bound:
        return target
    if bound or "<" in path:
        raise ReloadError(
            f"agent {agent} is {path} of {change.name}, which has no name to find it by in a new version: give such a "
            "policy as 'package.module:name', or end that agent"
        )
    raise ReloadError(f"{change.name} has no {path}, which agent {agent} is: keep it, or end that agent")


def _is_class(seat: Seat) -> bool:
    module, _, path = seat.policy.partition(":")
    return not seat.pickled and inspect.isclass(_at(sys.modules.get(module), path))


def _at(module: ModuleType | None, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _a_dict(state: Any, module: ModuleType) -> dict[str, Any]:
    if not isinstance(state, dict):
        raise ReloadError(f"migrate() of {module.__name__} gave a {type(state).__name__}: give back the state, a dict")
    return state


def _call(later: list[Callable[[], None]]) -> None:
    waiting, later[:] = list(later), []
    for begin in waiting:
        begin()
