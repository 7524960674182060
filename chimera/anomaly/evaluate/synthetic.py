"""Seeded series with labelled anomalies of each kind: what the evaluation asks besides data from the world.

Six bases (flat, autoregressive, seasonal, heavy-tailed, counts, drifting) with spikes, drops, trends and broken
patterns, and the same bases with none. All of a series follows from its seed, its base and its kind. Values are scaled
and shifted over four orders of magnitude, because a threshold in a metric's own unit must not carry over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from chimera.anomaly.evaluate.series import Floats, Series, Window
from chimera.core.errors import InputError
from chimera.core.watching import AnomalyKind

Base = Literal["flat", "ar", "season", "heavy", "count", "drift"]

BASES: tuple[Base, ...] = ("flat", "ar", "season", "heavy", "count", "drift")

KINDS = (AnomalyKind.SPIKE, AnomalyKind.DROP, AnomalyKind.TREND, AnomalyKind.PATTERN)

POINTS = 1_500

PROBATION = 400

STEP_S = 10.0

START_S = 1.7e9

STARTS = ((450, 800), (1_000, 1_300))
"""The two anomalies of a series begin within these."""

GRACE = 20
"""Points after an anomaly's end at which an alert still finds it."""

FAMILY = 20240917
"""Keeps these streams apart from every other use of the same small seeds."""

MAX_SEEDS = 1_000


