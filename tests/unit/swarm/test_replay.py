"""A brain that is made again from its journal goes on as the one that died would have, wherever the journal ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import Budget, FailureKind, MissionState, Spend
from chimera.storage.journal import decode_event, encode_event
from chimera.swarm.attempt import NO_LIMIT, Report, Work
from chimera.swarm.brain import MissionBrain
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.instructions import (
    Appraise,
    Ask,
    Cancel,
    Dispatch,
    Finish,
    Instruction,
    Record,
    Reported,
    Resumed,
    Started,
    Tick,
)
from chimera.swarm.replay import rebuild
from tests.unit.swarm.chance import a_budget, a_mission, at_random, on_the_tick
from tests.unit.swarm.driver import Mission, encoded, node

DECOMPOSER = TaskDecomposer(max_nodes=16)
SEEDS = range(120)


def a_life(seed: int, *, wall_jumps: bool = False) -> Mission:
    """A whole mission, every other one with a budget."""
    chance = Random(seed)
    mission = a_mission(chance, a_budget(chance) if seed % 2 else NO_LIMIT)
    for _ in at_random(mission, chance, wall_jumps=wall_jumps):
        pass
    return mission


def stored(events: list[Event]) -> list[Event]:
    """The events as they come out of a journal."""
    return [decode_event(encode_event(event), "a test") for event in events]


def recorded(steps: list[Instruction]) -> list[Event]:
    return [step.event for step in steps if isinstance(step, Record)]


def said(steps: list[Instruction]) -> list[object]:
    """Everything that the steps ask for, records and results as bytes; not when to wake, which is another clock's."""
    found: list[object] = []
    for step in steps:
        match step:
            case Record(event):
                found.append(encode_event(event))
            case Finish(result):
                found.append(result.model_dump_json())
            case Dispatch(attempts):
                found += [(replace(attempt, work=b""), Work.unpack(attempt.work)) for attempt in attempts]
            case Cancel() | Appraise() | Ask():
                found.append(step)
    return found


def ends_of_steps(mission: Mission) -> list[tuple[int, int]]:
    """For each number of events from 1 on: the step that its last event is of, and how many events end that step."""
    found: list[tuple[int, int]] = []
    ends = 0
    for number, told in enumerate(mission.told):
        ends += len(recorded(told.steps))
        found += [(number, ends)] * (ends - len(found))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rebuilt_brain_goes_on_as_the_first_would_have_after_any_prefix(seed: int) -> None:
    mission = a_life(seed)
    ahead_s = mission.wall_ahead_s
    journal = stored(mission.events)
    assert journal == mission.events
    for length, (number, ends) in enumerate(ends_of_steps(mission), 1):
        shift_s = (length % 3) * 4096.0  # another process has another monotonic clock
        told = mission.told[number]
        now = on_the_tick(told.now)
        brain, rest = rebuild(journal[:length], decomposer=DECOMPOSER, now=now + shift_s, wall=now + ahead_s)
        assert told.open == set(brain.open_attempts) == {a.id for a in brain.outstanding(now + shift_s)}
        assert told.held == brain.held
        assert recorded(rest) == mission.events[length:ends]
        finish = [step for step in told.steps if isinstance(step, Finish)]
        assert rest[len(recorded(rest)) :] == finish
        for later in mission.told[number + 1 :]:
            again = brain.handle(later.happening, brain.wake_at if later.due else later.now + shift_s)
            assert said(again) == said(later.steps)
            assert set(brain.open_attempts) == later.open
            assert brain.held == later.held
        assert brain.ended


def test_the_random_missions_meet_every_kind_of_event_and_end() -> None:
    """Or else the test above would prove less than it seems to."""
    lives = [a_life(seed) for seed in SEEDS]
    seen = {event.kind for mission in lives for event in mission.events}
    others = ("swarm_", "agents_", "reload_", "heart_", "review_")
    assert seen == {kind for kind in EventKind if not kind.startswith(others)}
    failures = {e.data["failure"] for m in lives for e in m.events if e.kind is EventKind.ATTEMPT_FAILED}
    assert failures == {kind.value for kind in FailureKind}
    assert any(e.data.get("late") for m in lives for e in m.events)
    assert {m.ended.state for m in lives} == set(MissionState) - {MissionState.RUNNING}
    verdicts = {(e.data["verdict"], bool(e.data["by"])) for m in lives for e in m.events if "verdict" in e.data}
    assert verdicts == {("approve", True), ("edit", True), ("reject", True), ("reject", False)}
    silent = sum(not recorded(told.steps) for m in lives for told in m.told)
    assert silent > 50, "steps that record nothing"


