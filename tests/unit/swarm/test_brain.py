"""The mission state machine with plain calls: no Ray, no clock, no chance."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest

from chimera.core.events import Event, EventKind
from chimera.core.types import Budget, FailureKind, MissionState, Outcome, Spend, TaskResult
from chimera.swarm.agenda import Agenda
from chimera.swarm.attempt import Appraisal, Report
from chimera.swarm.brain import MissionBrain
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph
from chimera.swarm.instructions import Cancelled, Record, Reported, Started, Tick
from chimera.swarm.running import CONVICTED_AFTER, MAX_LOST, RETRY_BASE_S, RETRY_CAP_S, SUSPECT_AFTER
from tests.unit.swarm.driver import Mission, encoded, node


def test_a_single_task_is_answered() -> None:
    mission = Mission(node("t"))
    mission.reply("t", 42, now=1.5)
    result = mission.ended
    assert (result.state, result.value, result.elapsed_s, result.attempts) == (MissionState.ANSWERED, 42, 1.5, 1)


def test_the_vote_ends_as_soon_as_it_cannot_change_and_the_rest_is_cancelled() -> None:
    mission = Mission(node("t", replicas=5))
    for replica in (0, 1, 2):
        mission.reply("t", "yes", replica)
    assert mission.ended.value == "yes"
    assert mission.open == {}


def test_without_early_stop_every_reply_is_waited_for() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False))
    mission.reply("t", "yes", 0)
    mission.reply("t", "yes", 1)
    assert mission.result is None
    mission.reply("t", "no", 2)
    assert [vote.reply.value for vote in mission.ended.replies if vote.reply] == ["yes", "yes", "no"]


def test_a_failed_attempt_is_tried_again_elsewhere_and_its_agent_barred() -> None:
    mission = Mission(node("t", max_attempts=2))
    mission.fail("t", FailureKind.RAISED)
    again = mission.open["m/t/0/2"]
    assert again.barred == {"a0"}
    mission.reply("t", 1)
    assert mission.ended.value == 1


def test_tries_have_an_end_and_the_reason_is_kept() -> None:
    mission = Mission(node("t", max_attempts=2))
    mission.fail("t", FailureKind.RAISED, detail="boom")
    mission.fail("t", FailureKind.RAISED, detail="boom again")
    result = mission.ended
    assert result.state is MissionState.UNDECIDED
    assert "boom again" in result.explanation


def test_when_no_other_agent_is_left_the_vote_tells_what_went_wrong_and_not_only_that() -> None:
    mission = Mission(node("t"))
    mission.fail("t", FailureKind.RAISED, detail="boom")
    mission.fail("t", FailureKind.NO_AGENT, agent="", detail="nobody left")
    [vote] = mission.ended.replies
    assert vote.failure is FailureKind.RAISED and vote.detail == "boom; nobody left"


def test_a_lost_attempt_does_not_use_up_a_try_and_bars_nobody() -> None:
    mission = Mission(node("t", max_attempts=1))
    mission.fail("t", FailureKind.LOST)
    assert mission.open["m/t/0/2"].barred == frozenset()
    mission.reply("t", 1)
    assert mission.ended.value == 1


def test_what_loses_host_after_host_and_never_alone_is_lost_in_the_end_and_not_called_poison() -> None:
    mission = Mission(node("t", deadline_s=600.0), deadline_s=600.0)
    for _ in range(MAX_LOST):
        assert mission.result is None
        mission.fail("t", FailureKind.LOST, detail="Cell[0] died")
    [vote] = mission.ended.replies
    assert vote.failure is FailureKind.LOST
    assert vote.detail == "Cell[0] died; 10 hosts were lost with it, which is the most"
    assert EventKind.TASK_QUARANTINED not in mission.kinds


@pytest.mark.parametrize("alone", ["", "0", "1", "01", "2", "5"])
def test_who_was_not_lost_alone_twice_and_at_last_as_a_suspect_is_innocent(alone: str) -> None:
    """In company anything may have killed its host, and one host may be killed from outside."""
    mission = Mission(node("t", max_attempts=1, deadline_s=600.0), deadline_s=600.0)
    for n in range(MAX_LOST - 1):
        mission.fail("t", FailureKind.LOST, alone=str(n) in alone)
    mission.reply("t", 1)
    assert mission.ended.value == 1 and mission.ended.attempts == MAX_LOST


def test_a_full_mailbox_is_tried_again_after_a_pause_and_costs_neither_a_try_nor_an_agent() -> None:
    mission = Mission(node("t", max_attempts=2, deadline_s=600.0), deadline_s=600.0)
    for n in range(1, 30):
        attempt = mission.attempt("t")
        assert (attempt.number, attempt.barred) == (n, frozenset())
        mission.report(attempt, failure=FailureKind.OVERLOADED, detail="5 attempts are waiting already")
        assert not mission.open and 0.0 < mission.wake_at_s - mission.now <= min(RETRY_CAP_S, RETRY_BASE_S * 2**n)
        mission.pause()
    mission.fail("t", FailureKind.LOST)
    mission.fail("t", FailureKind.RAISED)
    mission.fail("t", FailureKind.RAISED, detail="boom")
    [vote] = mission.ended.replies
    assert (vote.failure, vote.detail) == (FailureKind.RAISED, "boom"), "its two tries"


def test_a_mailbox_that_is_full_until_the_deadline_is_what_the_result_says() -> None:
    """Also after more tries than a float has powers of two."""
    mission = Mission(node("t", deadline_s=9_000.0), deadline_s=9_000.0)
    while mission.result is None:
        mission.fail("t", FailureKind.OVERLOADED, agent="", detail="5 attempts are waiting already")
    assert 9_000.0 - RETRY_CAP_S < mission.now < 9_000.0 and mission.ended.attempts > 2_000
    [vote] = mission.ended.replies
    assert vote.failure is FailureKind.OVERLOADED
    told = "overloaded: 5 attempts are waiting already; the deadline leaves no time for another try"
    assert told in mission.ended.explanation


def test_bad_input_ends_the_mission_at_once_with_its_kind() -> None:
    mission = Mission(node("plan"), node("more", "plan"))
    mission.fail("plan", FailureKind.RAISED, detail="/nowhere is no folder", input_error="DocumentsError")
    result = mission.ended
    assert result.state is MissionState.FAILED
    assert result.error == {"kind": "DocumentsError", "message": "/nowhere is no folder", "reason": ""}


def test_one_voter_of_three_that_calls_the_input_bad_is_outvoted() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False))
    mission.fail("t", FailureKind.RAISED, 0, detail="bad", input_error="InputError")
    assert mission.open.keys() == {"m/t/1/1", "m/t/2/1"}, "it is not asked again"
    mission.reply("t", 1, 1)
    mission.reply("t", 1, 2)
    assert mission.ended.state is MissionState.ANSWERED


def test_when_nobody_replies_and_one_calls_the_input_bad_it_is() -> None:
    mission = Mission(node("t", replicas=3, max_attempts=1))
    mission.fail("t", FailureKind.RAISED, 0, detail="bad", input_error="InputError")
    mission.fail("t", FailureKind.RAISED, 1)
    assert mission.ended.error == {"kind": "InputError", "message": "bad", "reason": ""}


def test_a_reply_that_cannot_be_compared_is_a_failed_attempt() -> None:
    mission = Mission(node("t", equality={"kind": "numeric", "tolerance": 0.1}, max_attempts=2))
    mission.reply("t", "a poem")
    mission.reply("t", 3.0)
    assert mission.ended.value == 3.0


def test_a_late_reply_changes_nothing() -> None:
    mission = Mission(node("t", replicas=3))
    late = mission.open["m/t/2/1"]
    mission.reply("t", "yes", 0)
    mission.reply("t", "yes", 1)
    result = mission.ended
    assert mission.report(late, agent="a2", reply=encoded("no")) == []
    assert mission.result is result


def test_a_reply_that_comes_twice_is_counted_once() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False))
    attempt = mission.attempt("t", 0)
    mission.report(attempt, agent="a0", reply=encoded("yes"))
    assert mission.report(attempt, agent="a0", reply=encoded("yes")) == []
    assert mission.kinds.count(EventKind.REPLY_ACCEPTED) == 1


def test_the_deadline_closes_the_vote_over_what_is_in() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False, deadline_s=60.0), deadline_s=10.0)
    mission.reply("t", "yes", 0)
    mission.reply("t", "yes", 1)
    assert mission.wake_at_s == 10.0
    mission.tell(Tick(), now=10.0)
    result = mission.ended
    assert (result.state, result.value) == (MissionState.EXPIRED, "yes")
    assert "deadline of 10 s" in result.explanation
    assert mission.open == {}


def test_a_tick_before_its_time_changes_nothing() -> None:
    mission = Mission(node("t"), deadline_s=10.0)
    mission.tell(Tick(), now=9.9)
    assert mission.result is None


def test_a_task_has_a_deadline_of_its_own_and_the_mission_goes_on_without_it() -> None:
    mission = Mission(
        node("slow", deadline_s=5.0), node("sum", "slow", needs="settled", deadline_s=10.0), deadline_s=10.0
    )
    assert mission.wake_at_s == 5.0
    mission.tell(Tick(), now=5.0)
    upstream = mission.work("sum").upstream
    mission.reply("sum", "without it", now=6.0)
    result = mission.ended
    assert (result.state, result.value) == (MissionState.EXPIRED, "without it")
    assert result.explanation.startswith("time was up before all had replied to slow")
    [slow] = upstream["slow"].votes
    assert slow.failure is FailureKind.TIMEOUT and slow.detail == "not heard: the task's time of 5 s was up"


def test_attempts_never_outlive_the_deadline() -> None:
    mission = Mission(node("t", deadline_s=8.0, max_attempts=3), deadline_s=8.0)
    assert mission.open["m/t/0/1"].timeout_s == 2.0
    mission.fail("t", FailureKind.TIMEOUT, now=7.5)
    assert 7.5 < mission.now < 8.0
    assert mission.open["m/t/0/2"].timeout_s == pytest.approx(8.0 - mission.now)


def test_a_task_starts_when_all_it_waits_for_has_agreed_and_sees_it() -> None:
    mission = Mission(node("a"), node("b"), node("sum", "a", "b"))
    mission.reply("a", 1)
    assert [a.task_id for a in mission.open.values()] == ["b"]
    mission.reply("b", 2)
    upstream = mission.work("sum").upstream
    assert {name: settled.decision.value for name, settled in upstream.items()} == {"a": 1, "b": 2}


def test_what_waits_for_agreement_never_starts_without_it() -> None:
    mission = Mission(node("a", replicas=2), node("b", "a"))
    mission.reply("a", 1, 0)
    mission.reply("a", 2, 1)
    result = mission.ended
    assert result.state is MissionState.UNDECIDED and result.decision is None
    assert result.explanation.startswith("a: ")


def test_a_fan_becomes_a_task_for_each_item() -> None:
    mission = Mission(node("plan"), node("work", "plan", each="plan"), node("sum", "work"))
    mission.reply("plan", ["x", "y"])
    assert [mission.work(name).task.inputs["item"] for name in ("work[0]", "work[1]")] == ["x", "y"]
    mission.reply("work[0]", 1)
    mission.reply("work[1]", 2)
    assert list(mission.work("sum").upstream) == ["work[0]", "work[1]"]


def test_a_fans_tasks_do_not_carry_the_whole_list() -> None:
    mission = Mission(node("plan"), node("work", "plan", each="plan"), node("sum", "plan", "work"))
    mission.reply("plan", ["x", "y"])
    assert all(mission.work(name).upstream == {} for name in ("work[0]", "work[1]"))
    mission.reply("work[0]", 1)
    mission.reply("work[1]", 2)
    assert list(mission.work("sum").upstream) == ["plan", "work[0]", "work[1]"]


def test_an_empty_fan_leaves_what_follows_with_the_list_alone() -> None:
    mission = Mission(node("plan"), node("work", "plan", each="plan"), node("sum", "work"))
    mission.reply("plan", [])
    mission.reply("sum", "nothing to do")
    assert mission.ended.value == "nothing to do"


def test_supporters_are_those_whose_reply_counts_as_the_decisions() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False, equality={"kind": "text"}))
    mission.reply("t", "Paris", 0)
    mission.reply("t", " paris", 1)
    mission.reply("t", "Rome", 2)
    assert mission.ended.supporters == ("replica-0", "replica-1")


@pytest.mark.parametrize("plan", ["not a list", list(range(200))])
def test_a_fan_over_nonsense_is_an_explained_failure(plan: Any) -> None:
    mission = Mission(node("plan"), node("work", "plan", each="plan"), node("sum", "work"))
    mission.reply("plan", plan)
    result = mission.ended
    assert result.state is MissionState.FAILED and result.error is not None
    assert result.error["kind"] == "GraphError"
    assert result.error["reason"] == ("fan_out" if plan == "not a list" else "too_many")


def test_what_is_recorded_is_numbered_without_gaps_and_before_it_takes_effect() -> None:
    mission = Mission(node("a", replicas=2, early_stop=False), node("b", "a"))
    mission.reply("a", 1, 0)
    mission.reply("a", 1, 1)
    mission.reply("b", 1)
    assert [event.seq for event in mission.events] == list(range(1, len(mission.events) + 1))
    assert mission.kinds[0] is EventKind.MISSION_ADMITTED and mission.kinds[-1] is EventKind.MISSION_ENDED


def test_the_result_does_not_depend_on_the_order_of_replies() -> None:
    """All orders of five replies to one task, and a seeded sample of orders over a graph."""
    values = ["x", "x", "y", "x", "z"]
    seen = set()
    for order in itertools.permutations(range(5)):
        mission = Mission(node("t", replicas=5))
        for replica in order:
            if mission.result is None:
                mission.reply("t", values[replica], replica)
        result = mission.ended
        seen.add((result.value, result.state))
    assert seen == {("x", MissionState.ANSWERED)}


def test_a_whole_result_is_the_same_in_any_order_when_every_reply_is_waited_for() -> None:
    results = set()
    for seed in range(50):
        mission = Mission(
            node("plan"),
            node("work", "plan", each="plan", replicas=3, early_stop=False, consensus="weighted"),
            node("sum", "work", needs="settled"),
        )
        mission.reply("plan", [0, 1])
        todo = [(f"work[{item}]", replica) for item in (0, 1) for replica in range(3)]
        random.Random(seed).shuffle(todo)
        for name, replica in todo:
            mission.reply(name, replica % 2, replica, confidence=0.1 + 0.2 * replica)
        upstream = mission.work("sum").upstream
        results.add(str([(name, settled.decision, settled.votes) for name, settled in upstream.items()]))
    assert len(results) == 1


def test_no_vote_at_all_is_no_quorum_and_said_so() -> None:
    mission = Mission(node("t", replicas=2, max_attempts=1, early_stop=False))
    mission.fail("t", FailureKind.NO_AGENT, 0, detail="no agent has the role")
    mission.fail("t", FailureKind.NO_AGENT, 1, detail="no agent has the role")
    result = mission.ended
    assert result.decision is not None and result.decision.outcome is Outcome.NO_QUORUM
    assert "no agent has the role" in result.explanation


def test_costs_add_up_over_attempts() -> None:
    mission = Mission(node("t", max_attempts=2))
    mission.fail("t", FailureKind.INVALID, spent=Spend(usd=0.25, calls=2), elapsed_s=1.5)
    mission.report(mission.attempt("t"), agent="b", reply=encoded(1), spent=Spend(usd=0.5, tokens=7), elapsed_s=1.0)
    assert mission.ended.cost_usd == 0.75
    assert mission.ended.spent == Spend(usd=0.75, tokens=7, calls=2, seconds=2.5)


@pytest.mark.parametrize("consensus", ["majority", "weighted"])
def test_confidence_is_the_mean_over_the_voters_that_were_heard(consensus: Any) -> None:
    mission = Mission(node("t", replicas=4, early_stop=False, max_attempts=1, consensus=consensus))
    mission.reply("t", "yes", 0, confidence=0.9)
    mission.reply("t", "yes", 1, confidence=0.7)
    mission.reply("t", "yes", 2, confidence=0.8)
    mission.fail("t", FailureKind.RAISED, 3)
    assert mission.ended.confidence == pytest.approx((0.9 + 0.7 + 0.8) / 4)


def test_a_single_task_of_one_replica_is_five_events() -> None:
    mission = Mission(node("t"))
    mission.reply("t", 42)
    assert mission.kinds == [
        EventKind.MISSION_ADMITTED,
        EventKind.TASK_STARTED,
        EventKind.REPLY_ACCEPTED,
        EventKind.TASK_DECIDED,
        EventKind.MISSION_ENDED,
    ]


def test_what_is_made_without_a_check_would_pass_it() -> None:
    mission = Mission(node("t", replicas=4, max_attempts=1, early_stop=False, consensus="quorum"), node("u", "t"))
    mission.reply("t", [1], 0, confidence=0.5, cost_usd=0.1)
    mission.reply("t", [1.0], 1)
    mission.fail("t", FailureKind.RAISED, 2)
    mission.reply("t", [1], 3)
    mission.fail("u", FailureKind.RAISED, detail="bad", input_error="InputError")
    for event in mission.events:
        assert Event.model_validate(event.model_dump()) == event
    result = mission.ended
    assert result.error is not None and result.decision is not None
    assert TaskResult.model_validate(result.model_dump()) == result


def test_cancelling_ends_the_mission_with_what_there_was() -> None:
    mission = Mission(node("a", replicas=3, early_stop=False), node("b", "a"))
    mission.reply("a", "yes", 0)
    mission.reply("a", "yes", 1)
    mission.tell(Cancelled("the user thought better of it"), now=3.0)
    result = mission.ended
    assert (result.state, result.explanation) == (MissionState.CANCELLED, "the user thought better of it")
    assert (result.elapsed_s, result.attempts, result.value) == (3.0, 3, None)
    assert mission.open == {} and mission.cancelled.keys() == {"m/a/2/1"}
    cancelled = mission.events[mission.kinds.index(EventKind.MISSION_CANCELLED)]
    assert cancelled.data == {"why": "the user thought better of it"}
    decided = mission.events[mission.kinds.index(EventKind.TASK_DECIDED)]
    assert (decided.data["value"], decided.data["saved"]) == ("yes", 0)
    assert mission.kinds[-1] is EventKind.MISSION_ENDED


def test_cancelling_the_output_task_keeps_what_its_voters_agreed_on() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False))
    mission.reply("t", "yes", 0)
    mission.reply("t", "yes", 1)
    mission.tell(Cancelled("enough"))
    assert (mission.ended.state, mission.ended.value) == (MissionState.CANCELLED, "yes")
    assert mission.tell(Cancelled("again")) == [], "it has ended"


def test_the_envelope_says_what_routing_needs() -> None:
    spend = Budget(usd=0.5, seconds=2.0)
    mission = Mission(node("t", priority=9, skill="sql", different_policies=True, role="judge", spend=spend))
    attempt = mission.open["m/t/0/1"]
    assert (attempt.priority, attempt.skill, attempt.different, attempt.role) == (9, "sql", True, "judge")
    assert (attempt.policy, attempt.suspect, attempt.barred, attempt.number) == ("", False, frozenset(), 1)
    assert (attempt.spend, attempt.timeout_s) == (spend, 2.0)
    assert mission.brain.priority == 9
    assert attempt.idempotency_key == "m/t/0"


def test_who_has_voted_or_failed_is_barred_and_who_was_lost_twice_is_suspect() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False))
    mission.reply("t", 1, 0)
    mission.fail("t", FailureKind.RAISED, 1)
    assert mission.open["m/t/1/2"].barred == {"a0", "a1"}
    assert not mission.open["m/t/1/2"].suspect
    mission.fail("t", FailureKind.LOST, 2)
    assert not mission.open["m/t/2/2"].suspect, "hosts die, and it was one of many there"
    mission.fail("t", FailureKind.LOST, 2)
    again = mission.open["m/t/2/3"]
    assert again.suspect and again.barred == {"a0", "a1"}, "its host died: the agent has done nothing"


def pauses(mission_id: str, tries: int, deadline_s: float = 80_000.0) -> list[float]:
    """How long a task that always fails waits before each next try."""
    mission = Mission(node("t", max_attempts=tries, deadline_s=deadline_s), deadline_s=deadline_s, name=mission_id)
    found = []
    while mission.open:
        mission.report(mission.attempt("t"), failure=FailureKind.RAISED, agent="a")
        if mission.result is None:
            found.append(mission.wake_at_s - mission.now)
            mission.tell(Tick(), mission.now + found[-1] / 2)
            assert not mission.open, "not before its time"
            mission.tell(Tick(), mission.wake_at_s)
    return found


def test_retries_back_off_exponentially_with_full_jitter_the_same_in_every_run() -> None:
    found = [pauses(f"m{i}", 10) for i in range(60)]
    assert found == [pauses(f"m{i}", 10) for i in range(60)]
    for n, nth in enumerate(zip(*found, strict=True)):
        most_s = min(RETRY_CAP_S, RETRY_BASE_S * 2**n)
        assert 0.0 <= min(nth) < 0.1 * most_s and 0.9 * most_s < max(nth) <= most_s
        assert sum(nth) / len(nth) == pytest.approx(most_s / 2, rel=0.2)


@pytest.mark.parametrize("seed", range(20))
def test_what_could_only_be_tried_again_after_the_deadline_is_not(seed: int) -> None:
    mission = Mission(node("t", max_attempts=10, deadline_s=3.0), deadline_s=3.0, name=f"m{seed}")
    while mission.result is None:
        mission.fail("t", FailureKind.RAISED, detail="boom")
        assert mission.now < 3.0
    assert mission.ended.state is MissionState.UNDECIDED
    assert 1 < mission.ended.attempts < 10


def test_poison_is_quarantined_with_its_evidence() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False))
    for n in range(SUSPECT_AFTER + CONVICTED_AFTER):
        assert EventKind.TASK_QUARANTINED not in mission.kinds
        mission.fail("t", FailureKind.LOST, 1, agent=f"a{n}", detail=f"Cell[{n}] died", alone=n >= SUSPECT_AFTER)
    [event] = [event for event in mission.events if event.kind is EventKind.TASK_QUARANTINED]
    evidence = ["a0: Cell[0] died", "a1: Cell[1] died", "a2: Cell[2] died (alone)", "a3: Cell[3] died (alone)"]
    assert event.task_id == "t"
    assert event.data == {"replica": 1, "evidence": evidence}
    mission.reply("t", 1, 0)
    mission.reply("t", 1, 2)
    vote = mission.ended.replies[0]
    assert (vote.voter, vote.failure) == ("replica-1", FailureKind.POISON)
    assert vote.detail == f"quarantined: 4 hosts died with it: {'; '.join(evidence)}"
    assert mission.ended.value == 1, "the other voters decide"


def test_a_mission_whose_only_task_is_poison_says_so() -> None:
    mission = Mission(node("t"))
    for _ in range(3):
        mission.fail("t", FailureKind.LOST, detail="Cell[0] died", alone=True)
    assert mission.ended.state is MissionState.UNDECIDED
    assert "poison: quarantined: 3 hosts died with it" in mission.ended.explanation


def test_the_decision_appraises_those_who_voted() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False, skill="sql"))
    mission.reply("t", "yes", 0)
    mission.reply("t", "no", 1)
    assert mission.appraisals == []
    mission.reply("t", "yes", 2)
    assert mission.appraisals == [Appraisal("a0", "sql", 1.0), Appraisal("a1", "sql", 0.0), Appraisal("a2", "sql", 1.0)]


def test_without_agreement_nobody_is_appraised() -> None:
    mission = Mission(node("t", replicas=2))
    mission.reply("t", "yes", 0)
    mission.reply("t", "no", 1)
    assert mission.ended.state is MissionState.UNDECIDED
    assert mission.appraisals == []


@pytest.mark.parametrize("kind", FailureKind)
def test_only_an_agents_own_failure_is_held_against_it(kind: FailureKind) -> None:
    mission = Mission(node("t", max_attempts=1))
    mission.fail("t", kind, agent="a9")
    own = (FailureKind.RAISED, FailureKind.TIMEOUT, FailureKind.INVALID)
    assert mission.appraisals == ([Appraisal("a9", "", 0.0)] if kind in own else [])


def test_bad_input_is_not_held_against_the_agent_that_calls_it_so() -> None:
    mission = Mission(node("t"))
    mission.fail("t", FailureKind.RAISED, input_error="InputError")
    assert mission.appraisals == []


def test_a_judge_appraises_only_agents_that_voted_upstream() -> None:
    mission = Mission(
        node("other"), node("work", replicas=2, early_stop=False), node("judge", "work", "other", replicas=3)
    )
    mission.report(mission.attempt("other"), agent="elsewhere", reply=encoded(0))
    mission.reply("work", 1, 0)
    mission.reply("work", 1, 1)
    mission.appraisals.clear()
    for replica in (0, 1):
        reply = encoded("ok", appraisals={"a0": 0.25, "a1": 0.75, "elsewhere": 0.5, "stranger": 0.0, "judge-0": 1.0})
        mission.report(mission.attempt("judge", replica), agent=f"judge-{replica}", reply=reply)
    judged = [a for a in mission.appraisals if not a.agent.startswith("judge")]
    assert judged == 2 * [Appraisal("a0", "", 0.25), Appraisal("a1", "", 0.75), Appraisal("elsewhere", "", 0.5)]
    assert [a for a in mission.appraisals if a.agent.startswith("judge")] == [
        Appraisal("judge-0", "", 1.0),
        Appraisal("judge-1", "", 1.0),
    ]


def test_a_judge_that_is_outvoted_appraises_nobody() -> None:
    mission = Mission(node("work"), node("judge", "work", replicas=3, early_stop=False))
    mission.reply("work", 1)
    mission.appraisals.clear()
    mission.reply("judge", "bad", 0, appraisals={"a0": 0.0})
    mission.reply("judge", "good", 1)
    mission.reply("judge", "good", 2)
    assert Appraisal("a0", "", 0.0) in mission.appraisals, "outvoted itself"
    assert len(mission.appraisals) == 3


def test_votes_that_were_not_needed_are_counted_as_saved_and_those_not_heard_are_not() -> None:
    early = Mission(node("t", replicas=5))
    for replica in range(3):
        early.reply("t", 1, replica)
    late = Mission(node("t", replicas=5, early_stop=False), deadline_s=10.0)
    late.tell(Tick(), now=10.0)
    saved = [e.data["saved"] for m in (early, late) for e in m.events if e.kind is EventKind.TASK_DECIDED]
    assert saved == [2, 0]


def test_a_replica_that_waits_for_its_next_try_counts_as_not_heard() -> None:
    mission = Mission(node("t", deadline_s=8.0, replicas=2, early_stop=False), deadline_s=8.0)
    mission.reply("t", 1, 0)
    mission.report(mission.attempt("t", 1), failure=FailureKind.LOST, agent="x")
    mission.tell(Tick(), now=8.0)
    assert [vote.failure for vote in mission.ended.replies] == [FailureKind.TIMEOUT, None]
    assert mission.ended.state is MissionState.EXPIRED
    assert mission.cancelled == {}


@pytest.mark.parametrize("reply", [b"{", b'{"confidence": 2}', b"", None])
def test_bytes_that_are_no_reply_are_a_failed_attempt(reply: bytes | None) -> None:
    mission = Mission(node("t", max_attempts=1))
    mission.report(mission.attempt("t"), agent="a", reply=reply)
    [vote] = mission.ended.replies
    assert vote.failure is FailureKind.INVALID


def test_a_long_chain_of_tasks_that_fail_at_once_is_no_deep_recursion() -> None:
    chain = [node("t0"), *(node(f"t{i}", f"t{i - 1}", needs="settled") for i in range(1, 600))]
    mission = Mission(*chain, max_nodes=600, budget=Budget(seconds=0.0))
    assert mission.ended.state is MissionState.UNDECIDED


def test_records_are_dated_by_the_wall_clock_of_the_start_and_the_time_since() -> None:
    graph = TaskGraph(nodes=(node("t", replicas=2, early_stop=False),), output="t")
    brain = MissionBrain(mission_id="m", graph=graph, deadline_s=9.0, decomposer=TaskDecomposer())
    steps = brain.handle(Started(), 100.0, 1_700_000_000.0)
    assert brain.wake_at == 109.0
    report = Report("m/t/0/1", "m", agent="a", reply=encoded(1))
    steps += brain.handle(Reported(report), 101.5, 1_600_000_000.0)  # the wall clock was set back
    steps += brain.handle(Tick(), 109.0, 1_800_000_000.0)
    dates = [step.event.at_s - 1_700_000_000.0 for step in steps if isinstance(step, Record)]
    assert dates == [0.0, 0.0, 1.5, 9.0, 9.0]
    assert brain.ended


@pytest.mark.parametrize("seed", range(100))
def test_a_tick_just_when_it_was_asked_for_is_never_too_early(seed: int) -> None:
    """However the two clocks' numbers are rounded."""
    chance = random.Random(seed)
    graph = TaskGraph(nodes=(node("t"),), output="t")
    brain = MissionBrain(mission_id="m", graph=graph, deadline_s=chance.random(), decomposer=TaskDecomposer())
    brain.handle(Started(), 1e5 * chance.random(), 1.7e9 + chance.random())
    brain.handle(Tick(), brain.wake_at)
    assert brain.ended


