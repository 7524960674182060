"""Duels in several environments make one: a contender takes the throne if it wins enough of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from chimera.arena.duel.types import DuelResult, Probability
from chimera.arena.types import EnvId
from chimera.core.errors import InputError
from chimera.core.types import Frozen

MAX_ENVIRONMENTS = 64
"""Environments in one aggregate duel."""


class AggregateResult(Frozen):
    """Who has the throne: `contender` won `needed` environments, `champion` means that it can no longer.

    There is no third outcome: an environment where the contender does not win, for whatever reason, is `lost`, and
    `open` are those whose duel had not ended when the result stood. All are in the order of their ids; `win_rates` are
    the contender's in the environments `won`, among decisive samples.
    """

    decision: Literal["contender", "champion"]
    needed: Annotated[int, Field(ge=1)]
    won: tuple[EnvId, ...]
    lost: tuple[EnvId, ...]
    open: tuple[EnvId, ...]
    win_rates: tuple[Probability, ...]
    duels: tuple[DuelResult, ...]


def needed(n: int, k: int = 1) -> int:
    """Environments of `n` that a contender must win: ceil((n + k) / (2n) * n), at most all. Exact integers.

    k = 1 is more than half. Raises InputError unless 1 <= n <= MAX_ENVIRONMENTS and k >= 0.
    """
    if not 1 <= n <= MAX_ENVIRONMENTS:
        raise InputError(f"a duel goes over 1 to {MAX_ENVIRONMENTS} environments, not {n}")
    if k < 0:
        raise InputError(f"the lead that a contender needs is 0 or more environments, not {k}")
    return min(n, (n + k + 1) // 2)


def total(env_ids: Sequence[str], duels: Iterable[DuelResult], *, k: int = 1) -> AggregateResult | None:
    """The result of these duels, or None while it depends on those that are not over. Their order is irrelevant.

    Raises InputError for no or repeated environments, ValueError for a duel that is not one of these: in another
    environment, in one that has had its duel, or between others.
    """
    least = needed(len(env_ids), k)
    if len(set(env_ids)) != len(env_ids):
        raise InputError(f"each environment counts once: {', '.join(sorted(env_ids))}")
    ended: dict[str, DuelResult] = {}
    for duel in duels:
        if duel.env_id not in env_ids or duel.env_id in ended:
            raise ValueError(f"no duel in {duel.env_id} is awaited")
        ended[duel.env_id] = duel
    if len({(duel.champion, duel.contender) for duel in ended.values()}) > 1:
        raise ValueError("these duels are not all between the same two miners")
    won = [name for name in sorted(ended) if ended[name].decision == "contender"]
    lost = [name for name in sorted(ended) if ended[name].decision != "contender"]
    if len(won) < least <= len(env_ids) - len(lost):
        return None
    return AggregateResult(
        decision="contender" if len(won) >= least else "champion",
        needed=least,
        won=tuple(won),
        lost=tuple(lost),
        open=tuple(sorted(set(env_ids) - set(ended))),
        win_rates=tuple(ended[name].wins / (ended[name].wins + ended[name].losses) for name in won),
        duels=tuple(ended[name] for name in sorted(ended)),
    )


class Aggregate:
    """Awaits duels that run side by side, and says who has the throne as soon as that no longer depends on the rest.

    Who it is does not depend on the order in which they end; which are still open does. Raises InputError as `total`.
    """

    def __init__(self, env_ids: Sequence[str], k: int = 1) -> None:
        self.needed = needed(len(env_ids), k)
        self._env_ids = tuple(env_ids)
        self._k = k
        self._duels: tuple[DuelResult, ...] = ()
        self.result = total(self._env_ids, (), k=k)

    def record(self, duel: DuelResult) -> AggregateResult | None:
        """Count a duel that has ended; the result, if it stands now.

        Raises ValueError for a duel that is not awaited, and for any once the result stands.
        """
        if self.result is not None:
            raise ValueError(f"the throne is the {self.result.decision}'s: nothing more can be recorded")
        duels = (*self._duels, duel)
        self.result = total(self._env_ids, duels, k=self._k)
        self._duels = duels
        return self.result
