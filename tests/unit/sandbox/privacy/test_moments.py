"""One record more moves no statistic further than its noise is made for; what is released is a Gaussian and useful."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.sandbox.privacy import moments as moments_module
from chimera.sandbox.privacy.gaussian import with_noise
from chimera.sandbox.privacy.moments import (
    SHARES,
    clipped,
    product_sum,
    record_sums,
    release_counts,
    release_moments,
    square_sums,
)
from chimera.sandbox.schema import Column, Floats, Schema, Table

CLASSES = 3


def mixture(n: int, seed: int, columns: int = 6) -> Table:
    """Three classes with means of their own and one covariance, in [-1, 1]."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    means = np.random.default_rng(0).uniform(-0.4, 0.4, (CLASSES, columns))
    shared = rng.standard_normal((n, 1)) * np.linspace(0.2, -0.2, columns)
    values = means[labels] + shared + 0.1 * rng.standard_normal((n, columns))
    names = tuple(Column(name=f"c{place}", low=-1.0, high=1.0) for place in range(columns))
    return Table(Schema(columns=names, classes=("a", "b", "c")), values, labels)


@given(st.integers(0, 2**32), st.integers(0, 12), st.integers(1, 9), st.floats(0.05, 4.0))
def test_no_record_moves_a_statistic_further_than_its_sensitivity(seed: int, n: int, d: int, reach: float) -> None:
    rng = np.random.default_rng(seed)
    records = np.clip(rng.standard_normal((n + 1, d)) * rng.choice([0.1, 1.0, 50.0]), -1.0, 1.0)
    labels = rng.integers(0, CLASSES, n + 1)
    means = rng.uniform(-1.0, 1.0, (CLASSES, d))
    z = clipped(rng.standard_normal((n + 1, d)) * rng.choice([0.1, 1.0, 1e6]), reach)

    def moved(statistic: object, other: object) -> float:
        return float(np.linalg.norm(np.asarray(statistic) - np.asarray(other)))

    few, kinds = records[:n], labels[:n]
    bound = reach * (1.0 + 1e-9)
    assert moved(record_sums(records, labels, CLASSES, reach), record_sums(few, kinds, CLASSES, reach)) <= bound
    assert moved(square_sums(records, labels, means, reach), square_sums(few, kinds, means, reach)) <= bound
    assert moved(product_sum(z), product_sum(z[:n])) <= reach * bound


def test_the_sensitivity_is_reached_so_no_noise_is_wasted() -> None:
    z = np.full((1, 9), 1.0 / 3.0) * 2.0
    assert np.linalg.norm(product_sum(z)) == pytest.approx(4.0)
    assert np.linalg.norm(record_sums(z * 7.0, np.zeros(1, np.int64), 1, 2.0)) == pytest.approx(2.0)


class Tape:
    """The mechanism with its noise taken out: on a second table it answers what it answered on the first."""

    def __init__(self) -> None:
        self.answers: list[Floats] = []
        self.asked: list[tuple[Floats, float, float]] = []

    def __call__(
        self, statistic: Floats, *, sensitivity: float, noise_multiplier: float, rng: np.random.Generator
    ) -> Floats:
        self.asked.append((statistic, sensitivity, noise_multiplier))
        if len(self.asked) > len(self.answers):
            self.answers.append(with_noise(statistic, sensitivity=sensitivity, noise_multiplier=0.05, rng=rng))
        return self.answers[len(self.asked) - 1]


