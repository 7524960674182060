"""Threats in tables: batches of records whose means are off, or some of whose records are foreign."""

from __future__ import annotations

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.schema import Floats, Integers, Schema, Table
from chimera.sandbox.threats.evasion import Search, unit
from chimera.sandbox.threats.kinds import (
    QUERIES,
    BatchDetector,
    Mask,
    Reference,
    Synthetic,
    ThreatKind,
    Threats,
    checked,
    drawn,
)
from chimera.sandbox.threats.lattice import place

OUTWARD = 1.5
"""How much farther than their donors poisoned records lie from the means."""

DONORS = 4
"""Records of which a poisoned one follows the farthest."""

POOL = 4
"""Records that an evasive batch is chosen from, for each of its own."""


def make_threats(
    synthetic: Synthetic,
    n: int,
    kind: ThreatKind,
    strength: float,
    *,
    reference: Reference,
    rng: np.random.Generator,
    detector: BatchDetector | None = None,
    direction: Floats | None = None,
    exact: bool = True,
    queries: int = QUERIES,
) -> Threats:
    """`n` records of that kind. They keep the schema's lattice and ranges, and follow from `rng` alone.

    - biased: each column's mean is the reference's plus `strength * direction * sd`, to half a grain over n.
      `direction` (columns,) is signs drawn by chance, towards where there is room, unless given.
    - poisoned: round(strength * n) records are replaced by extreme ones; with labels, by such of another class that
      bear the label of the record they replace.
    - drifted: the bias grows evenly from 0 at the first record to `strength` at the last; the mean is half of it.
      With `exact` false the bias of these two is in what the records are drawn from: the means keep the chance that
      clean ones have, as those of a threat that nobody has to prove would.
    - evasive: the means' distance from the reference has the root mean square `strength` over the columns that vary;
      direction, records and spread are those, of `queries` tries, that `detector` scores lowest.

    Raises InputError where ranges do not allow the bias (the message tells the largest), or for wrong arguments.
    """
    checked(kind, strength, detector, queries)
    if kind is ThreatKind.EVASIVE and detector is not None:
        return _evasive(synthetic, n, strength, reference, rng, detector, queries)
    table = drawn(synthetic, n, reference, rng)
    if kind is ThreatKind.POISONED:
        return _poisoned(synthetic, table, strength, reference, rng)
    profile = np.ones(n) if kind is ThreatKind.BIASED else np.linspace(0.0, 1.0, n) if n > 1 else np.ones(1)
    reach = strength * float(profile.mean())
    signs = _signs(table.schema, reference, reach, rng) if direction is None else np.asarray(direction, np.float64)
    _within_reach(table.schema, reference, signs, reach)
    shift = strength * signs * reference.sds / table.schema.grain
    before = table.schema.index(table.values)
    wanted = before + profile[:, None] * shift
    means = wanted.mean(axis=0)
    if exact:
        wanted += _to_means(before, reference, table.schema)
    else:  # chance may have put the means themselves out of reach
        wanted += np.clip(means, 0, table.schema.levels) - means
    after = place(wanted, table.schema.levels, rng)
    return _threats(table, after, kind, strength, reference, (before != after).any(axis=1))


def _evasive(
    synthetic: Synthetic,
    n: int,
    strength: float,
    reference: Reference,
    rng: np.random.Generator,
    detector: BatchDetector,
    queries: int,
) -> Threats:
    pool = drawn(synthetic, POOL * n, reference, rng)
    schema = pool.schema
    places = schema.index(pool.values).astype(np.float64)
    rooms = _rooms(schema, reference)

    def assembled(directions: Floats, rows: Integers, spreads: Floats) -> Integers:
        """(tries, n, columns) batches of the pool's records with the means moved and the spread changed."""
        some = places[rows]
        centre = some.mean(axis=1, keepdims=True)
        means = (reference.means - schema.low + strength * directions * reference.sds) / schema.grain
        return place(means[:, None, :] + spreads[:, None, None] * (some - centre), schema.levels, rng)

    def within_rooms(directions: Floats) -> Floats:
        return unit(directions, rooms / max(strength, 1e-12), reference.sds > 0.0)

    search, natural = Search(n, len(pool), within_rooms, rng), _natural(pool, reference)
    lowest, chosen, best = np.inf, np.arange(n), places[:n].astype(np.int64)
    for asked in range(0, queries, search.tries):
        directions, rows, spreads = search.ask(min(search.tries, queries - asked), natural)
        batches = assembled(directions, rows, spreads)
        scores = detector.score(schema.values(batches))
        search.tell(scores)
        winner = int(scores.argmin())
        if scores[winner] < lowest or asked == 0:
            lowest, chosen, best = float(scores[winner]), rows[winner], batches[winner]
    kept = pool.take(chosen)
    changed = (schema.index(kept.values) != best).any(axis=1)
    return _threats(kept, best, ThreatKind.EVASIVE, strength, reference, changed, queries)


