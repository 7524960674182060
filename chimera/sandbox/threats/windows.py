"""Threats in windows of a metric: a table whose columns are consecutive points, each record a window of its own.

A batch of records is off where its means are; a window is off against itself: its level moves, it begins to climb,
some of its points jump.
"""

from __future__ import annotations

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.schema import Floats, Integers, Schema, Table
from chimera.sandbox.threats.evasion import BOLDER, CALMER, unit
from chimera.sandbox.threats.kinds import (
    QUERIES,
    BatchDetector,
    Reference,
    Synthetic,
    ThreatKind,
    Threats,
    checked,
    drawn,
)
from chimera.sandbox.threats.lattice import place

SPIKE = 6.0
"""Standard deviations by which a poisoned point jumps."""

TRIES = 8
"""Shapes tried for each window in a round of the search."""


def make_window_threats(
    synthetic: Synthetic,
    n: int,
    kind: ThreatKind,
    strength: float,
    *,
    reference: Reference,
    rng: np.random.Generator,
    detector: BatchDetector | None = None,
    queries: int = QUERIES,
) -> Threats:
    """`n` windows of that kind, each drawn and then changed against itself, up or down by chance.

    - biased: its level is moved by `strength` standard deviations, its mean so to half a grain over its points.
    - drifted: a ramp from 0 at its first point to `strength` at its last.
    - poisoned: a share `strength` of its points jumps by SPIKE standard deviations, or to the end of the range.
    - evasive: a shape whose root mean square over the points is `strength`: the one, of `queries` tries for each
      window, that `detector` scores lowest. It is asked about windows as batches of one row.

    Lattice and ranges are kept. Raises InputError where the columns are not points of one metric, where a window has
    no room for the shift either way, or for wrong arguments.
    """
    checked(kind, strength, detector, queries)
    table = drawn(synthetic, n, reference, rng)
    _one_metric(table.schema)
    before = table.schema.index(table.values)
    asked = 0
    if kind is ThreatKind.POISONED:
        after = _spiked(before, strength, reference, table.schema, rng)
    elif kind is ThreatKind.EVASIVE and detector is not None:
        after, asked = _evasive(before, strength, reference, table.schema, rng, detector, queries)
    else:
        points = len(table.schema)
        profile = np.ones(points) if kind is ThreatKind.BIASED else np.linspace(0.0, 1.0, points)
        shift = strength * profile * reference.sds / table.schema.grain
        after = _moved(before, np.broadcast_to(shift, before.shape), table.schema, rng)
    made = Table(table.schema, table.schema.values(after), table.labels)
    return Threats(
        table=made,
        before=table,
        kind=kind,
        strength=strength,
        bias=(made.values - table.schema.values(before)).mean(axis=0),
        changed=(before != after).any(axis=1),
        queries=asked,
    )


def _one_metric(schema: Schema) -> None:
    first = schema.columns[0]
    if any((column.low, column.high, column.step) != (first.low, first.high, first.step) for column in schema.columns):
        raise InputError("the columns of a window are points of one metric: they have the same range and step")


def _moved(before: Integers, shift: Floats, schema: Schema, rng: np.random.Generator) -> Integers:
    """Windows (n, points) with `shift` (n, points) added or taken away: by chance, or the way that has room."""
    total, most = shift.sum(axis=1), len(schema) * int(schema.levels[0])
    level = before.sum(axis=1)
    up, down = (np.rint(level + side * total) for side in (1, -1))
    fits_up, fits_down = (up >= 0) & (up <= most), (down >= 0) & (down <= most)
    if not (fits_up | fits_down).all():
        room = float(np.min(np.maximum(most - level, level) / np.maximum(np.abs(total), 1e-12)))
        raise InputError(
            f"a window has no room for such a shift within its range: the largest is {room:.4g} times what was asked"
        )
    sign = np.where(fits_up & (~fits_down | (rng.random(len(before)) < 0.5)), 1.0, -1.0)
    return place((before + sign[:, None] * shift).T, schema.levels[:1], rng).T


def _spiked(
    before: Integers, strength: float, reference: Reference, schema: Schema, rng: np.random.Generator
) -> Integers:
    count = max(1, round(strength * len(schema))) if strength else 0
    struck = rng.random(before.shape).argsort(axis=1) < count
    jump = SPIKE * reference.sds / schema.grain
    up = before + jump
    sign = np.where((up > schema.levels) | (rng.random(before.shape) < 0.5), -1.0, 1.0)
    jumped = np.clip(np.rint(before + sign * jump), 0, schema.levels).astype(np.int64)
    return np.where(struck, jumped, before)


def _evasive(
    before: Integers,
    strength: float,
    reference: Reference,
    schema: Schema,
    rng: np.random.Generator,
    detector: BatchDetector,
    queries: int,
) -> tuple[Integers, int]:
    """The windows with the shapes that the detector scores lowest, all windows searched at once; queries for each."""
    n, points = before.shape
    live, far = reference.sds > 0.0, np.full((2, points), np.inf)
    far[:, ~live] = 0.0
    best, lowest, shape, step, asked = before, np.full(n, np.inf), np.zeros((n, points)), np.full(n, 0.5), 0
    while asked < queries:
        tries = min(TRIES, queries - asked)
        shapes = shape[:, None, :] + step[:, None, None] * rng.standard_normal((n, tries, points))
        if not asked:
            shapes = _simple_shapes(n, tries, points, rng)
        shapes = unit(shapes.reshape(n * tries, points), far, live).reshape(n, tries, points)
        shift = (strength * shapes * reference.sds / schema.grain).reshape(n * tries, points)
        windows = _moved(before.repeat(tries, axis=0), shift, schema, rng)
        scores = detector.score(schema.values(windows)[:, None, :]).reshape(n, tries)
        asked += tries
        winner, each = scores.argmin(axis=1), np.arange(n)
        gained = scores[each, winner] < lowest
        best = np.where(gained[:, None], windows.reshape(n, tries, points)[each, winner], best)
        shape = np.where(gained[:, None], shapes[each, winner], shape)
        lowest = np.where(gained, scores[each, winner], lowest)
        step = np.clip(step * np.where(gained, BOLDER, CALMER), 0.02, 1.0)
    return best, asked


def _simple_shapes(n: int, tries: int, points: int, rng: np.random.Generator) -> Floats:
    """(n, tries, points) waves of a few lengths: a level is the longest, a zigzag the shortest."""
    cycles = np.where(np.arange(tries) == 0, 0.0, 2.0 ** rng.uniform(-2.0, np.log2(max(points / 2.0, 1.0)), (n, tries)))
    phase = np.where(np.arange(tries) == 0, np.pi / 2, rng.uniform(0.0, 2.0 * np.pi, (n, tries)))
    turned = 2.0 * np.pi * cycles[:, :, None] * (np.arange(points) / points) + phase[:, :, None]
    return np.sin(turned)
