"""A swarm's agents as its coordinator knows them: their seats, their roles, and who was spawned for which request."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from chimera.actors.muster import Muster
from chimera.swarm.policy import Seat


class Enlisted:
    """The agents that `muster` tells of, and those that came since. Their numbers are never used again."""

    def __init__(self, muster: Muster | None = None) -> None:
        past = muster or Muster()
        self.seats: dict[str, Seat] = {agent_id: seat for agent_id, (_, seat) in past.seats.items()}
        self.requests: dict[str, list[str]] = past.requests
        """The ids that each spawn request was given."""
        self.roles: set[str] = {seat.role for seat in self.seats.values()}
        self._next = past.next_number

    def number(self, seats: Sequence[Seat]) -> tuple[int, list[Seat]]:
        """These with an id each, and the number of the first."""
        first, self._next = self._next, self._next + len(seats)
        return first, [seat.named(f"{seat.role}-{first + n}") for n, seat in enumerate(seats)]

    def take_in(self, seats: Sequence[Seat], request: str) -> None:
        """They have been spawned."""
        self.seats |= {seat.agent_id: seat for seat in seats}
        self.roles |= {seat.role for seat in seats}
        if request:
            self.requests.setdefault(request, []).extend(seat.agent_id for seat in seats)

    def dismiss(self, gone: Collection[str]) -> None:
        """They are not there any more. A request that one of them was spawned for may be made anew."""
        self.seats = {agent_id: seat for agent_id, seat in self.seats.items() if agent_id not in gone}
        self.requests = {r: ids for r, ids in self.requests.items() if not any(each in gone for each in ids)}
        self.roles = {seat.role for seat in self.seats.values()}