def test_an_agenda_forgets_the_retries_of_tasks_that_are_decided() -> None:
    agenda = Agenda()
    for name in ("a", "b"):
        agenda.begin(name, 10.0)
        agenda.retry(1.0, name, 0)
        agenda.retry(2.0, name, 1)
    agenda.end("b")
    assert list(agenda.retries(1.5)) == [("a", 0)]
    agenda.end("a")
    assert list(agenda.retries(5.0)) == []
    assert agenda.next_s == math.inf


def test_one_and_true_and_its_name_are_three_values() -> None:
    mission = Mission(node("t", replicas=4))
    for replica, value in enumerate((1, True, "1", 1.0)):
        mission.reply("t", value, replica)
    assert mission.ended.decision is not None
    assert (mission.ended.decision.outcome, mission.ended.decision.support) == (Outcome.NO_QUORUM, 0.5)


def test_a_frugal_task_asks_no_more_than_a_decision_may_take() -> None:
    mission = Mission(node("t", replicas=16, frugal=True))
    assert sorted(attempt.replica for attempt in mission.open.values()) == list(range(9))
    for replica in range(7):
        mission.reply("t", "yes", replica)
    mission.reply("t", "no", 7)
    assert sorted(attempt.replica for attempt in mission.open.values()) == [8, 9]
    mission.reply("t", "yes", 8)
    mission.reply("t", "yes", 9)
    result = mission.ended
    assert (result.value, result.attempts, mission.open) == ("yes", 10, {})


def test_a_frugal_task_asks_another_where_one_fails_for_good() -> None:
    mission = Mission(node("t", replicas=3, frugal=True, max_attempts=1))
    assert len(mission.open) == 2
    mission.fail("t", FailureKind.RAISED, 0)
    assert sorted(attempt.replica for attempt in mission.open.values()) == [1, 2]
    mission.reply("t", 1, 1)
    mission.reply("t", 1, 2)
    assert mission.ended.value == 1


def test_those_whom_a_frugal_task_never_asked_are_not_to_blame() -> None:
    mission = Mission(node("t", replicas=16, frugal=True, deadline_s=5.0))
    mission.reply("t", "yes", 0)
    mission.tell(Tick(), 5.0)
    assert len(mission.ended.replies) == 9


def test_a_failure_too_near_the_deadline_for_another_try_says_so() -> None:
    mission = Mission(node("t"))
    mission.fail("t", FailureKind.RAISED, now=59.999999)
    assert "the deadline leaves no time for another try" in mission.ended.explanation