@pytest.mark.parametrize("odd", [None, 1.0, -1.0])
@pytest.mark.parametrize("clip", [1.0, 0.3])
def test_of_neighbours_that_got_the_same_answers_every_further_question_is_as_close_as_it_says(
    monkeypatch: pytest.MonkeyPatch, clip: float, odd: float | None
) -> None:
    table = mixture(30, 5)
    if odd is not None:  # a record at a corner of the range
        table = Table(table.schema, np.vstack([table.values, np.full(6, odd)]), np.append(table.labels, 2))  # type: ignore[arg-type]
    tape = Tape()
    monkeypatch.setattr(moments_module, "with_noise", tape)
    told = []
    for each in (table, table.take(np.arange(len(table) - 1))):
        tape.asked = []
        release_moments(
            each, counts=np.full(CLASSES, 10.0), noise_multiplier=2.0, clip=clip, rng=np.random.default_rng(0)
        )
        told.append(tape.asked)

    assert len(told[0]) == len(SHARES)
    for (statistic, sensitivity, _), (other, _, _) in zip(*told, strict=True):
        assert np.linalg.norm(statistic - other) <= sensitivity * (1.0 + 1e-9)
    assert sum(noise**-2.0 for _, _, noise in told[0]) == pytest.approx(2.0**-2.0)


def test_without_noise_it_is_the_classes_gaussian() -> None:
    table = mixture(6_000, 1)
    assert table.labels is not None
    rng = np.random.default_rng(0)
    counts = release_counts(table, noise_multiplier=0.0, rng=rng)
    moments = release_moments(table, counts=counts, noise_multiplier=0.0, rng=rng)
    assert counts.tolist() == np.bincount(table.labels).tolist()
    for label in range(CLASSES):
        own = table.values[table.labels == label]
        assert np.abs(moments.means[label] - own.mean(axis=0)).max() < 0.08
        widths = np.sqrt(np.diag(moments.covariances[label])) / own.std(axis=0)
        assert (widths > 0.6).all()
        assert (widths < 1.3).all()
        correlation = moments.covariances[label] / np.outer(*[np.sqrt(np.diag(moments.covariances[label]))] * 2)
        assert np.abs(correlation - np.corrcoef(own.T)).max() < 0.3


@given(st.integers(0, 40), st.floats(0.0, 1e4), st.integers(0, 2**32))
def test_whatever_the_noise_it_is_a_gaussian(n: int, noise: float, seed: int) -> None:
    table, rng = mixture(n, 2), np.random.default_rng(seed)
    counts = release_counts(table, noise_multiplier=noise, rng=rng)
    moments = release_moments(table, counts=counts, noise_multiplier=noise, rng=rng)
    assert (counts >= 1.0).all()
    assert np.isfinite(moments.means).all()
    assert (np.linalg.eigvalsh(moments.covariances) > 0.0).all()
    assert np.allclose(moments.covariances, moments.covariances.transpose(0, 2, 1))
    made = moments.sample(np.array([3, 0, 2]), rng)
    assert made.labels is not None
    assert np.bincount(made.labels, minlength=3).tolist() == [3, 0, 2]


def test_at_epsilon_one_three_hundred_records_give_usable_means() -> None:
    table = mixture(300, 3)
    assert table.labels is not None
    labels = table.labels
    true = np.array([table.values[labels == label].mean(axis=0) for label in range(CLASSES)])
    faults = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        counts = release_counts(table, noise_multiplier=17.0, rng=rng)
        moments = release_moments(table, counts=counts, noise_multiplier=3.9, rng=rng)
        faults.append(np.abs(moments.means - true).mean())
    assert np.mean(faults) < 0.6 * np.abs(true - true.mean(axis=0)).mean()


def test_no_classes_is_one_class() -> None:
    labelled = mixture(50, 4)
    table = Table(Schema(columns=labelled.schema.columns), labelled.values)
    rng = np.random.default_rng(0)
    counts = release_counts(table, noise_multiplier=1.0, rng=rng)
    moments = release_moments(table, counts=counts, noise_multiplier=1.0, rng=rng)
    assert moments.means.shape == (1, 6)
    assert moments.sample(np.array([7]), rng).labels is None


@pytest.mark.parametrize(
    "wrong", [{"clip": 0.0}, {"clip": 1.5}, {"noise_multiplier": -1.0}, {"noise_multiplier": np.inf}]
)
def test_what_is_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        release_moments(
            mixture(9, 0), counts=np.ones(3), rng=np.random.default_rng(0), **({"noise_multiplier": 1.0} | wrong)
        )
