"""The detector of many metrics: what must hold of any stream, and what it says of plain ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from chimera.anomaly.ensemble import COOLDOWN, DELAY, KINDS, SETTLING, Ensemble, Verdicts
from chimera.core.errors import InputError, StorageError

Table = npt.NDArray[np.float64]
Alerts = list[tuple[int, str]]

few = settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])
seeds = st.integers(0, 10_000)


def lively(points: int, metrics: int, seed: int) -> Table:
    """(points, metrics): noise, a season, counts and a walk by turns, with a burst in each."""
    random = np.random.default_rng(seed)
    kinds = [
        lambda: random.normal(size=points),
        lambda: 5 * np.sin(np.arange(points) / 6) + random.normal(size=points),
        lambda: random.poisson(4, points).astype(float),
        lambda: random.normal(size=points).cumsum(),
    ]
    table = np.stack([kinds[number % 4]() for number in range(metrics)], axis=1)
    for column in range(metrics):
        start = int(random.integers(points // 2, points))
        table[start : start + 20, column] += random.choice([-9.0, 9.0])
    return table


def fed(ensemble: Ensemble, table: Table) -> list[Verdicts]:
    return [ensemble.update(row) for row in table]


def column(verdicts: list[Verdicts], name: str) -> npt.NDArray[Any]:
    return np.stack([getattr(verdict, name) for verdict in verdicts])


def assert_same(first: list[Verdicts], second: list[Verdicts], slots: slice = slice(None), rtol: float = 0.0) -> None:
    for name in Verdicts.__annotations__:
        one, two = column(first, name)[:, slots], column(second, name)
        np.testing.assert_allclose(one, two, rtol=rtol, atol=rtol, err_msg=name)


def alerts(series: Table) -> Alerts:
    """When, and of what kind."""
    verdicts = fed(Ensemble(1), series[:, None])
    return [(t, KINDS[v.kind[0]]) for t, v in enumerate(verdicts) if v.alert[0]]


def quiet_series(points: int = 1200, seed: int = 3) -> Table:
    return np.random.default_rng(seed).normal(size=points)


@few
@given(seeds, st.integers(50, 400))
def test_what_comes_later_changes_nothing(seed: int, cut: int) -> None:
    table = lively(420, 4, seed)
    other = table.copy()
    other[cut:] = np.random.default_rng(seed + 1).normal(0, 1e6, other[cut:].shape)
    one, two = Ensemble(4), Ensemble(4)
    row, first = np.empty(4), []
    for row[:] in table:  # the same array each time: what is kept must be copied
        first.append(one.update(row))
    assert_same(first[:cut], fed(two, other)[:cut])


@few
@given(seeds, st.floats(0.0, 0.6))
def test_each_metric_is_judged_as_if_it_were_alone(seed: int, missing: float) -> None:
    random = np.random.default_rng(seed)
    table = lively(420, 5, seed)
    table[random.random(table.shape) < missing] = np.nan
    together = Ensemble(5)
    said = []
    for number, row in enumerate(table):
        if number % 3:
            said.append(together.update(row))
            continue
        at = random.permutation(5)  # in any order, and only those that are there
        at = at[~np.isnan(row[at])]
        some = together.update(row[at], at)
        whole = {name: np.full((5, *getattr(some, name).shape[1:]), np.nan) for name in Verdicts.__annotations__}
        for name in whole:
            whole[name][at] = getattr(some, name)
        said.append(Verdicts(**whole))
    for slot in range(5):
        there = ~np.isnan(table[:, slot])
        alone = fed(Ensemble(1), table[there, slot][:, None])
        heard = [verdict for verdict, is_there in zip(said, there, strict=True) if is_there]
        assert_same(heard, alone, slice(slot, slot + 1), rtol=1e-4)


def test_a_reading_that_is_missing_leaves_everything_as_it_was() -> None:
    ensemble = Ensemble(2)
    fed(ensemble, lively(300, 2, 1))
    before = ensemble.snapshot()
    verdicts = ensemble.update([np.nan, np.nan])
    assert np.isnan(verdicts.score).all() and not verdicts.alert.any() and (verdicts.kind == -1).all()
    for name, array in ensemble.snapshot().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@few
@given(seeds, st.integers(0, 400))
def test_a_restored_one_goes_on_as_the_first(seed: int, cut: int) -> None:
    table = lively(420, 4, seed)
    first, second = Ensemble(4), Ensemble(0)
    fed(first, table[:cut])
    state = first.snapshot()
    second.restore(state)
    assert_same(fed(first, table[cut:]), fed(second, table[cut:]))
    again = Ensemble(7)
    again.restore(state)  # which the first has not written to since
    assert_same(fed(again, table[cut:]), fed(Ensemble(4), table)[cut:])


@pytest.mark.parametrize("part", ["buffer", "channels", "tails", "decision"])
def test_a_snapshot_that_does_not_fit_is_refused(part: str) -> None:
    ensemble = Ensemble(3)
    state = ensemble.snapshot()
    other = {name: array for name, array in Ensemble(2).snapshot().items() if name.startswith(f"{part}.")}
    with pytest.raises(StorageError):
        Ensemble(3).restore({**state, **other})
    with pytest.raises(StorageError):
        Ensemble(3).restore({name: array for name, array in state.items() if not name.startswith(f"{part}.")})


@few
@given(seeds, st.floats(-3, 5), st.floats(-20, 20))
def test_the_unit_of_a_metric_does_not_matter(seed: int, magnitude: float, offset: float) -> None:
    table = lively(700, 4, seed)
    plain = fed(Ensemble(4), table)
    moved = fed(Ensemble(4), 10**magnitude * (table + offset))
    one, two = column(plain, "score"), column(moved, "score")
    assert np.mean(np.abs(one - two) > 0.2 + 0.05 * one) < 0.01
    differ = column(plain, "alert").sum(axis=0) - column(moved, "alert").sum(axis=0)
    assert np.abs(differ).max() <= 1


def test_a_metric_takes_at_most_ten_kilobytes_for_ever() -> None:
    ensemble = Ensemble(10)
    fresh = ensemble.state_bytes()
    fed(ensemble, lively(1300, 10, 2))
    assert ensemble.state_bytes() == fresh <= 10_000 * 10


def test_slots_come_go_and_start_afresh() -> None:
    table = lively(500, 3, 5)
    ensemble = Ensemble(2)
    fed(ensemble, table[:, :2])
    ensemble.resize(3)
    ensemble.forget(np.array([1]))
    again = fed(ensemble, table)
    assert_same(again, fed(Ensemble(2), table[:, 1:]), slice(1, 3), rtol=1e-4)
    ensemble.resize(1)
    assert ensemble.metrics == 1
    assert ensemble.update([0.0]).ready.all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="slots"):
        Ensemble(3).update([1.0, 2.0])
    with pytest.raises(InputError, match="slots"):
        Ensemble(3).update([1.0, 2.0], np.array([0]))


def test_one_event_is_one_alert_and_two_far_apart_are_two() -> None:
    series = quiet_series()
    series[700:720] += 12
    assert [700 <= t < 730 for t, _ in alerts(series)] == [True]
    series[1000:1020] += 12
    assert [t // 100 for t, _ in alerts(series)] == [7, 10]


def test_a_much_larger_event_breaks_the_cooldown_and_an_equal_one_does_not() -> None:
    base = quiet_series()
    base[700] += 9
    second = 700 + DELAY + SETTLING + 15
    assert second < 700 + COOLDOWN
    equal, larger = base.copy(), base.copy()
    equal[second] += 9
    larger[second : second + 12] += 60
    assert len(alerts(equal)) == 1
    verdicts = fed(Ensemble(1), larger[:, None])
    escalated = column(verdicts, "escalated")[:, 0]
    assert column(verdicts, "alert")[:, 0].sum() == 2
    assert np.flatnonzero(escalated).tolist() == pytest.approx([second + DELAY], abs=12)


def test_a_new_level_is_news_once_and_what_happens_on_it_is_news_again() -> None:
    series = quiet_series(1500)
    series[600:] += 12
    assert [600 <= t < 615 for t, _ in alerts(series)] == [True]
    series[1100:1104] += 12
    assert [t // 20 for t, _ in alerts(series)] == [600 // 20, 1100 // 20]


def test_what_comes_again_and_again_becomes_usual() -> None:
    series = quiet_series(3000)
    series[300::90] += 15
    times = [t for t, _ in alerts(series)]
    assert sum(t < 1500 for t in times) >= 1 and sum(t >= 1500 for t in times) <= 2


def test_since_tells_where_a_step_began() -> None:
    for seed in range(5):
        series = quiet_series(seed=seed)
        series[800:830] += 10
        verdicts = fed(Ensemble(1), series[:, None])
        (alert,) = [t for t in np.flatnonzero(column(verdicts, "alert")[:, 0]) if 800 <= t < 840]
        assert alert - verdicts[alert].since[0] == pytest.approx(800, abs=3)


def test_expected_follows_a_season() -> None:
    t = np.arange(1200)
    series = 20 + 8 * np.sin(2 * np.pi * t / 48) + np.random.default_rng(1).normal(0, 0.5, 1200)
    expected = column(fed(Ensemble(1), series[:, None]), "expected")[:, 0]
    assert np.abs(expected[600:] - series[600:]).mean() < 1.0


def test_noise_and_what_stands_still_are_left_in_peace() -> None:
    points = 2000
    random = np.random.default_rng(7)
    noise = random.normal(size=(points, 30))
    assert column(fed(Ensemble(30), noise), "alert").sum() <= 12  # 0.2 in a thousand
    still = np.broadcast_to(np.array([0.0, 1.0, -7.5, 1e-30, 1e30, 1e308]), (points, 6))
    assert not column(fed(Ensemble(6), still), "alert").any()


def test_a_season_that_repeats_itself_to_the_digit_is_left_in_peace() -> None:
    t = np.arange(3000)
    season = np.where(t % 144 < 60, 80.0, 20.0) + 5.0 * np.sin(2 * np.pi * t / 144)
    season[1300:1303] += [0.02, -0.02, 0.02]  # not quite to the digit
    assert len([t for t, _ in alerts(season) if t > 500]) <= 1
    season[2000:2060] += 90.0
    assert any(2000 <= t < 2030 for t, _ in alerts(season))


hostile = st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 3.4e38, -3.4e38, 1e-320, 0.0, -0.0, 1.0])


@few
@given(st.lists(hostile | st.floats(-10, 10), min_size=20, max_size=60), seeds)
@pytest.mark.filterwarnings("error")
def test_nothing_that_can_be_read_breaks_it(strange: list[float], seed: int) -> None:
    ensemble = Ensemble(2)
    table = np.random.default_rng(seed).normal(size=(400, 2))
    for start in (0, 120, 310):
        table[start : start + len(strange), 0] = strange
    said = fed(ensemble, table)
    for name in ("score", "expected", "channel_scores", "channel_distances"):
        found = column(said, name)
        there = ~np.isnan(table) & np.ones(table.shape, bool)
        if name == "expected":
            there[:1] = False  # nothing is expected of a first reading
            there[np.cumsum(there[:, 0]) <= 1, 0] = False
        assert np.isfinite(found[there]).all(), name
    alone = fed(Ensemble(1), table[:, 1:])
    assert_same(said, alone, slice(1, 2), rtol=1e-4)


@pytest.mark.parametrize("wild", [1e308, -1e308, 3e38, np.inf])
def test_after_the_wildest_reading_a_change_is_still_seen(wild: float) -> None:
    series = quiet_series(1500)
    series[600] = wild
    series[1200:1215] += 15
    times = [t for t, _ in alerts(series)]
    assert any(600 <= t < 615 for t in times) and any(1200 <= t < 1230 for t in times)


def test_a_constant_that_changes_is_seen() -> None:
    series = np.full(1000, 5.0)
    series[700:] = 5.5
    ((when, kind),) = alerts(series)
    assert 700 <= when < 715 and kind == "spike"


def test_small_variation_on_a_large_offset_is_judged_as_far_as_it_can_be_told() -> None:
    """A float32 of 1e9 is good to 64: noise of 100 there is coarse, and still no reason for alarms."""
    series = 1e9 + 100 * quiet_series(1500)
    assert len(alerts(series)) <= 1
    series[1000:1015] += 1500
    assert any(1000 <= t < 1030 for t, _ in alerts(series))
    assert not alerts(1e9 + quiet_series(1500))
