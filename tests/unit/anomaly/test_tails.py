"""How rare a score is: against distributions of which that is known, and against all that may come."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from chimera.anomaly.tails import LARGEST, TAIL, WARM, Tails

Table = npt.NDArray[np.floating[Any]]
ALL = slice(None)
FLOORS = np.full(1, 1e-9)


def fed(streams: Table, tails: Tails | None = None) -> tuple[Tails, Table]:
    """The tails of `streams` (readings, metrics), one channel, and the score of each reading before it was learned."""
    tails = tails or Tails(streams.shape[1], FLOORS)
    scores = np.empty(streams.shape)
    for t, row in enumerate(streams[:, :, None].astype(np.float32)):
        scores[t] = tails.score(row, ALL)[:, 0]
        tails.learn(row, ALL, np.ones(row.shape, bool))
    return tails, scores


DISTRIBUTIONS = {
    "normal": stats.norm(3.0, 2.0),
    "exponential": stats.expon(scale=5.0),
    "heavy": stats.genpareto(0.2, scale=2.0),
    "light": stats.uniform(-1.0, 2.0),
}


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("normal", (0.7, 0.4), (1.4, 1.6)), ("exponential", (1.0, 1.0), (2.4, 4.0)), ("light", (0.0, 0.0), (1.0, 1.0))],
)
def test_a_score_of_s_comes_once_in_ten_to_the_s(
    name: str, least: tuple[float, float], most: tuple[float, float]
) -> None:
    """Of a normal stream it does. The threshold comes slowly to a heavier tail, whose scores are higher until then."""
    streams = DISTRIBUTIONS[name].rvs((3_000, 100), random_state=np.random.default_rng(5))
    _, scores = fed(streams)
    for place, score in enumerate((2.0, 3.0)):
        times = float((scores[1_000:] > score).mean()) * 10**score
        assert least[place] <= times <= most[place], score


@pytest.mark.parametrize("name", ["normal", "exponential", "heavy"])
def test_the_threshold_nears_the_quantile_and_the_mean_that_of_the_excess(name: str) -> None:
    known = DISTRIBUTIONS[name]
    tails, _ = fed(known.rvs((4_000, 100), random_state=np.random.default_rng(6)))
    quantile = float(known.ppf(1 - TAIL))
    threshold = float(np.median(tails.rows["threshold"]))
    assert threshold == pytest.approx(quantile, rel=0.16)
    excess = known.expect(lambda x: x - threshold, lb=threshold) / known.sf(threshold)
    assert float(np.median(tails.rows["mean"])) == pytest.approx(excess, rel=0.25)


@pytest.mark.parametrize("shape", [-0.15, 0.0, 0.1, 0.3])
def test_beyond_the_threshold_the_rarity_is_that_of_a_generalised_pareto(shape: float) -> None:
    tails, scale = Tails(1, FLOORS), 2.0
    known = stats.genpareto(shape, scale=scale)
    moments = {"threshold": 5.0, "mean": known.mean(), "square": known.moment(2), "excesses": 1e7, "learned": WARM}
    for name, value in moments.items():
        tails.rows[name][:] = value
    for excess in (0.1, 1.0, 4.0, 10.0):
        rarity = -np.log10(TAIL * known.sf(excess))
        assert float(tails.score(np.array([[5.0 + excess]]), ALL)[0, 0]) == pytest.approx(rarity, rel=0.01)
    assert not tails.score(np.array([[5.0]]), ALL).any()


def test_units_do_not_matter() -> None:
    streams = np.random.default_rng(8).normal(size=(600, 20))
    _, plain = fed(streams)
    _, large = fed(streams * 1024.0)
    np.testing.assert_allclose(plain, large, rtol=1e-3, atol=1e-3)


def test_the_young_say_nothing() -> None:
    streams = np.random.default_rng(9).normal(size=(WARM + 1, 50))
    streams[-1] = 100.0
    _, scores = fed(streams)
    assert not scores[:WARM].any()
    assert (scores[WARM] > 4.0).all()


def test_one_outlier_makes_no_others_usual() -> None:
    streams = np.random.default_rng(10).normal(size=(1_000, 50))
    tails, _ = fed(streams)
    before = tails.score(np.full((50, 1), 8.0), ALL)
    tails.learn(np.full((50, 1), 1e6), ALL, np.ones((50, 1), bool))
    after = tails.score(np.full((50, 1), 8.0), ALL)
    assert float(np.median(after)) > 0.6 * float(np.median(before))
    assert (after > 4.0).all()


marks = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, 1e9, 1e30, -1e38, np.nan, np.inf, -np.inf])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(marks, min_size=3, max_size=3), min_size=60, max_size=90), st.integers(0, 100))
def test_whatever_comes_all_stays_finite(rows: list[list[float]], seed: int) -> None:
    tails, random = Tails(3, FLOORS), np.random.default_rng(seed)
    for row in rows:
        raw = np.array(row, np.float32)[:, None]
        scores = tails.score(raw, ALL)
        assert np.isfinite(scores).all()
        assert (scores >= 0.0).all()
        tails.learn(raw, ALL, random.random((3, 1)) < 0.9)
    threshold = tails.rows["threshold"]
    assert not np.isnan(threshold).any()
    assert (np.isinf(threshold) == (tails.rows["learned"] < WARM)).all()
    assert (np.abs(threshold[np.isfinite(threshold)]) < 100 * LARGEST).all()
    assert all(np.isfinite(tails.rows[name]).all() for name in ("mean", "square", "excesses", "learned"))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_slots_in_any_order_and_at_their_own_pace_are_as_if_alone(seed: int) -> None:
    """Each slot's scores depend on what it was given, and on nothing else."""
    random = np.random.default_rng(seed)
    together, alone = Tails(4, np.full(3, 1e-9)), [Tails(1, np.full(3, 1e-9)) for _ in range(4)]
    for _ in range(150):
        at = random.permutation(4)[: random.integers(1, 5)]
        raw = random.standard_t(3, (len(at), 3)).astype(np.float32)
        wanted = random.random((len(at), 3)) < 0.8
        scores = together.score(raw, at)
        for row, slot in enumerate(at.tolist()):
            np.testing.assert_array_equal(scores[row], alone[slot].score(raw[row : row + 1], ALL)[0])
            alone[slot].learn(raw[row : row + 1], ALL, wanted[row : row + 1])
        together.learn(raw, at, wanted)


def test_what_is_not_wanted_is_not_learned() -> None:
    streams = np.random.default_rng(11).normal(size=(200, 5))
    tails, _ = fed(streams)
    before = tails.snapshot()
    tails.learn(np.full((5, 1), 50.0), ALL, np.zeros((5, 1), bool))
    for name, array in tails.snapshot().items():
        np.testing.assert_array_equal(array, before[name])
