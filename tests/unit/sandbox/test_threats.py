"""Threats in tables: the bias is what was asked for, lattice and ranges hold, and evasion lowers the score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.sandbox.hardening.detector import MarginalDetector, MomentsDetector
from chimera.sandbox.schema import Column, Floats, Schema, Table
from chimera.sandbox.threats import Reference, Synthetic, ThreatKind, Threats, bootstrap, make_threats
from chimera.sandbox.threats.lattice import place

LABELLED = Schema(
    columns=(
        Column(name="fine", low=-10.0, high=10.0),
        Column(name="coarse", low=0.0, high=16.0, step=1.0),
        Column(name="flag", low=0.0, high=1.0, step=1.0),
        Column(name="still", low=0.0, high=5.0, step=0.5),
    ),
    classes=("no", "yes"),
)


def people(n: int, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    hidden = rng.standard_normal(n)
    fine = 1.5 * hidden + rng.standard_normal(n)
    coarse = 8.0 + 2.0 * hidden + 2.0 * labels + rng.standard_normal(n)
    values = np.column_stack([fine, coarse, rng.random(n) < 0.3, np.full(n, 2.0)])
    return Table(LABELLED, LABELLED.snap(values), labels)


DATA = people(2_000)
REFERENCE = Reference.of(DATA)
SOURCE: Synthetic = bootstrap(DATA)


def threats(kind: str, strength: float, n: int = 64, seed: int = 1, **more: object) -> Threats:
    rng = np.random.default_rng(seed)
    return make_threats(SOURCE, n, ThreatKind(kind), strength, reference=REFERENCE, rng=rng, **more)  # type: ignore[arg-type]


def on_the_lattice(table: Table) -> bool:
    schema = table.schema
    index = schema.index(table.values)
    inside = (index >= 0).all() and (index <= schema.levels).all()
    return bool(inside and (schema.values(index) == table.values).all())


@given(
    kind=st.sampled_from(["biased", "drifted", "poisoned", "evasive"]),
    strength=st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.95]),
    n=st.integers(1, 150),
    seed=st.integers(0, 2**32),
)
def test_no_kind_ever_leaves_the_lattice_or_the_ranges(kind: str, strength: float, n: int, seed: int) -> None:
    made = threats(kind, strength, n, seed, detector=MarginalDetector(REFERENCE), queries=20)
    assert on_the_lattice(made.table)
    assert len(made.table) == n
    assert np.allclose(made.bias, made.table.values.mean(axis=0) - REFERENCE.means)
    assert (made.table.values[:, 3] == 2.0).all() or kind == "poisoned"  # a column that never varies has no bias


@given(strength=st.floats(0.0, 0.95), n=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_biased_means_are_on_target_to_half_a_grain_over_n(strength: float, n: int, seed: int) -> None:
    direction = np.array([1.0, -1.0, 1.0, 1.0])
    made = threats("biased", strength, n, seed, direction=direction)
    off = np.abs(made.bias - strength * direction * REFERENCE.sds)
    assert (off <= LABELLED.grain * (0.5 + 1e-6) / n).all()


def test_drifted_grows_from_nothing_to_its_strength() -> None:
    direction = np.array([1.0, -1.0, 0.0, 0.0])
    made = [threats("drifted", 0.9, seed=seed, direction=direction).table.values for seed in range(400)]
    course = (np.mean(made, axis=0) - REFERENCE.means) / REFERENCE.scale
    assert np.abs(course[:8, :2].mean(axis=0) - 0.05 * direction[:2]).max() < 0.1
    assert np.abs(course[-8:, :2].mean(axis=0) - 0.85 * direction[:2]).max() < 0.1
    assert np.abs(course[:, :2].mean(axis=0) - 0.45 * direction[:2]).max() < 0.01


@given(share=st.floats(0.0, 1.0), n=st.integers(1, 100), seed=st.integers(0, 2**32))
def test_poisoned_replaces_that_share_and_says_which(share: float, n: int, seed: int) -> None:
    clean = SOURCE(n, np.random.default_rng(seed))
    made = threats("poisoned", share, n, seed)
    assert made.changed.sum() == round(share * n)
    assert (made.table.values[~made.changed] == clean.values[~made.changed]).all()
    assert made.table.labels is not None
    assert clean.labels is not None
    assert (made.table.labels == clean.labels).all()  # so the foreign records bear a wrong one


def test_poisoned_records_are_extreme_and_of_another_class() -> None:
    made = threats("poisoned", 0.5, 400)
    far = (((made.table.values - REFERENCE.means) / REFERENCE.scale) ** 2).mean(axis=1)
    assert far[made.changed].mean() > 2.0 * far[~made.changed].mean()
    labels, coarse = made.table.labels, made.table.values[:, 1]
    assert labels is not None
    assert coarse[~made.changed & (labels == 1)].mean() > coarse[~made.changed & (labels == 0)].mean()
    assert coarse[made.changed & (labels == 1)].mean() < coarse[made.changed & (labels == 0)].mean()


@pytest.mark.parametrize("strength", [0.1, 0.3])
def test_evasive_keeps_its_norm_and_is_seen_less_than_other_biased_batches(strength: float) -> None:
    detector = MomentsDetector.of(DATA)
    evasive = [threats("evasive", strength, seed=seed, detector=detector) for seed in range(5)]
    biased = np.stack([threats("biased", strength, seed=seed).table.values for seed in range(50)])
    live = REFERENCE.sds > 0
    for made in evasive:
        norm = np.sqrt(((made.bias / REFERENCE.scale)[live] ** 2).mean())
        assert norm == pytest.approx(strength, abs=0.02)  # the flag's lattice: half of 1/64 is 0.017 of its sd
    seen = detector.score(np.stack([made.table.values for made in evasive]))
    assert seen.max() < np.quantile(detector.score(biased), 0.1)


def test_a_longer_search_is_never_worse_and_tells_its_queries() -> None:
    class Counting(MomentsDetector):
        asked = 0

        def score(self, batches: Floats) -> Floats:
            self.asked += len(batches)
            return super().score(batches)

    detector = Counting.of(DATA)
    few, many = (threats("evasive", 0.2, detector=detector, queries=queries) for queries in (16, 203))
    assert (few.queries, many.queries) == (16, 203)
    assert detector.asked == 219
    short, long = detector.score(np.stack([few.table.values, many.table.values]))
    assert long < short


@pytest.mark.parametrize("kind", list(ThreatKind))
def test_the_same_seed_makes_the_same_threats(kind: ThreatKind) -> None:
    detector = MarginalDetector(REFERENCE)
    first, second, other = (threats(kind, 0.3, seed=seed, detector=detector).table.values for seed in (5, 5, 6))
    assert (first == second).all()
    assert (first != other).any()


def test_a_bias_beyond_the_range_is_refused_with_the_largest_possible() -> None:
    direction = np.array([0.0, 0.0, -1.0, 0.0])
    with pytest.raises(InputError, match=r"'flag'.*largest.* is (0\.\d+)") as refused:
        threats("biased", 0.9, direction=direction)
    largest = float(str(refused.value).rsplit(" ", 1)[1])
    assert threats("biased", largest - 0.001, direction=direction).table.values[:, 2].sum() == 0.0
    with pytest.raises(InputError, match="largest"):
        threats("biased", largest + 0.001, direction=direction)
    with pytest.raises(InputError, match="largest"):
        threats("evasive", 50.0, detector=MarginalDetector(REFERENCE))


def test_wrong_arguments_are_refused() -> None:
    for kind, strength, more in (
        ("biased", -0.1, {}),
        ("biased", np.nan, {}),
        ("poisoned", 1.1, {}),
        ("evasive", 0.2, {}),
        ("evasive", 0.2, {"detector": MarginalDetector(REFERENCE), "queries": 0}),
        ("biased", 0.2, {"n": 0}),
        ("biased", 0.2, {"n": 10**9}),
        ("biased", 0.2, {"direction": np.ones(3)}),
    ):
        with pytest.raises(InputError):
            threats(kind, strength, **more)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="gave 3 of"):
        make_threats(
            lambda n, rng: DATA.take(np.arange(3)),
            64,
            ThreatKind.BIASED,
            0.1,
            reference=REFERENCE,
            rng=np.random.default_rng(0),
        )
    with pytest.raises(InputError):
        Reference(np.zeros(3), -np.ones(3))


@given(
    n=st.integers(1, 40),
    levels=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    spread=st.floats(0.0, 3.0),
    seed=st.integers(0, 2**32),
)
def test_placing_keeps_sums_and_bounds_however_much_is_cut_off(
    n: int, levels: list[int], spread: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    most = np.array(levels)
    wanted = most * (0.5 + spread * rng.standard_normal((3, n, len(levels))))
    sums = wanted.sum(axis=1)
    if (np.rint(sums) < 0).any() or (np.rint(sums) > n * most).any():
        with pytest.raises(InputError):
            place(wanted, most, rng)
        return
    placed = place(wanted, most, rng)
    assert (placed.sum(axis=1) == np.rint(sums)).all()
    assert (placed >= 0).all()
    assert (placed <= most).all()


def test_placing_leaves_cells_in_reach_within_a_grain() -> None:
    rng = np.random.default_rng(3)
    wanted = rng.uniform(2.0, 98.0, (50, 7))
    assert np.abs(place(wanted, np.full(7, 100), rng) - wanted).max() < 1.02
