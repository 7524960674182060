"""Threats in windows of a metric: levels, ramps, spikes and shapes, against the window as it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.sandbox.hardening.detector import MarginalDetector
from chimera.sandbox.schema import Column, Schema, Table
from chimera.sandbox.threats import Reference, ThreatKind, Threats, bootstrap, make_window_threats

POINTS = 40
SCHEMA = Schema(columns=tuple(Column(name=f"t{i}", low=0.0, high=200.0, step=1.0) for i in range(POINTS)))
CLEAN = Table(SCHEMA, SCHEMA.snap(np.random.default_rng(0).normal(100.0, 4.0, (500, POINTS))))
REFERENCE = Reference.of(CLEAN)


def threats(kind: str, strength: float, n: int = 30, seed: int = 1, **more: object) -> tuple[Threats, Table]:
    """The threats, and the windows that they were made from."""
    source = bootstrap(CLEAN)
    made = make_window_threats(
        source,
        n,
        ThreatKind(kind),
        strength,
        reference=REFERENCE,
        rng=np.random.default_rng(seed),
        **more,  # type: ignore[arg-type]
    )
    return made, source(n, np.random.default_rng(seed))


@given(
    kind=st.sampled_from(["biased", "drifted", "poisoned", "evasive"]),
    strength=st.sampled_from([0.0, 0.2, 0.95]),
    n=st.integers(1, 20),
    seed=st.integers(0, 2**32),
)
def test_no_kind_ever_leaves_the_lattice(kind: str, strength: float, n: int, seed: int) -> None:
    made, before = threats(kind, strength, n, seed, detector=MarginalDetector(REFERENCE), queries=12)
    assert (SCHEMA.snap(made.table.values) == made.table.values).all()
    assert np.allclose(made.bias, (made.table.values - before.values).mean(axis=0))
    assert (made.changed == (made.table.values != before.values).any(axis=1)).all()


@given(strength=st.floats(0.0, 1.0), seed=st.integers(0, 2**32))
def test_a_level_is_moved_by_its_strength_in_each_window(strength: float, seed: int) -> None:
    made, before = threats("biased", strength, seed=seed)
    moved = np.abs((made.table.values - before.values).mean(axis=1))
    assert np.abs(moved - strength * REFERENCE.sds.mean()).max() <= 0.5 / POINTS + 1e-9


def test_a_ramp_climbs_and_both_ways_come() -> None:
    made, before = threats("drifted", 2.0, 400)
    change = made.table.values - before.values
    up = change[:, -1] > 0
    assert 0.3 < up.mean() < 0.7
    climbed = np.where(up[:, None], change, -change).mean(axis=0)
    assert np.abs(climbed - np.linspace(0.0, 2.0, POINTS) * REFERENCE.sds).max() < 0.5


def test_spikes_hit_a_share_of_the_points() -> None:
    made, before = threats("poisoned", 0.2)
    assert ((made.table.values != before.values).sum(axis=1) == 8).all()


def test_a_window_at_its_ceiling_is_moved_down_and_one_without_room_refused() -> None:
    full = Table(SCHEMA, np.full((5, POINTS), 200.0))
    rng = np.random.default_rng(0)
    made = make_window_threats(bootstrap(full), 20, ThreatKind.BIASED, 1.0, reference=REFERENCE, rng=rng)
    assert (made.bias < 0).all()
    with pytest.raises(InputError, match="largest"):
        make_window_threats(bootstrap(full), 20, ThreatKind.BIASED, 60.0, reference=REFERENCE, rng=rng)


def test_evasive_windows_keep_their_norm_and_are_seen_less() -> None:
    detector = MarginalDetector(REFERENCE)
    made, before = threats("evasive", 1.0, detector=detector, queries=64)
    assert made.queries == 64
    change = (made.table.values - before.values) / REFERENCE.scale
    norm = np.sqrt((change**2).mean(axis=1))
    assert np.abs(norm - 1.0).max() < 0.15  # rounding to the lattice adds and takes a little
    level, _ = threats("biased", 1.0)
    assert detector.score(made.table.values[:, None, :]).mean() < detector.score(level.table.values[:, None, :]).mean()


def test_columns_that_are_not_points_of_one_metric_are_refused() -> None:
    mixed = Schema(columns=(Column(name="a", low=0, high=1), Column(name="b", low=0, high=2)))
    table = Table(mixed, np.full((4, 2), 0.5))
    with pytest.raises(InputError, match="one metric"):
        make_window_threats(
            bootstrap(table),
            4,
            ThreatKind.BIASED,
            0.1,
            reference=Reference.of(table),
            rng=np.random.default_rng(0),
        )
