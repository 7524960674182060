"""Which terms burst: Kleinberg's automaton over batches of documents, for many terms at once, as the stream comes in.

Each term has states 0, 1, ... In state i a document mentions it with probability p0 * s^i; going up a state costs
gamma * ln(n). The cheapest sequence of states is the term's history (J. Kleinberg, "Bursty and hierarchical structure
in streams", KDD 2002, section 4, enumerating). Here it is found by a streaming Viterbi pass: for each state only the
cost of the cheapest path to it, where that path left state 0, and what it gained since. So memory is one row a term,
whatever the length of the stream.

Two things differ from the paper. Kleinberg takes p0 from the whole stream; a stream that goes on has no whole, so p0 is
what was seen before this batch, forgotten at a half-life. And mentions are no independent draws: a term whose count
strays further from its mean than a binomial one counts for less by that factor (quasi-likelihood, R. W. M. Wedderburn,
Biometrika 61, 1974), measured by mean absolute deviations, which one burst does not upset.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from chimera.core.errors import InputError
from chimera.core.types import Frozen

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_P: Final = 1e-9
MOST_P: Final = 0.99
PRIOR: Final = 0.5
"""Mentions that a term is taken to have had before it was ever seen (Jeffreys' prior of a rate)."""

NORMAL: Final = math.sqrt(2 / math.pi)
"""The mean absolute deviation of a normal variable, in standard deviations."""

TRUST: Final = 10.0
"""Batches of binomial spread that a term is taken to have had."""

NEVER: Final = -1


class BurstOptions(Frozen):
    """`scaling` is s, the ratio of one state's rate to the one below; `gamma` what it takes to go up.

    `horizon` is n, the batches among which a burst is looked for; `half_life` is in batches.
    """

    states: Annotated[int, Field(ge=2, le=6)] = 3
    scaling: Annotated[float, Field(gt=1.0, le=10.0)] = 3.0
    gamma: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    horizon: Annotated[int, Field(ge=2, le=100_000)] = 100
    half_life: Annotated[float, Field(ge=1.0, le=1e6)] = 336.0
    max_terms: Annotated[int, Field(ge=10, le=200_000)] = 20_000


class Burst(NamedTuple):
    """A term that bursts. `since` is the batch it began in; `gain` what calling it a burst saves, in nats,
    less what it costs to go up."""

    term: str
    state: int
    since: int
    gain: float


class Paths(NamedTuple):
    """For each term and state the cheapest path that ends there: cost, where it left state 0, gain. Each (V, S)."""

    costs: Floats
    since: Ints
    gains: Floats


class TableState(Frozen):
    """A table as it is kept. Rows are in the order of `terms`."""

    terms: tuple[str, ...]
    mass: tuple[float, ...]
    strayed: tuple[float, ...]
    costs: tuple[tuple[float, ...], ...]
    since: tuple[tuple[int, ...], ...]
    gains: tuple[tuple[float, ...], ...]
    documents: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    batches: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    batch: int


class BurstTable:
    """The automata of all terms. A term that is not there is as one that was never mentioned."""

    def __init__(self, options: BurstOptions) -> None:
        self.options = options
        self.documents = 0.0
        self.batch = NEVER
        self._row: dict[str, int] = {}
        self._batches = 0.0
        self._mass: Floats = np.zeros(0)
        self._strayed: Floats = np.zeros(0)
        self._paths = _fresh(0, options)

    def __len__(self) -> int:
        return len(self._row)

    def mass(self, term: str) -> float:
        """How often it was mentioned, what is long ago counting less."""
        row = self._row.get(term)
        return 0.0 if row is None else float(self._mass[row])

    def spread(self, term: str) -> float:
        """How many times the variance of its count is a binomial one's; at least 1."""
        row = self._row.get(term)
        return 1.0 if row is None else float(_spread(self._strayed[row : row + 1], self._batches)[0])

    @property
    def total(self) -> float:
        """The mass of all terms."""
        return float(self._mass.sum())

    def observe(self, batch: int, mentions: Mapping[str, int], documents: int) -> None:
        """Take in a batch: how many of its documents mention each term. Empty batches may be left out.

        Raises InputError for one that comes out of order.
        """
        if batch <= self.batch:
            raise InputError(f"batch {batch} comes after {self.batch}: batches are taken in order")
        if documents <= 0:
            return
        self._admit(mentions)
        counts = np.zeros(len(self._row))
        for term, count in mentions.items():
            counts[self._row[term]] = count
        rates, spread = _rates(self._mass, self.documents), _spread(self._strayed, self._batches)
        self._paths = step(self._paths, counts, documents, rates, spread, batch, self.options)
        fade = self._fade(batch)
        if self.documents:
            # one more, or a rare term would stray by its every mention
            deviation = np.sqrt(documents * rates * (1.0 - rates) + 1.0)
            self._strayed = self._strayed * fade + np.abs(counts - documents * rates) / deviation
            self._batches = self._batches * fade + 1.0
        self._mass = self._mass * fade + counts
        self.documents = self.documents * fade + documents
        self.batch = batch
        if len(self._row) > self.options.max_terms:
            self._prune()

    def bursts(self, batch: int, mentions: Mapping[str, int], documents: int) -> list[Burst]:
        """The terms that burst if the batch that is still open, with this in it, were the last. Changes nothing.

        The way down costs nothing, so that a single quiet document takes the cheapest path there. A burst goes on for
        as long as the cheapest path that stays up has saved more than it cost to go up.
        """
        terms = list(self._row)
        new = [term for term in mentions if term not in self._row]
        paths, none = _extended(self._paths, len(new), self.options), np.zeros(len(new))
        if documents > 0:
            counts = np.array([mentions.get(term, 0) for term in (*terms, *new)], dtype=np.float64)
            rates = _rates(np.append(self._mass, none), self.documents)
            spread = _spread(np.append(self._strayed, none), self._batches)
            paths = step(paths, counts, documents, rates, spread, batch, self.options)
        states = 1 + paths.costs[:, 1:].argmin(axis=1)
        everyone = np.arange(len(states))
        gains, since = paths.gains[everyone, states], paths.since[everyone, states]
        named = [*terms, *new]
        return [
            Burst(named[row], int(states[row]), int(since[row]), float(gains[row]))
            for row in np.flatnonzero(gains > 0.0).tolist()
        ]

    def kept(self) -> TableState:
        return TableState(
            terms=tuple(self._row),
            mass=tuple(self._mass.tolist()),
            strayed=tuple(self._strayed.tolist()),
            costs=tuple(map(tuple, self._paths.costs.tolist())),
            since=tuple(map(tuple, self._paths.since.tolist())),
            gains=tuple(map(tuple, self._paths.gains.tolist())),
            documents=self.documents,
            batches=self._batches,
            batch=self.batch,
        )

    def restore(self, kept: TableState) -> None:
        """Go on from there. Raises InputError for what does not fit together, or was kept with other options."""
        rows, states = len(kept.terms), self.options.states
        grids = (kept.costs, kept.since, kept.gains)
        square = all(len(row) == states for grid in grids for row in grid)
        if (
            any(len(part) != rows for part in (kept.mass, kept.strayed, *grids))
            or not square
            or len(set(kept.terms)) != rows
        ):
            raise InputError("what was kept of the trends was kept with other options, or is not whole: begin anew")
        self._row = {term: row for row, term in enumerate(kept.terms)}
        self._mass = np.array(kept.mass, dtype=np.float64)
        self._strayed = np.array(kept.strayed, dtype=np.float64)
        shape = (rows, states)
        self._paths = Paths(
            np.array(kept.costs, dtype=np.float64).reshape(shape),
            np.array(kept.since, dtype=np.int64).reshape(shape),
            np.array(kept.gains, dtype=np.float64).reshape(shape),
        )
        self.documents, self._batches, self.batch = kept.documents, kept.batches, kept.batch

    def _admit(self, mentions: Mapping[str, int]) -> None:
        before = len(self._row)
        for term in mentions:
            self._row.setdefault(term, len(self._row))
        new = len(self._row) - before
        self._mass = np.append(self._mass, np.zeros(new))
        self._strayed = np.append(self._strayed, np.zeros(new))
        self._paths = _extended(self._paths, new, self.options)

    def _fade(self, batch: int) -> float:
        return 1.0 if self.batch == NEVER else 0.5 ** ((batch - self.batch) / self.options.half_life)

    def _prune(self) -> None:
        """Forget the terms that were mentioned least, those that burst last. It makes room for a tenth more."""
        keep = self.options.max_terms * 9 // 10
        bursting = self._paths.costs.argmin(axis=1) > 0
        order = np.lexsort((-np.arange(len(self._mass)), self._mass, bursting))
        rows = np.sort(order[len(order) - keep :])
        terms = list(self._row)
        self._row = {terms[row]: place for place, row in enumerate(rows.tolist())}
        self._mass, self._strayed = self._mass[rows], self._strayed[rows]
        costs, since, gains = self._paths
        self._paths = Paths(costs[rows], since[rows], gains[rows])


def step(
    paths: Paths, counts: Floats, documents: int, rates: Floats, spread: Floats, batch: int, options: BurstOptions
) -> Paths:
    """The cheapest paths after one more batch: `counts` of `documents`, at base `rates`, of that `spread`; each (V,).

    The binomial coefficient is the same in all states, and left out.
    """
    states = np.arange(options.states)
    p = np.clip(rates[:, None] * options.scaling ** states[None, :], LEAST_P, MOST_P)
    r = np.minimum(counts, documents)[:, None]
    emission = -(r * np.log(p) + (documents - r) * np.log1p(-p)) / spread[:, None]
    up = options.gamma * math.log(options.horizon) * np.maximum(states[None, :] - states[:, None], 0)
    through = paths.costs[:, :, None] + up[None]
    came = through.argmin(axis=1)
    cost = np.take_along_axis(through, came[:, None, :], axis=1)[:, 0, :] + emission
    since = np.take_along_axis(paths.since, came, axis=1)
    gains = np.take_along_axis(paths.gains, came, axis=1) + emission[:, :1] - emission
    gains -= np.take_along_axis(np.broadcast_to(up, through.shape), came[:, None, :], axis=1)[:, 0, :]
    since = np.where(states[None, :] == 0, NEVER, np.where(came == 0, batch, since))
    gains = np.where(states[None, :] == 0, 0.0, gains)
    return Paths(cost - cost.min(axis=1, keepdims=True), since, gains)


def _rates(mass: Floats, documents: float) -> Floats:
    rates: Floats = np.clip((mass + PRIOR) / (documents + 1.0), LEAST_P, MOST_P)
    return rates


def _spread(strayed: Floats, batches: float) -> Floats:
    mean = (strayed + TRUST * NORMAL) / (batches + TRUST)
    spread: Floats = np.maximum(1.0, (mean / NORMAL) ** 2)
    return spread


def _fresh(rows: int, options: BurstOptions) -> Paths:
    """All terms in state 0, which is where Kleinberg's automaton begins."""
    shape = (rows, options.states)
    start = options.gamma * math.log(options.horizon) * np.arange(options.states)
    return Paths(np.tile(start, (rows, 1)), np.full(shape, NEVER, dtype=np.int64), np.zeros(shape))


def _extended(paths: Paths, rows: int, options: BurstOptions) -> Paths:
    if not rows:
        return paths
    fresh = _fresh(rows, options)
    return Paths(
        np.concatenate((paths.costs, fresh.costs)),
        np.concatenate((paths.since, fresh.since)),
        np.concatenate((paths.gains, fresh.gains)),
    )
