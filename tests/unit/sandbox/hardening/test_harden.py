"""Hardening: what was missed is found at no more false alarms, and nothing of the measuring part is learnt from."""

from __future__ import annotations

import numpy as np
import pytest

from chimera.core.errors import InputError
from chimera.sandbox.hardening import Hardened, HardenReport, MarginalDetector, Parts, harden
from chimera.sandbox.hardening.harden import Effort
from chimera.sandbox.schema import Column, Schema, Table
from chimera.sandbox.threats import Reference, Synthetic, ThreatKind, bootstrap

COLUMNS = 10
SCHEMA = Schema(columns=tuple(Column(name=f"c{i}", low=-6.0, high=6.0, step=0.125) for i in range(COLUMNS)))
QUICK = Effort(rounds=1, train_batches=24, measure_batches=100, clean_batches=6_000, queries=48)
KINDS = (ThreatKind.BIASED, ThreatKind.EVASIVE)


def correlated(n: int, seed: int) -> Table:
    loadings = np.random.default_rng(99).standard_normal((COLUMNS, 3))
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, 3)) @ loadings.T + rng.standard_normal((n, COLUMNS))
    return Table(SCHEMA, SCHEMA.snap(values / np.sqrt((loadings**2).sum(axis=1) + 1.0)))


def gaussian(table: Table) -> Synthetic:
    means, covariance = table.values.mean(axis=0), np.cov(table.values.T)

    def draw(n: int, rng: np.random.Generator) -> Table:
        return Table(SCHEMA, SCHEMA.snap(rng.multivariate_normal(means, covariance, n)))

    return draw


def hardened_on(parts: Parts, **more: object) -> tuple[Hardened, HardenReport]:
    detector = MarginalDetector(Reference.of(parts.fit))
    asked: dict[str, object] = {
        "kinds": KINDS,
        "strengths": (0.2, 0.3, 0.5),
        "seed": 5,
        "effort": QUICK,
        "alarms_per_1000": 2.0,
    }
    return harden(detector, parts, gaussian(parts.fit), **{**asked, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return Parts.by_chance(correlated(12_000, 1), np.random.default_rng(0))


@pytest.fixture(scope="module")
def done(parts: Parts) -> tuple[Hardened, HardenReport]:
    return hardened_on(parts)


def test_small_biases_and_evasive_ones_are_found_that_were_missed(done: tuple[Hardened, HardenReport]) -> None:
    found = {(row.kind, row.against): row for row in done[1].measured if row.strength == 0.2}
    biased, evasive = found[ThreatKind.BIASED, ""], found[ThreatKind.EVASIVE, "detector"]
    against_hardened = found[ThreatKind.EVASIVE, "hardened"]
    assert biased.before < 0.3
    assert biased.gain_interval[0] > 0.2
    assert evasive.before < 0.1
    assert evasive.gain_interval[0] > 0.2
    assert against_hardened.after < evasive.after  # who knows the hardened one gets past it more often, and it is told


def test_clean_batches_raise_no_more_alarms(done: tuple[Hardened, HardenReport]) -> None:
    clean = done[1].clean
    assert clean.batches == QUICK.clean_batches
    assert clean.gain * 1000.0 <= 0.1
    assert clean.after_interval[0] * 1000.0 <= 2.0


def test_threats_without_a_bias_are_not_found(done: tuple[Hardened, HardenReport]) -> None:
    assert [row.kind for row in done[1].controls] == list(KINDS)
    assert all(row.after < 0.05 for row in done[1].controls)


def test_the_report_is_of_the_detector_that_is_given_back(parts: Parts, done: tuple[Hardened, HardenReport]) -> None:
    hardened, _ = done
    rng = np.random.default_rng(3)
    batches = parts.measure.values[rng.integers(len(parts.measure), size=(6_000, 64))]
    assert (hardened.score(batches) > hardened.threshold).mean() * 1000.0 < 6.0
    shifted = batches[:200] + 0.5 * parts.fit.values.std(axis=0)
    assert (hardened.score(shifted) > hardened.threshold).mean() > 0.95


def test_nothing_of_the_measuring_part_is_learnt_from(parts: Parts, done: tuple[Hardened, HardenReport]) -> None:
    other = Parts(parts.fit, parts.calibrate, correlated(700, 77))
    hardened, report = hardened_on(other)
    for name, array in done[0].head.arrays().items():
        assert (array == hardened.head.arrays()[name]).all(), name
    assert (hardened.own, hardened.learned) == (done[0].own, done[0].learned)
    assert report.measured != done[1].measured


def test_calibration_sets_thresholds_and_nothing_else(parts: Parts, done: tuple[Hardened, HardenReport]) -> None:
    other = Parts(parts.fit, correlated(2_000, 78), parts.measure)
    hardened, _ = hardened_on(other)
    for name, array in done[0].head.arrays().items():
        assert (array == hardened.head.arrays()[name]).all(), name
    assert hardened.learned != done[0].learned


def test_the_same_seed_gives_the_same_report(parts: Parts) -> None:
    tiny = Effort(rounds=3, train_batches=4, measure_batches=10, clean_batches=1_000, queries=8)
    first, second, other = (hardened_on(parts, effort=tiny, seed=seed)[1] for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_parts_share_no_record_and_leave_none_out() -> None:
    table = Table(SCHEMA, np.repeat(SCHEMA.values(np.arange(90)[:, None])[:, :1], COLUMNS, axis=1))
    by_chance = Parts.by_chance(table, np.random.default_rng(0))
    firsts = [set(part.values[:, 0]) for part in (by_chance.fit, by_chance.calibrate, by_chance.measure)]
    assert not firsts[0] & firsts[1]
    assert not firsts[1] & firsts[2]
    assert not firsts[0] & firsts[2]
    assert len(set.union(*firsts)) == 90
    in_order = Parts.in_order(table, gap=5)
    grain = SCHEMA.grain[0]
    assert in_order.calibrate.values[0, 0] - in_order.fit.values[-1, 0] == pytest.approx(6 * grain)
    assert in_order.measure.values[0, 0] - in_order.calibrate.values[-1, 0] == pytest.approx(6 * grain)


def test_what_cannot_be_done_is_refused(parts: Parts) -> None:
    for more in ({"batch": 0}, {"kinds": ()}, {"strengths": ()}, {"alarms_per_1000": 0.01}, {"strengths": (-1.0,)}):
        with pytest.raises(InputError):
            hardened_on(parts, **more)
    with pytest.raises(InputError, match="too few"):
        Parts.by_chance(correlated(30, 0), np.random.default_rng(0))
    with pytest.raises(InputError):
        bootstrap(Table(SCHEMA, np.empty((0, COLUMNS))))
