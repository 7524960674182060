"""Nothing is overspent, whatever attempts report; what waits for money gets it, or hears that none will come."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.events import EventKind
from chimera.core.types import Budget, FailureKind, MissionState, Spend
from chimera.swarm.attempt import NO_LIMIT
from chimera.swarm.brain import MissionBrain
from chimera.swarm.budget import Purse
from chimera.swarm.instructions import Cancel, Dispatch, Finish, Resumed
from tests.unit.swarm.chance import a_budget, a_mission, at_random
from tests.unit.swarm.driver import Mission, encoded, node

NAMES = ("usd", "tokens", "calls", "seconds")

amounts: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "usd": st.floats(0, 3) | st.just(0.1) | st.sampled_from([0.0, 1e300]),
        "tokens": st.integers(0, 30) | st.just(10**18),
        "calls": st.integers(0, 5),
        "seconds": st.floats(0, 9) | st.just(1e-6),
    }
)
spends = amounts.map(lambda fields: Spend(**fields))
budgets = st.builds(
    lambda fields, limited: Budget(**{name: fields[name] for name in limited}), amounts, st.sets(st.sampled_from(NAMES))
)


def holds(purse: Purse | MissionBrain, limit: Budget) -> None:
    """The law of every purse, at every moment. A billionth of a dollar and a microsecond are its units."""
    spent, reserved = purse.spent, purse.reserved
    for name, unit in zip(NAMES, (1e-9, 0, 0, 1e-6), strict=True):
        used, held, most = getattr(spent, name), getattr(reserved, name), getattr(limit, name)
        assert used >= 0 and held >= 0
        assert most is None or used + held <= most + unit


@given(budgets, st.lists(st.tuples(st.sampled_from("abcde"), budgets | st.none(), spends | st.none()), max_size=40))
def test_no_sequence_of_reservations_passes_a_limit(limit: Budget, steps: list[tuple[str, Any, Any]]) -> None:
    """Each step asks for `wish` (None: a share) where the attempt has nothing reserved, and settles it where it has."""
    purse = Purse(limit)
    held: dict[str, Budget] = {}
    for name, wish, spent in steps:
        if name in held:
            before = purse.spent
            assert purse.reserve(name, NO_LIMIT), "a second call changes nothing"
            assert purse.grant(name) == held.pop(name)
            assert purse.settle(name, spent)
            assert all(getattr(purse.spent, dim) >= getattr(before, dim) for dim in NAMES)
            assert not purse.settle(name, spent)
        else:
            ask = wish if wish is not None else purse.share(3)
            reserved = purse.reserved
            could = purse.could(ask)
            if purse.reserve(name, ask):
                held[name] = purse.grant(name)
                assert could
            else:
                assert purse.reserved == reserved, "refused, and nothing changed"
                assert held or not could, "what could be reserved later waits for something"
        assert purse.attempts == list(held)
        holds(purse, limit)
    for name in held:
        purse.settle(name, Spend())
    assert purse.reserved == Spend()


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_was_reserved_and_not_spent_can_be_reserved_again_to_the_last_token(
    limit: int, granted: int, spent: int
) -> None:
    purse = Purse(Budget(tokens=limit))
    assert purse.reserve("a", Budget(tokens=granted)) == (granted <= limit)
    left = limit - min(spent, granted) if purse.settle("a", Spend(tokens=spent)) else limit
    assert not purse.reserve("b", Budget(tokens=left + 1))
    assert purse.reserve("b", Budget(tokens=left))
    assert purse.reserved == Spend(tokens=left)


def test_a_share_is_of_what_is_left_and_at_least_a_unit() -> None:
    purse = Purse(Budget(usd=1.0, calls=3))
    assert purse.share(4) == Budget(usd=0.25, calls=1)
    assert purse.reserve("a", purse.share(2))
    assert purse.share(5) == Budget(usd=0.1, calls=1)
    purse.settle("a", Spend(usd=0.1))
    assert purse.share(3) == Budget(usd=0.3, calls=1)
    assert purse.share(3, Budget(usd=0.7, tokens=5)) == Budget(usd=0.7, tokens=5, calls=1)


def test_zero_forbids_and_no_attempt_takes_no_time() -> None:
    free = Purse(Budget(usd=0.0))
    assert free.reserve("a", free.share(1)) and free.grant("a") == Budget(usd=0.0)
    timeless = Purse(Budget(seconds=0.0))
    assert not timeless.reserve("a", timeless.share(1)) and not timeless.could(timeless.share(1))


def test_what_a_dead_host_spent_is_all_it_had() -> None:
    purse = Purse(Budget(usd=1.0))
    purse.reserve("a", Budget(usd=0.75))
    purse.settle("a", None)
    assert purse.spent.usd == 0.75
    assert not purse.could(Budget(usd=0.5))


def test_a_replicas_share_is_equal_and_its_time_is_part_of_it() -> None:
    mission = Mission(node("t", replicas=4, max_attempts=2), budget=Budget(usd=1.0, seconds=16.0))
    assert {attempt.spend for attempt in mission.open.values()} == {Budget(usd=0.125, seconds=2.0)}
    assert {attempt.timeout_s for attempt in mission.open.values()} == {2.0}
    assert mission.brain.limited and mission.brain.reserved == Spend(usd=0.5, seconds=8.0)


def test_what_cannot_be_paid_now_waits_until_another_gives_back() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False, spend=Budget(usd=0.5)), budget=Budget(usd=1.0))
    assert mission.open.keys() == {"m/t/0/1", "m/t/1/1"}
    mission.reply("t", "yes", 0, cost_usd=0.3)
    assert mission.open.keys() == {"m/t/1/1"}, "0.3 + 0.5 + 0.5 is too much"
    mission.reply("t", "yes", 1, cost_usd=0.2)
    assert mission.open.keys() == {"m/t/2/1"}
    mission.reply("t", "yes", 2, cost_usd=0.5)
    assert (mission.ended.state, mission.ended.cost_usd) == (MissionState.ANSWERED, 1.0)


def test_a_decision_that_calls_attempts_off_pays_for_what_waits_once_they_have_settled() -> None:
    wide = node("wide", replicas=3, spend=Budget(calls=2))
    mission = Mission(wide, node("next", "wide", spend=Budget(calls=6)), budget=Budget(calls=6))
    mission.reply("wide", 1, 0)
    mission.reply("wide", 1, 1)
    late = mission.cancelled["m/wide/2/1"]
    assert mission.open == {}, "the one that was called off may have spent something"
    mission.report(late, failure=FailureKind.CANCELLED)
    assert mission.open.keys() == {"m/next/0/1"}
    mission.reply("next", 2)
    assert mission.ended.value == 2


def test_a_late_reply_is_paid_for_and_does_not_count() -> None:
    one: dict[str, Any] = {"max_attempts": 1}
    mission = Mission(node("a", replicas=3, **one), node("b", "a", **one), budget=Budget(tokens=90))
    mission.reply("a", 1, 0, tokens=10)
    mission.reply("a", 1, 1, tokens=10)
    late = mission.cancelled["m/a/2/1"]
    mission.report(late, agent="a2", reply=encoded(2), spent=Spend(tokens=7))
    told = mission.events[-1]
    assert (told.kind, told.task_id) == (EventKind.ATTEMPT_FAILED, "a")
    assert told.data["late"] is True and told.data["spent"] == {"usd": 0.0, "tokens": 7, "calls": 0}
    assert mission.brain.spent.tokens == 27
    assert mission.report(late, agent="a2", reply=encoded(2), spent=Spend(tokens=7)) == [], "once"


def test_what_can_never_be_paid_fails_and_says_what_to_do() -> None:
    mission = Mission(node("t", replicas=2, spend=Budget(usd=2.0)), budget=Budget(usd=1.0))
    result = mission.ended
    assert result.state is MissionState.UNDECIDED and result.attempts == 0
    assert {vote.failure for vote in result.replies} == {FailureKind.NO_BUDGET}
    assert "budget has not enough left" in result.explanation and "`spend`" in result.explanation
    assert mission.appraisals == []


def test_attempts_that_are_called_off_before_they_are_sent_are_neither_sent_nor_cancelled() -> None:
    cheap, dear = node("cheap", spend=Budget(calls=1)), node("dear", spend=Budget(calls=9))
    mission = Mission(cheap, dear, budget=Budget(calls=2))
    assert mission.ended.attempts == 0
    assert mission.told[0].steps[-1] == Finish(mission.ended)
    assert not any(isinstance(step, Dispatch | Cancel) for step in mission.told[0].steps)


def test_unanimity_that_money_makes_impossible_is_no_quorum_and_says_why() -> None:
    first, both = node("a", spend=Budget(calls=1)), node("t", "a", replicas=2, consensus="unanimous")
    mission = Mission(first, both, budget=Budget(calls=2))
    mission.report(mission.attempt("a"), agent="x", reply=encoded(1), spent=Spend(calls=1))
    assert mission.open.keys() == {"m/t/0/1"}, "the second waits for what the first may give back"
    mission.report(mission.attempt("t", 0), agent="y", reply=encoded(1), spent=Spend(calls=1))
    assert [vote.failure for vote in mission.ended.replies] == [None, FailureKind.NO_BUDGET]
    assert mission.ended.state is MissionState.UNDECIDED


def test_a_retry_gets_its_share_of_what_is_left() -> None:
    mission = Mission(node("t", max_attempts=2), budget=Budget(usd=1.0))
    mission.fail("t", FailureKind.RAISED, spent=Spend(usd=0.4))
    assert mission.open["m/t/0/2"].spend == Budget(usd=0.6)
    mission.fail("t", FailureKind.LOST, detail="its host died")
    vote = mission.ended.replies[0]
    assert vote.failure is FailureKind.LOST and vote.detail.startswith("its host died; the mission's budget")


def test_a_lost_host_costs_one_share_and_leaves_money_for_the_next_try() -> None:
    mission = Mission(node("t", replicas=2), node("next", "t"), budget=Budget(tokens=90))
    shares = []
    for _ in range(3):
        shares.append(mission.open[max(mission.open)].spend.tokens)
        mission.fail("t", FailureKind.LOST, 1)
    assert shares == [10, 10, 10], "nine tries may be made"
    assert mission.open["m/t/1/4"].spend.tokens == 8, "one more than was foreseen, out of the others' shares"
    mission.reply("t", "yes", 1)
    mission.reply("t", "yes", 0)
    mission.reply("next", "done")
    assert mission.ended.value == "done"


def test_what_replicas_that_ended_did_not_need_for_more_tries_goes_to_the_others() -> None:
    mission = Mission(node("t", replicas=3), node("next", "t"), budget=Budget(tokens=120))
    assert mission.open["m/t/0/1"].spend.tokens == 10
    mission.reply("t", "yes", 0)
    mission.fail("t", FailureKind.RAISED, 1)
    assert mission.open["m/t/1/2"].spend.tokens == 15, "110 for seven tries: two are its own, two of replica 2"
    mission.reply("t", "yes", 1)
    mission.report(mission.cancelled["m/t/2/1"], failure=FailureKind.CANCELLED)
    assert mission.open["m/next/0/1"].spend.tokens == 36, "110 for three tries, before replica 2 gave its 10 back"


def test_a_full_mailbox_costs_nothing_and_takes_no_try_out_of_the_shares() -> None:
    mission = Mission(node("t"), budget=Budget(tokens=90))
    for _ in range(20):
        assert mission.open[max(mission.open)].spend.tokens == 30
        mission.fail("t", FailureKind.OVERLOADED, agent="")
    assert mission.brain.spent == Spend()


def test_a_fans_tasks_share_what_is_left_once_it_is_known_how_many_they_are() -> None:
    two: dict[str, Any] = {"max_attempts": 2}
    nodes = node("plan", **two), node("fan", "plan", each="plan", replicas=2, **two), node("sum", "fan", **two)
    mission = Mission(*nodes, budget=Budget(tokens=200))
    assert mission.open["m/plan/0/1"].spend.tokens == 25
    mission.reply("plan", ["x", "y", "z"], tokens=30)
    assert {attempt.spend.tokens for attempt in mission.open.values()} == {12}
    assert mission.brain.reserved.tokens + mission.brain.spent.tokens <= (200 - 25) / 2 + 25


def test_another_swarm_does_not_spend_again_what_may_be_spent_already() -> None:
    mission = Mission(node("t", replicas=2, spend=Budget(usd=0.4)), budget=Budget(usd=1.3))
    old = dict(mission.open)
    mission.open.clear()
    mission.tell(Resumed("other"), now=5.0)
    assert mission.brain.spent.usd == 0.8
    assert mission.open.keys() == {"m/t/0/2"}
    for attempt in old.values():
        assert mission.report(attempt, agent="a", reply=encoded(1)) == [], "its money was written off"
    assert mission.brain.spent.usd == 0.8


@pytest.mark.parametrize("seed", range(60))
def test_whole_missions_never_overspend_and_never_stall(seed: int) -> None:
    """`Spend`s that are reported are often above what was granted."""
    chance = Random(seed)
    limit = a_budget(chance)
    mission = a_mission(chance, limit)
    for _ in at_random(mission, chance):
        holds(mission.brain, limit)
        if held := mission.brain.held:
            first_s = min(each.until_s for each in held) - mission.wall_ahead_s
            assert mission.brain.wake_at <= first_s + 1e-6, "nobody is waited for longer"
        elif mission.result is None:
            assert mission.brain.wake_at <= mission.due_s + 1e-6, "it ends at its deadline at the latest"
            idle = not mission.open and not mission.cancelled
            assert not idle or mission.brain.wake_at < mission.due_s, "what nothing can happen to does not wait"
    assert mission.ended.explanation
    holds(mission.brain, limit)
