"""The mission state machine with plain calls: no Ray, no clock, no chance."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from chimera.core.events import EventKind
from chimera.core.types import FailureKind, MissionState, Outcome, Reply, Task, TaskResult
from chimera.swarm.attempt import Attempt, Report
from chimera.swarm.brain import MAX_LOST, MissionBrain
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.instructions import (
    Cancel,
    Dispatch,
    Finish,
    Happening,
    Instruction,
    Record,
    Reported,
    Started,
    Tick,
    WakeAt,
)


class Mission:
    """A brain and what it has asked for so far."""

    def __init__(
        self, *nodes: TaskNode, output: str | None = None, deadline_s: float = 60.0, max_nodes: int = 100
    ) -> None:
        graph = TaskGraph(nodes=nodes, output=output or nodes[-1].id)
        self.brain = MissionBrain(
            mission_id="m", graph=graph, deadline_s=deadline_s, decomposer=TaskDecomposer(max_nodes=max_nodes)
        )
        self.open: dict[str, Attempt] = {}
        self.records: list[Record] = []
        self.result: TaskResult | None = None
        self.wake_at_s = 0.0
        self.tell(Started())

    def tell(self, happening: Happening, now: float = 0.0) -> list[Instruction]:
        steps = self.brain.handle(happening, now)
        for step in steps:
            match step:
                case Dispatch(attempts):
                    self.open |= {attempt.id: attempt for attempt in attempts}
                case Cancel(ids):
                    for attempt_id in ids:
                        self.open.pop(attempt_id, None)
                case Record():
                    self.records.append(step)
                case WakeAt(at_s):
                    self.wake_at_s = at_s
                case Finish(result):
                    assert self.result is None, "a mission ends once"
                    self.result = result
        return steps

    def reply(self, task_id: str, value: Any, replica: int = 0, now: float = 0.0, **reply: Any) -> None:
        attempt = self.attempt(task_id, replica)
        report = Report(attempt.id, "m", agent=f"a{replica}", policy="p", reply=Reply(value=value, **reply))
        self.tell(Reported(report), now)

    def fail(self, task_id: str, kind: FailureKind, replica: int = 0, now: float = 0.0, **report: Any) -> None:
        attempt = self.attempt(task_id, replica)
        report = {"agent": f"a{replica}", "detail": "why", **report}
        self.tell(Reported(Report(attempt.id, "m", failure=kind, **report)), now)

    def attempt(self, task_id: str, replica: int = 0) -> Attempt:
        [found] = [a for a in self.open.values() if (a.task_id, a.replica) == (task_id, replica)]
        del self.open[found.id]
        return found

    @property
    def kinds(self) -> list[EventKind]:
        return [record.event.kind for record in self.records]


def node(name: str, *after: str, each: str | None = None, needs: Any = "agreed", **task: Any) -> TaskNode:
    return TaskNode(id=name, task=Task(goal=name, **task), after=after, each=each, needs=needs)


def ended(mission: Mission) -> TaskResult:
    assert mission.result is not None, "the mission goes on"
    return mission.result


def test_a_single_task_is_answered() -> None:
    mission = Mission(node("t"))
    mission.reply("t", 42, now=1.5)
    result = ended(mission)
    assert (result.state, result.value, result.elapsed_s, result.attempts) == (MissionState.ANSWERED, 42, 1.5, 1)


def test_the_vote_ends_as_soon_as_it_cannot_change_and_the_rest_is_cancelled() -> None:
    mission = Mission(node("t", replicas=5))
    for replica in (0, 1, 2):
        mission.reply("t", "yes", replica)
    assert ended(mission).value == "yes"
    assert mission.open == {}


def test_without_early_stop_every_reply_is_waited_for() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False))
    mission.reply("t", "yes", 0)
    mission.reply("t", "yes", 1)
    assert mission.result is None
    mission.reply("t", "no", 2)
    assert [vote.reply.value for vote in ended(mission).replies if vote.reply] == ["yes", "yes", "no"]


def test_a_failed_attempt_is_tried_again_elsewhere_and_its_agent_barred() -> None:
    mission = Mission(node("t", max_attempts=2))
    mission.fail("t", FailureKind.RAISED)
    again = mission.open["m/t/0/2"]
    assert again.barred == {"a0"}
    mission.reply("t", 1)
    assert ended(mission).value == 1


def test_tries_have_an_end_and_the_reason_is_kept() -> None:
    mission = Mission(node("t", max_attempts=2))
    mission.fail("t", FailureKind.RAISED, detail="boom")
    mission.fail("t", FailureKind.RAISED, detail="boom again")
    result = ended(mission)
    assert result.state is MissionState.UNDECIDED
    assert "boom again" in result.explanation


def test_when_no_other_agent_is_left_the_vote_tells_what_went_wrong_and_not_only_that() -> None:
    mission = Mission(node("t"))
    mission.fail("t", FailureKind.RAISED, detail="boom")
    mission.fail("t", FailureKind.NO_AGENT, agent="", detail="nobody left")
    [vote] = ended(mission).replies
    assert vote.failure is FailureKind.RAISED and vote.detail == "boom; nobody left"


def test_a_lost_attempt_does_not_use_up_a_try_and_bars_nobody() -> None:
    mission = Mission(node("t", max_attempts=1))
    mission.fail("t", FailureKind.LOST)
    assert mission.open["m/t/0/2"].barred == frozenset()
    mission.reply("t", 1)
    assert ended(mission).value == 1


def test_a_task_that_kills_its_hosts_does_not_go_round_for_ever() -> None:
    mission = Mission(node("t"))
    for _ in range(MAX_LOST):
        assert mission.result is None
        mission.fail("t", FailureKind.LOST, detail="Cell[0] died")
    assert "Cell[0] died" in ended(mission).explanation


def test_bad_input_ends_the_mission_at_once_with_its_kind() -> None:
    mission = Mission(node("plan"), node("more", "plan"))
    mission.fail("plan", FailureKind.RAISED, detail="/nowhere is no folder", input_error="DocumentsError")
    result = ended(mission)
    assert result.state is MissionState.FAILED
    assert result.error == {"kind": "DocumentsError", "message": "/nowhere is no folder", "reason": ""}


def test_one_voter_of_three_that_calls_the_input_bad_is_outvoted() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False))
    mission.fail("t", FailureKind.RAISED, 0, detail="bad", input_error="InputError")
    assert mission.open.keys() == {"m/t/1/1", "m/t/2/1"}, "it is not asked again"
    mission.reply("t", 1, 1)
    mission.reply("t", 1, 2)
    assert ended(mission).state is MissionState.ANSWERED


def test_when_nobody_replies_and_one_calls_the_input_bad_it_is() -> None:
    mission = Mission(node("t", replicas=3, max_attempts=1))
    mission.fail("t", FailureKind.RAISED, 0, detail="bad", input_error="InputError")
    mission.fail("t", FailureKind.RAISED, 1)
    assert ended(mission).error == {"kind": "InputError", "message": "bad", "reason": ""}


def test_a_reply_that_cannot_be_compared_is_a_failed_attempt() -> None:
    mission = Mission(node("t", equality={"kind": "numeric", "tolerance": 0.1}, max_attempts=2))
    mission.reply("t", "a poem")
    mission.reply("t", 3.0)
    assert ended(mission).value == 3.0


def test_a_late_reply_changes_nothing() -> None:
    mission = Mission(node("t", replicas=3))
    late = mission.open["m/t/2/1"]
    mission.reply("t", "yes", 0)
    mission.reply("t", "yes", 1)
    result = ended(mission)
    assert mission.tell(Reported(Report(late.id, "m", agent="a2", reply=Reply(value="no")))) == []
    assert mission.result is result


def test_a_reply_that_comes_twice_is_counted_once() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False))
    attempt = mission.open["m/t/0/1"]
    report = Reported(Report(attempt.id, "m", agent="a0", reply=Reply(value="yes")))
    mission.tell(report)
    mission.tell(report)
    assert mission.kinds.count(EventKind.REPLY_ACCEPTED) == 1


def test_the_deadline_closes_the_vote_over_what_is_in() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False, deadline_s=60.0), deadline_s=10.0)
    mission.reply("t", "yes", 0)
    mission.reply("t", "yes", 1)
    assert mission.wake_at_s == 10.0
    mission.tell(Tick(), now=10.0)
    result = ended(mission)
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
    upstream = mission.open["m/sum/0/1"].upstream
    mission.reply("sum", "without it", now=6.0)
    result = ended(mission)
    assert (result.state, result.value) == (MissionState.EXPIRED, "without it")
    assert result.explanation.startswith("time was up before all had replied to slow")
    [slow] = upstream["slow"].votes
    assert slow.failure is FailureKind.TIMEOUT and slow.detail == "not heard: the task's time of 5 s was up"


def test_attempts_never_outlive_the_deadline() -> None:
    mission = Mission(node("t", deadline_s=8.0, max_attempts=3), deadline_s=8.0)
    assert mission.open["m/t/0/1"].timeout_s == 2.0
    mission.fail("t", FailureKind.TIMEOUT, now=7.5)
    assert mission.open["m/t/0/2"].timeout_s == 0.5


def test_a_task_starts_when_all_it_waits_for_has_agreed_and_sees_it() -> None:
    mission = Mission(node("a"), node("b"), node("sum", "a", "b"))
    mission.reply("a", 1)
    assert [a.task_id for a in mission.open.values()] == ["b"]
    mission.reply("b", 2)
    upstream = mission.open["m/sum/0/1"].upstream
    assert {name: settled.decision.value for name, settled in upstream.items()} == {"a": 1, "b": 2}


def test_what_waits_for_agreement_never_starts_without_it() -> None:
    mission = Mission(node("a", replicas=2), node("b", "a"))
    mission.reply("a", 1, 0)
    mission.reply("a", 2, 1)
    result = ended(mission)
    assert result.state is MissionState.UNDECIDED and result.decision is None
    assert result.explanation.startswith("a: ")


def test_a_fan_becomes_a_task_for_each_item() -> None:
    mission = Mission(node("plan"), node("work", "plan", each="plan"), node("sum", "work"))
    mission.reply("plan", ["x", "y"])
    assert {a.task_id: a.task.inputs["item"] for a in mission.open.values()} == {"work[0]": "x", "work[1]": "y"}
    mission.reply("work[0]", 1)
    mission.reply("work[1]", 2)
    assert list(mission.open["m/sum/0/1"].upstream) == ["work[0]", "work[1]"]


def test_a_fans_tasks_do_not_carry_the_whole_list() -> None:
    mission = Mission(node("plan"), node("work", "plan", each="plan"), node("sum", "plan", "work"))
    mission.reply("plan", ["x", "y"])
    assert all(attempt.upstream == {} for attempt in mission.open.values())
    mission.reply("work[0]", 1)
    mission.reply("work[1]", 2)
    assert list(mission.open["m/sum/0/1"].upstream) == ["plan", "work[0]", "work[1]"]


def test_an_empty_fan_leaves_what_follows_with_the_list_alone() -> None:
    mission = Mission(node("plan"), node("work", "plan", each="plan"), node("sum", "work"))
    mission.reply("plan", [])
    mission.reply("sum", "nothing to do")
    assert ended(mission).value == "nothing to do"


def test_supporters_are_those_whose_reply_counts_as_the_decisions() -> None:
    mission = Mission(node("t", replicas=3, early_stop=False, equality={"kind": "text"}))
    mission.reply("t", "Paris", 0)
    mission.reply("t", " paris", 1)
    mission.reply("t", "Rome", 2)
    assert ended(mission).supporters == ("replica-0", "replica-1")


@pytest.mark.parametrize("plan", ["not a list", list(range(200))])
def test_a_fan_over_nonsense_is_an_explained_failure(plan: Any) -> None:
    mission = Mission(node("plan"), node("work", "plan", each="plan"), node("sum", "work"))
    mission.reply("plan", plan)
    result = ended(mission)
    assert result.state is MissionState.FAILED and result.error is not None
    assert result.error["kind"] == "GraphError"
    assert result.error["reason"] == ("fan_out" if plan == "not a list" else "too_many")


def test_what_is_recorded_is_numbered_without_gaps_and_before_it_takes_effect() -> None:
    mission = Mission(node("a", replicas=2, early_stop=False), node("b", "a"))
    mission.reply("a", 1, 0)
    mission.reply("a", 1, 1)
    mission.reply("b", 1)
    assert [record.event.seq for record in mission.records] == list(range(1, len(mission.records) + 1))
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
        result = ended(mission)
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
        upstream = mission.open["m/sum/0/1"].upstream
        results.add(str([(name, settled.decision, settled.votes) for name, settled in upstream.items()]))
    assert len(results) == 1


def test_no_vote_at_all_is_no_quorum_and_said_so() -> None:
    mission = Mission(node("t", replicas=2, max_attempts=1, early_stop=False))
    mission.fail("t", FailureKind.NO_AGENT, 0, detail="no agent has the role")
    mission.fail("t", FailureKind.NO_AGENT, 1, detail="no agent has the role")
    result = ended(mission)
    assert result.decision is not None and result.decision.outcome is Outcome.NO_QUORUM
    assert "no agent has the role" in result.explanation


def test_costs_add_up_over_attempts() -> None:
    mission = Mission(node("t", max_attempts=2))
    attempt = mission.attempt("t")
    mission.tell(Reported(Report(attempt.id, "m", agent="a", failure=FailureKind.INVALID, cost_usd=0.25)))
    attempt = mission.attempt("t")
    mission.tell(Reported(Report(attempt.id, "m", agent="b", reply=Reply(value=1), cost_usd=0.5)))
    assert ended(mission).cost_usd == 0.75


@pytest.mark.parametrize("consensus", ["majority", "weighted"])
def test_confidence_is_the_mean_over_the_voters_that_were_heard(consensus: Any) -> None:
    mission = Mission(node("t", replicas=4, early_stop=False, max_attempts=1, consensus=consensus))
    mission.reply("t", "yes", 0, confidence=0.9)
    mission.reply("t", "yes", 1, confidence=0.7)
    mission.reply("t", "yes", 2, confidence=0.8)
    mission.fail("t", FailureKind.RAISED, 3)
    assert ended(mission).confidence == pytest.approx((0.9 + 0.7 + 0.8) / 4)