@pytest.mark.parametrize("seed", range(40))
def test_a_wall_clock_that_was_set_back_breaks_nothing(seed: int) -> None:
    """It jumps while the first brain lives, and is two hours behind when the second is made; a third sees it all."""
    mission = a_life(seed, wall_jumps=True)
    assert mission.events == sorted(mission.events, key=lambda event: event.at_s)
    for length, (number, ends) in list(enumerate(ends_of_steps(mission), 1))[::3]:
        journal = stored(mission.events[:length])
        told = mission.told[number]
        brain, rest = rebuild(journal, decomposer=DECOMPOSER, now=7.0, wall=journal[-1].at_s - 7_200.0)
        assert set(brain.open_attempts) == told.open
        assert recorded(rest) == mission.events[length:ends]
        journal += stored(recorded(rest))
        now = 7.0
        steps = rest
        while not brain.ended:
            now = max(now, brain.wake_at)
            steps = brain.handle(Tick(), now, 0.0)
            journal += stored(recorded(steps))
        assert [event.seq for event in journal] == list(range(1, len(journal) + 1))
        third, last = rebuild(journal, decomposer=DECOMPOSER, now=1.0, wall=2.0)
        assert third.ended and last == [step for step in steps if isinstance(step, Finish)]


def test_a_wall_clock_set_back_before_the_restart_leaves_the_time_that_was_left() -> None:
    mission = Mission(node("t", replicas=2, early_stop=False), deadline_s=10.0, wall_ahead_s=1_000_000.0)
    mission.reply("t", 1, now=4.0)
    brain, _ = rebuild(stored(mission.events), decomposer=DECOMPOSER, now=50.0, wall=900_000.0)
    assert brain.wake_at == 56.0
    assert brain.outstanding(51.0)[0].timeout_s == 5.0


def test_time_passes_while_nobody_is_there() -> None:
    mission = Mission(node("t"), deadline_s=10.0, wall_ahead_s=1_000_000.0)
    brain, rest = rebuild(stored(mission.events), decomposer=DECOMPOSER, now=3.0, wall=1_000_600.0)
    assert rest == []
    assert brain.wake_at < 3.0
    finish = brain.handle(Tick(), 3.0)[-1]
    assert isinstance(finish, Finish) and finish.result.state is MissionState.EXPIRED
    assert finish.result.elapsed_s == 600.0


def test_another_swarm_takes_over_with_all_of_the_time_and_what_was_in_progress() -> None:
    mission = Mission(node("a"), node("t", "a", replicas=3, early_stop=False), deadline_s=10.0)
    mission.reply("a", 1, now=1.0)
    mission.reply("t", "yes", 0, now=2.0)
    before = dict(mission.open)
    brain, _ = rebuild(stored(mission.events), decomposer=DECOMPOSER, now=100.0, wall=9_000.0)
    steps = brain.handle(Resumed("s2"), 100.0)
    [event] = recorded(steps)
    assert (event.kind, event.swarm, event.seq) == (EventKind.MISSION_RESUMED, "s2", mission.events[-1].seq + 1)
    assert brain.wake_at == 110.0
    outstanding = brain.outstanding(101.0)
    assert {a.id for a in outstanding} == before.keys()
    assert [Work.unpack(a.work) for a in outstanding] == [Work.unpack(a.work) for a in before.values()]
    assert all(a.barred == {"a0"} for a in outstanding)

    journal = mission.events + recorded(steps)
    for replica, value in ((1, "yes"), (1, "no"), (2, "no"), (2, "yes")):  # the second is the old swarm's, too late
        report = Report(f"m/t/{replica}/1", "m", agent=f"b{replica}", reply=encoded(value))
        steps = brain.handle(Reported(report), 105.0)
        journal += recorded(steps)
    accepted = [e.data["attempt"] for e in journal if e.kind is EventKind.REPLY_ACCEPTED]
    assert accepted == ["m/a/0/1", "m/t/0/1", "m/t/1/1", "m/t/2/1"], "each replica's first, and no more"
    again, rest = rebuild(stored(journal), decomposer=DECOMPOSER, now=0.0, wall=0.0)
    [finish] = rest
    assert again.ended and isinstance(finish, Finish) and finish.result.value == "yes"
    assert [event.swarm for event in journal[-4:]] == ["s2"] * 4


def test_a_budget_is_kept_over_a_restart() -> None:
    budget = Budget(usd=1.0)
    mission = Mission(node("t", replicas=3, early_stop=False, spend=Budget(usd=0.4)), budget=budget)
    mission.reply("t", 1, 0, cost_usd=0.3)
    brain, _ = rebuild(stored(mission.events), decomposer=DECOMPOSER, now=0.0, wall=0.0)
    assert (brain.spent, brain.reserved) == (Spend(usd=0.3), Spend(usd=0.4))
    assert [a.spend for a in brain.outstanding(0.0)] == [Budget(usd=0.4)]


