"""Placement: bounded, no less for more load, at once up, slowly down, and never to and fro."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.core.rng import rng
from chimera.swarm.placement import (
    MAX_SHRINK,
    SPARE_UTILISATION,
    UTILISATION,
    Leases,
    Limits,
    Load,
    Placement,
    Wanted,
    leaving,
)

STEP_S = 5.0
LIMITS = Limits(min_cells=1, max_cells=64)

counts = st.integers(0, 100_000)
rates = st.floats(0, 1e6)
loads = st.builds(
    Load,
    cells=st.integers(0, 200),
    used=st.floats(0, 400),
    waiting=counts,
    busy=counts,
    arrivals_per_s=rates,
    completed_per_s=rates,
    managers=st.integers(1, 100),
    manager_used=st.floats(0, 200),
)
histories = st.lists(
    st.tuples(loads | st.builds(Load, cells=st.just(4), used=st.floats(0, 30)), st.integers(1, 40))
).map(lambda runs: [load for load, length in runs for _ in range(length)])
bounds = st.tuples(st.integers(1, 50), st.integers(0, 50)).map(lambda b: Limits(min_cells=b[0], max_cells=b[0] + b[1]))


def follow(placement: Placement, history: list[Load]) -> list[Wanted]:
    return [placement.wanted(load, STEP_S * i) for i, load in enumerate(history)]


class Cells:
    """Cells that work off attempts of `each_s` CPU seconds. New ones take `boot` intervals to come."""

    def __init__(self, *, each_s: float, boot: int = 0, limits: Limits = LIMITS) -> None:
        self.placement = Placement(limits)
        self.each_s = each_s
        self.coming = [1] * (boot + 1)
        self.waiting = 0.0
        self.now = 0.0

    def step(self, arrivals_per_s: float) -> int:
        cells = self.coming.pop(0)
        offered = self.waiting + arrivals_per_s * STEP_S
        done = min(offered, cells * STEP_S / self.each_s)
        self.waiting = offered - done
        load = Load(
            cells=cells,
            used=done * self.each_s / STEP_S,
            waiting=int(self.waiting),
            arrivals_per_s=arrivals_per_s,
            completed_per_s=done / STEP_S,
        )
        self.now += STEP_S
        wanted = self.placement.wanted(load, self.now).cells
        self.coming = [min(c, wanted) for c in self.coming] + [wanted]  # what is not wanted any more goes at once
        return wanted

    def run(self, arrivals_per_s: float, steps: int) -> list[int]:
        return [self.step(arrivals_per_s) for _ in range(steps)]


@given(bounds, histories)
def test_the_bounds_always_hold(limits: Limits, history: list[Load]) -> None:
    for wanted in follow(Placement(limits, cells=99, managers=999), history):
        assert limits.min_cells <= wanted.cells <= limits.max_cells
        assert math.ceil(wanted.cells / limits.cells_per_manager) <= wanted.managers <= limits.max_managers


@given(
    st.lists(loads, max_size=10), loads, st.floats(0, 50), st.integers(0, 10**5), st.integers(0, 10**5), rates, rates
)
def test_more_load_never_asks_for_less(
    history: list[Load], load: Load, used: float, waiting: int, busy: int, arrivals: float, manager_used: float
) -> None:
    more = load.model_copy(
        update={
            "used": load.used + used,
            "waiting": load.waiting + waiting,
            "busy": load.busy + busy,
            "arrivals_per_s": load.arrivals_per_s + arrivals,
            "manager_used": load.manager_used + manager_used,
        }
    )
    little, much = (follow(Placement(LIMITS), [*history, last])[-1] for last in (load, more))
    assert little.cells <= much.cells
    assert little.managers <= much.managers
    assert little.work <= much.work


@given(histories)
def test_it_falls_by_one_step_an_interval_and_only_after_quiet(history: list[Load]) -> None:
    seen = follow(Placement(LIMITS, cells=50), history)
    falls = []
    for i, (before, after) in enumerate(itertools.pairwise(seen), start=1):
        if after.cells < before.cells:
            assert before.cells - after.cells <= max(1, before.cells // MAX_SHRINK)
            falls.append(STEP_S * i)
            first = i - round(LIMITS.quiet_s / STEP_S)
            assert first >= 0
            measured = [seen[j].work for j in range(first, i + 1) if history[j].cells]
            assert max(measured) / SPARE_UTILISATION <= before.cells - 1 + 1e-6, "fewer have room to spare all along"
    assert all(later - earlier >= LIMITS.interval_s for earlier, later in itertools.pairwise(falls))


@given(st.floats(0.05, 40), st.integers(0, 2**32), st.floats(0, 0.14))
def test_noise_moves_nothing_to_and_fro(work: float, seed: int, noise: float) -> None:
    """It may rise for the queue of the start and fall from there; it never rises again."""
    draw = rng("noise", seed)
    cells = Cells(each_s=0.01, limits=Limits(max_cells=256))
    seen = [cells.step(work / cells.each_s * (1 + draw.uniform(-noise, noise))) for _ in range(150)]
    moves = [b > a for a, b in itertools.pairwise(seen) if a != b]
    assert moves == sorted(moves, reverse=True)
    assert seen[-1] >= work / UTILISATION * (1 - noise)


@given(st.floats(0.1, 40))
def test_constant_load_comes_to_rest_near_the_target(work: float) -> None:
    cells = Cells(each_s=0.01)
    seen = cells.run(work / 0.01, 400)
    assert len(set(seen[-100:])) == 1
    assert math.ceil(round(work / UTILISATION, 6)) <= seen[-1] <= math.ceil(work / SPARE_UTILISATION)
    assert cells.waiting < 1


@given(st.floats(1, 40), st.sampled_from([0.001, 0.01, 0.5]), st.integers(0, 24))
def test_after_a_step_in_load_what_it_needs_is_asked_for_within_two_intervals(
    work: float, each_s: float, boot: int
) -> None:
    cells = Cells(each_s=each_s, boot=boot)
    cells.run(0.1 / each_s, 5)
    need = min(LIMITS.max_cells, math.ceil(round(work / UTILISATION, 6)))
    assert max(cells.run(work / each_s, 2)) >= need
    cells.run(work / each_s, boot + 60)
    assert cells.waiting <= work / each_s * STEP_S, "the queue of the boot time is worked off"


@given(st.floats(1, 60), st.integers(0, 6))
@settings(max_examples=30)
def test_when_the_load_is_gone_it_returns_to_the_minimum(work: float, boot: int) -> None:
    cells = Cells(each_s=0.01, boot=boot)
    cells.run(work / 0.01, 30)
    cells.run(0.0, boot + 1)
    while cells.waiting:
        cells.step(0.0)
    seen = cells.run(0.0, 120)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == LIMITS.min_cells


def test_an_idle_swarm_keeps_its_minimum() -> None:
    idle = [Load(cells=8, used=0.0)] * 60
    assert follow(Placement(Limits(min_cells=3), cells=8), idle)[-1] == Wanted(cells=3, managers=1, work=0.0)


def test_what_waits_for_agents_asks_for_no_cells() -> None:
    """All agents wait on a slow model: the cells are idle, and more of them would not make an agent."""
    placement = Placement(LIMITS)
    load = Load(cells=1, used=0.3, waiting=50_000, busy=100, arrivals_per_s=500, completed_per_s=10)
    assert placement.wanted(load, 0.0).cells == 1
    assert placement.wanted(load.model_copy(update={"used": 0.99}), 5.0).cells == LIMITS.max_cells


def test_a_load_that_is_just_at_the_target_asks_for_no_more() -> None:
    used = 3 * UTILISATION
    assert used / UTILISATION > 3, "floating point has its say here"
    assert Placement(LIMITS, cells=3).wanted(Load(cells=3, used=used), 0.0).cells == 3


def test_what_idle_cells_use_is_no_work_of_attempts() -> None:
    placement = Placement(LIMITS, cells=2)
    for i in range(1_000):
        placement.wanted(Load(cells=2, used=0.1), STEP_S * i)
    burst = Load(cells=2, used=2.0, arrivals_per_s=400, completed_per_s=200)
    assert placement.wanted(burst, STEP_S * 1_000).work == pytest.approx(4.0)


def test_until_an_attempt_has_ended_a_saturated_swarm_grows_by_a_quarter() -> None:
    placement = Placement(LIMITS, cells=8)
    assert placement.wanted(Load(cells=8, used=8.0, waiting=1_000), 0.0) == Wanted(cells=10, managers=2, work=8.0)


def test_the_queue_is_spread_over_the_time_to_drain_it() -> None:
    """2 saturated cells did 200 a second, so 10 ms each; 600 a second arrive, and 12,000 are here."""
    placement = Placement(Limits(max_cells=64, drain_s=60.0))
    load = Load(cells=2, used=2.0, waiting=11_900, busy=100, arrivals_per_s=600, completed_per_s=200)
    wanted = placement.wanted(load, 0.0)
    assert wanted.work == pytest.approx((600 + 12_000 / 60) * 0.01)
    assert wanted.cells == 10


def test_a_swarm_that_has_cells_keeps_them_when_its_coordinator_starts_again() -> None:
    placement = Placement(LIMITS, cells=12, managers=3)
    none_up = [Load(cells=0, used=0.0, waiting=10)] * 30
    assert {wanted.cells for wanted in follow(placement, none_up)} == {12}
    assert placement.wanted(Load(cells=12, used=0.1), 200.0).cells == 12


def test_managers_follow_the_cells_and_their_own_load() -> None:
    placement = Placement(Limits(max_cells=64, cells_per_manager=8))
    assert placement.wanted(Load(cells=1, used=0.1), 0.0).managers == 1
    assert placement.wanted(Load(cells=16, used=16.0), 5.0).managers == 3
    assert placement.wanted(Load(cells=16, used=16.0, managers=3, manager_used=3.0), 10.0).managers == 4


@pytest.mark.parametrize("bad", [{"used": -1.0}, {"used": math.inf}, {"used": math.nan}, {"cells": -1}, {"cell": 1}])
def test_what_cannot_be_measured_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Load.model_validate({"cells": 1, "used": 0.0, **bad})


def test_bounds_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_cells 3 is more than max_cells 2"):
        Limits(min_cells=3, max_cells=2)


def emptied(homes: dict[str, str], gone: tuple[str, ...] | list[str]) -> int:
    left = Counter(node for cell, node in homes.items() if cell not in gone)
    return len(set(homes.values())) - len(left)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["head", "n1", "n2", "n3"])), st.integers(0, 9))
def test_those_that_leave_empty_as_many_nodes_as_can_be(homes: dict[str, str], count: int) -> None:
    gone = leaving(homes, count)
    assert len(gone) == len(set(gone)) == min(count, len(homes))
    assert emptied(homes, gone) == max(emptied(homes, some) for some in itertools.combinations(homes, len(gone)))
    assert gone == leaving(dict(reversed(homes.items())), count)
    spared = leaving(homes, count, head="head")
    others = sum(node != "head" for node in homes.values())
    assert sum(homes[cell] == "head" for cell in spared) == max(0, len(spared) - others)


def test_swarms_add_up_and_one_that_is_silent_stops_asking() -> None:
    leases = Leases()
    leases.ask("one", 3, until=30.0)
    leases.ask("two", 5, until=40.0)
    assert leases.total(0.0) == 8
    leases.ask("one", 4, until=35.0)
    assert leases.total(34.0) == 9
    assert leases.total(35.0) == 5
    leases.ask("two", 0, until=99.0)
    assert leases.total(36.0) == 0