@dataclass
class _Draft:
    """A series in the making, in units of its noise: `shape` is what a perfect forecast knows, `noise` the rest."""

    shape: Floats
    noise: Floats
    season: Callable[[Floats], Floats] | None = None
    period: int = 0
    clean: Floats = field(init=False)
    offset: Floats = field(init=False)
    spread: Floats = field(init=False)
    stuck: list[tuple[int, int]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.clean = self.shape.copy()
        self.offset, self.spread = np.zeros(len(self.shape)), np.ones(len(self.shape))

    def values(self) -> Floats:
        values = self.shape + self.noise * self.spread + self.offset
        for start, length in self.stuck:
            values[start : start + length] = values[start - 1]
        return values


def make_synthetic(seeds: int = 3, first_seed: int = 100) -> list[Series]:
    """The series of `seeds` seeds from `first_seed` on: 30 a seed, 24 of them with two anomalies of one kind each.

    Raises InputError for seeds out of range.
    """
    if not 0 < seeds <= MAX_SEEDS or first_seed < 0:
        raise InputError(f"1..{MAX_SEEDS} seeds from 0 on, not {seeds} from {first_seed}")
    return [
        synthetic_series(base, kind, seed)
        for seed in range(first_seed, first_seed + seeds)
        for base in BASES
        for kind in (*KINDS, None)
    ]


def synthetic_series(base: Base, kind: AnomalyKind | None, seed: int) -> Series:
    """One series of `POINTS` points, one each `STEP_S`, with two anomalies of `kind`; with none where that is None."""
    number = len(KINDS) if kind is None else KINDS.index(kind)
    rng = np.random.default_rng([FAMILY, seed, BASES.index(base), number])
    draft = _MAKE[base](rng)
    windows = []
    for lowest, highest in STARTS if kind is not None else ():
        assert kind is not None
        start = int(rng.integers(lowest, highest))
        length = _STRIKE[kind](draft, base, start, rng)
        windows.append(Window(start, min(POINTS - 1, start + length - 1 + GRACE), start, kind))
    values = draft.values()
    scale, shift = 10 ** rng.uniform(-1, 3), rng.uniform(-1, 1) * 5
    values = scale * (values + (0.0 if base in ("heavy", "count") else shift))
    if base == "count" and kind is not AnomalyKind.DROP:
        values = np.maximum(values, 0)
    group = "clean" if kind is None else kind.value
    timestamps = START_S + STEP_S * np.arange(POINTS, dtype=np.float64)
    return Series(f"{base}/{group}/{seed}", "synthetic", group, timestamps, values, tuple(windows), PROBATION)


def _flat(rng: np.random.Generator) -> _Draft:
    return _Draft(np.zeros(POINTS), rng.normal(0, 1, POINTS))


def _autoregressive(rng: np.random.Generator) -> _Draft:
    shocks, noise = rng.normal(0, 0.6, POINTS), np.zeros(POINTS)
    for at in range(1, POINTS):
        noise[at] = 0.8 * noise[at - 1] + shocks[at]
    return _Draft(np.zeros(POINTS), noise)


def _seasonal(rng: np.random.Generator) -> _Draft:
    period, phase, height = int(rng.choice([48, 96, 144])), rng.uniform(0, 2 * np.pi), rng.uniform(4, 9)

    def season(at: Floats) -> Floats:
        first = np.sin(2 * np.pi * at / period + phase)
        return height * (first + 0.4 * np.sin(4 * np.pi * at / period + 1.3 * phase))

    return _Draft(season(np.arange(POINTS, dtype=float)), rng.normal(0, 1, POINTS), season, period)


def _heavy(rng: np.random.Generator) -> _Draft:
    return _Draft(np.ones(POINTS), np.exp(rng.normal(0, 0.5, POINTS)) - 1)


def _counts(rng: np.random.Generator) -> _Draft:
    """Poisson counts whose rate has a season, in units of the root of the mean rate."""
    period, mean, phase = int(rng.choice([72, 144])), rng.uniform(20, 50), rng.uniform(0, 2 * np.pi)
    root = np.sqrt(mean)

    def season(at: Floats) -> Floats:
        rate: Floats = mean * (1 + 0.4 * np.sin(2 * np.pi * at / period + phase)) / root
        return rate

    shape = season(np.arange(POINTS, dtype=float))
    return _Draft(shape, (rng.poisson(shape * root) - shape * root) / root, season, period)


def _drifting(rng: np.random.Generator) -> _Draft:
    return _Draft(np.cumsum(rng.normal(0, 0.08, POINTS)), rng.normal(0, 1, POINTS))


def _jump(sign: float) -> Callable[[_Draft, Base, int, np.random.Generator], int]:
    def strike(draft: _Draft, base: Base, start: int, rng: np.random.Generator) -> int:
        """Half of them 1..3 points and 8..15 noises high, half 10..39 points and 5..8."""
        brief = rng.random() < 0.5
        length = int(rng.integers(1, 4) if brief else rng.integers(10, 40))
        height = rng.uniform(8, 15) if brief else rng.uniform(5, 8)
        draft.offset[start : start + length] += sign * height * (1.2 if base == "heavy" and sign > 0 else 1.0)
        return length

    return strike


def _trend(draft: _Draft, base: Base, start: int, rng: np.random.Generator) -> int:
    """A ramp over 80..120 points; half of them stay where they came to."""
    length = int(rng.integers(80, 121))
    height = rng.uniform(8, 15) * (1 if rng.random() < 0.5 else -1)
    draft.offset[start : start + length] += height * np.arange(1, length + 1) / length
    if rng.random() < 0.5:
        draft.offset[start + length :] += height
    return length


def _break(draft: _Draft, base: Base, start: int, rng: np.random.Generator) -> int:
    """A season at double speed, half a period off, or gone; without season: wider noise, a stuck sensor, a swing."""
    length, mode = int(rng.integers(60, 151)), int(rng.integers(0, 3))
    at = np.arange(start, start + length)
    if draft.season is not None:
        broken = (
            lambda season: season(at * 2.0),
            lambda season: season(at + draft.period / 2),
            lambda season: np.full(length, draft.clean[at].mean()),
        )
        draft.shape[at] = broken[mode](draft.season)
    elif mode == 0:
        draft.spread[at] = rng.uniform(3, 4)
    elif mode == 1:
        draft.stuck.append((start, length))
    else:
        draft.offset[at] += rng.uniform(3, 4) * np.sin(2 * np.pi * (at - start) / 8)
    return length


_MAKE: dict[Base, Callable[[np.random.Generator], _Draft]] = {
    "flat": _flat,
    "ar": _autoregressive,
    "season": _seasonal,
    "heavy": _heavy,
    "count": _counts,
    "drift": _drifting,
}

_STRIKE: dict[AnomalyKind, Callable[[_Draft, Base, int, np.random.Generator], int]] = {
    AnomalyKind.SPIKE: _jump(1.0),
    AnomalyKind.DROP: _jump(-1.0),
    AnomalyKind.TREND: _trend,
    AnomalyKind.PATTERN: _break,
}