def _natural(pool: Table, reference: Reference) -> Floats:
    """(columns, columns) the ways in which the records vary by themselves, the widest first: one a row."""
    standard = (pool.values - pool.values.mean(axis=0)) / reference.scale
    ways: Floats = np.linalg.svd(standard, full_matrices=False)[2]
    return ways


def _poisoned(
    synthetic: Synthetic, table: Table, strength: float, reference: Reference, rng: np.random.Generator
) -> Threats:
    schema, count = table.schema, round(strength * len(table))
    before = schema.index(table.values)
    victims = np.sort(rng.choice(len(table), count, replace=False))
    after = before.copy()
    if count:
        donors = drawn(synthetic, DONORS * count, reference, rng)
        far = (((donors.values - reference.means) / reference.scale) ** 2).mean(axis=1).reshape(count, DONORS)
        if table.labels is not None and donors.labels is not None:
            foreign = donors.labels.reshape(count, DONORS) != table.labels[victims][:, None]
            far = np.where(foreign, far + far.max() + 1.0, far)  # a foreign one before any other
        chosen = donors.values[np.arange(count) * DONORS + far.argmax(axis=1)]
        after[victims] = schema.index(reference.means + OUTWARD * (chosen - reference.means))
    changed = np.zeros(len(table), np.bool_)
    changed[victims] = True
    return _threats(table, after, ThreatKind.POISONED, strength, reference, changed)


def _threats(
    table: Table,
    after: Integers,
    kind: ThreatKind,
    strength: float,
    reference: Reference,
    changed: Mask,
    queries: int = 0,
) -> Threats:
    made = Table(table.schema, table.schema.values(after), table.labels)
    bias = made.values.mean(axis=0) - reference.means
    return Threats(table=made, before=table, kind=kind, strength=strength, bias=bias, changed=changed, queries=queries)


def _to_means(index: Integers, reference: Reference, schema: Schema) -> Floats:
    """(columns,) what brings the means to the reference's, in steps of the lattice."""
    steps: Floats = (reference.means - schema.low) / schema.grain - index.mean(axis=0)
    return steps


def _rooms(schema: Schema, reference: Reference) -> Floats:
    """(2, columns) standard deviations from the reference means down to the low ends and up to the high ends.

    Raises InputError where a reference mean is itself outside the range.
    """
    down, up = reference.means - schema.low, schema.low + schema.span - reference.means
    slack = 0.5 * schema.grain
    if (down < -slack).any() or (up < -slack).any():
        raise InputError("a reference mean lies outside its column's range: they are not of the same data")
    scale = np.where(reference.sds > 0.0, reference.sds, np.inf)
    return np.maximum(np.stack([down, up]), 0.0) / scale


def _signs(schema: Schema, reference: Reference, reach: float, rng: np.random.Generator) -> Floats:
    """(columns,) signs by chance, but where only one way has room for `reach`."""
    down, up = _rooms(schema, reference)
    signs = rng.choice([-1.0, 1.0], len(schema))
    signs = np.where((signs < 0) & (down < reach), 1.0, np.where((signs > 0) & (up < reach), -1.0, signs))
    roomier = np.where(up >= down, 1.0, -1.0)
    return np.where(np.maximum(down, up) < reach, roomier, signs)


def _within_reach(schema: Schema, reference: Reference, direction: Floats, reach: float) -> None:
    if direction.shape != (len(schema),) or not np.isfinite(direction).all():
        raise InputError(f"a direction is one finite number for each of {len(schema)} columns")
    down, up = _rooms(schema, reference)
    moved = np.abs(direction) * (reference.sds > 0.0)
    most = np.where(moved > 0.0, np.where(direction > 0, up, down) / np.where(moved > 0.0, moved, 1.0), np.inf)
    if reach > most.min() * (1 + 1e-9):
        worst = int(most.argmin())
        raise InputError(
            f"column {schema.columns[worst].name!r} cannot be off by {reach:g} standard deviations in the mean within "
            f"its range: the largest that all columns allow is {most.min():.4g}"
        )