def test_a_replica_that_waits_for_money_after_its_pause_is_not_forgotten() -> None:
    """The Tick at the pause's end records nothing: the money is out. The report that gives it back must find it."""
    mission = Mission(node("t", replicas=2, early_stop=False, spend=Budget(calls=1)), budget=Budget(calls=2))
    mission.report(mission.attempt("t", 0), failure=FailureKind.RAISED, agent="a0", spent=Spend(calls=1))
    assert not recorded(mission.tell(Tick(), mission.wake_at_s))
    mission.reply("t", 1, 1)
    assert mission.open.keys() == {"m/t/0/2"}
    brain, rest = rebuild(stored(mission.events[:-1]), decomposer=DECOMPOSER, now=0.0, wall=0.0)
    assert recorded(rest) == mission.events[-1:]
    assert set(brain.open_attempts) == mission.open.keys()


@pytest.mark.parametrize("spend", [None, Budget(calls=2)])
def test_a_pause_that_ends_before_the_overdue_are_told_does_so_again(spend: Budget | None) -> None:
    """A report of nothing comes between: the next try begins, or fails for want of money, and no task is closed."""
    waits = node("waits", deadline_s=3.0, spend=spend and Budget(calls=1))
    mission = Mission(node("fails", spend=spend), waits, budget=Budget(calls=3) if spend else NO_LIMIT)
    failed = mission.attempt("fails")
    mission.report(failed, 2.99, failure=FailureKind.RAISED, agent="a", spent=Spend(calls=2))
    assert mission.wake_at_s < 3.1
    [event] = recorded(mission.report(failed, 3.1, failure=FailureKind.RAISED, agent="a"))[:1]
    assert event.kind is (EventKind.ATTEMPT_FAILED if spend else EventKind.ATTEMPT_STARTED)
    brain, rest = rebuild(stored(mission.events), decomposer=DECOMPOSER, now=3.2, wall=3.2)
    assert rest == [] and set(brain.open_attempts) == mission.open.keys() >= {"m/waits/0/1"}


def drop(events: list[Event]) -> list[Event]:
    return events[:2] + events[3:]


def swap(events: list[Event]) -> list[Event]:
    return [*events[:2], events[3], events[2], *events[4:]]


def twice(events: list[Event]) -> list[Event]:
    return [*events[:3], *events[2:]]


def at(index: int, **changes: Any) -> Callable[[list[Event]], list[Event]]:
    """The journal with something else in one of its events."""

    def change(events: list[Event]) -> list[Event]:
        found = events[index]
        if "data" in changes:
            changes["data"] = {**found.data, **changes["data"]}
        return [*events[:index], found.model_copy(update=changes), *events[index + 1 :]]

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda events: [],
        lambda events: events[1:],
        lambda events: [*events, events[0]],
        drop,
        swap,
        twice,
        at(0, data={"graph": {"nodes": [], "output": "t"}}),
        at(0, data={"graph": "a graph"}),
        at(0, data={"deadline_s": "soon"}),
        at(0, data={"budget": {"usd": -1}}),
        at(0, mission_id="another"),
        at(2, mission_id="another"),
        at(2, kind=EventKind.SWARM_STARTED),
        at(2, kind=EventKind.ATTEMPT_FAILED),
        at(2, task_id="u"),
        at(2, seq=9),
        at(2, at_s=0.5),
        at(2, data={"attempt": "m/t/7/1"}),
        at(2, data={"attempt": ""}),
        at(2, data={"replica": 1}),
        at(2, data={"reply": {"value": 1, "unknown": 2}}),
        at(2, data={"reply": {"value": "no"}}),
        at(2, data={"reply": None}),
        at(2, data={"elapsed_s": "long"}),
        at(2, data={"spent": {"usd": -1.0}}),
        at(3, data={"value": "no"}),
        at(3, data={"outcome": "tie"}),
        at(4, data={"state": "failed"}),
    ],
)
def test_a_damaged_journal_is_refused(damage: Callable[[list[Event]], list[Event]]) -> None:
    mission = Mission(node("t"))
    mission.reply("t", "yes", now=1.0)
    rebuild(mission.events, decomposer=DECOMPOSER, now=0.0, wall=0.0)
    with pytest.raises(StorageError):
        rebuild(damage(mission.events), decomposer=DECOMPOSER, now=0.0, wall=0.0)


def test_words_may_differ_between_versions() -> None:
    mission = Mission(node("t"))
    mission.reply("t", "yes")
    reworded = at(3, data={"explanation": "all one voters were of one mind"})(mission.events)
    brain, _ = rebuild(reworded, decomposer=DECOMPOSER, now=0.0, wall=0.0)
    assert brain.ended


def test_a_second_start_changes_nothing() -> None:
    mission = Mission(node("t"))
    assert mission.tell(Started()) == []


def test_a_brain_is_made_of_the_admission() -> None:
    mission = Mission(node("t", priority=7), budget=Budget(calls=3), deadline_s=5.0)
    brain, _ = rebuild(stored(mission.events[:1]), decomposer=DECOMPOSER, now=0.0, wall=0.0)
    assert isinstance(brain, MissionBrain)
    assert (brain.mission_id, brain.priority, brain.limited, brain.wake_at) == ("m", 7, True, 5.0)
