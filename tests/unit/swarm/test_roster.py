from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.types import FailureKind
from chimera.swarm.attempt import Appraisal, Attempt
from chimera.swarm.roster import MAX_TASKS_REMEMBERED, Roster


def attempt(
    task: str = "t", replica: int = 0, number: int = 1, role: str = "worker", barred: tuple[str, ...] = (), **more: Any
) -> Attempt:
    return Attempt(
        f"m/{task}/{replica}/{number}", "m", task, replica, number, role, 5.0, b"", barred=frozenset(barred), **more
    )


def roster(*policies: str, cells: int = 1, up: bool = True, seed: int = 0, **options: Any) -> Roster:
    made = Roster(rng=random.Random(seed), **options)
    for at, policy in enumerate(policies):
        made.add(f"a{at}", role="worker", policy=policy, cell=f"c{at % cells}")
    if up:
        for cell in range(cells):
            made.cell_up(f"c{cell}")
    return made


def test_an_attempt_goes_to_a_free_agent_and_the_next_one_waits() -> None:
    shard = roster("p")
    first = shard.submit([attempt("t1")])
    second = shard.submit([attempt("t2")])
    assert [(a.cell, a.agent_id) for a in first.assignments] == [("c0", "a0")]
    assert second.assignments == [] and shard.waiting == 1
    freed = shard.done("m/t1/0/1")
    assert [a.attempt.task_id for a in freed.assignments] == ["t2"]
    assert shard.waiting == 0


def test_an_attempt_that_is_known_is_ignored() -> None:
    shard = roster("p", "p", "p")
    shard.submit([attempt("t1", policy="p")])
    for agent in ("a0", "a1", "a2"):
        shard.submit([attempt(f"busy-{agent}")])
    step = shard.submit([attempt("t1", policy="p"), attempt("busy-a2"), attempt("last")])
    assert not step.assignments and not step.reports and (shard.busy, shard.waiting) == (3, 2)
    following = [shard.done(f"m/{ended}/0/1").assignments for ended in ("t1", "busy-a2", "busy-a0", "last", "unknown")]
    assert [[a.attempt.task_id for a in assigned] for assigned in following] == [["busy-a2"], ["last"], [], [], []]


def test_no_agent_votes_twice_on_a_task() -> None:
    shard = roster("p", "p")
    step = shard.submit([attempt(replica=0), attempt(replica=1), attempt(replica=2)])
    assert sorted(a.agent_id for a in step.assignments) == ["a0", "a1"]
    assert [r.failure for r in step.reports] == [FailureKind.NO_AGENT]
    assert "has voted on it, failed it or is at it" in step.reports[0].detail


def test_a_barred_agent_is_passed_over() -> None:
    for seed in range(20):
        step = roster("p", "p", seed=seed).submit([attempt(barred=("a0",))])
        assert [a.agent_id for a in step.assignments] == ["a1"]


def test_the_one_agent_that_may_is_found_among_hundreds_that_may_not() -> None:
    shard = roster(*["p"] * 300)
    barred = tuple(f"a{n}" for n in range(300) if n != 123)
    assert [a.agent_id for a in shard.submit([attempt(barred=barred)]).assignments] == ["a123"]


def test_work_for_a_policy_or_a_skill_goes_to_agents_that_have_it() -> None:
    shard = Roster(rng=random.Random(0))
    shard.add("plain", role="worker", policy="bm25", cell="c")
    shard.add("poet", role="worker", policy="bm25", cell="c", skills=["rhyme", "metre"])
    shard.add("other", role="worker", policy="tfidf", cell="c", skills=["rhyme"])
    shard.cell_up("c")
    jobs = {
        "poet": attempt("t1", policy="bm25", skill="rhyme"),
        "other": attempt("t2", skill="rhyme"),
        "plain": attempt("t3", policy="bm25"),
    }
    assert {a.agent_id: a.attempt for a in shard.submit(jobs.values()).assignments} == jobs
    shard.submit([attempt("t4", skill="metre"), attempt("t5", policy="tfidf")])
    assert shard.done("m/t3/0/1").assignments == [], "neither is for plain"
    assert [a.attempt.task_id for a in shard.done("m/t1/0/1").assignments] == ["t4"]
    assert [a.attempt.task_id for a in shard.done("m/t2/0/1").assignments] == ["t5"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"role": "poet"}, "no agent has the role 'poet'"),
        ({"policy": "q"}, "no agent of role 'worker' is of the policy 'q'"),
        ({"skill": "rhyme"}, "no agent of role 'worker' is with the skill 'rhyme'"),
        ({"policy": "p", "skill": "rhyme"}, "of the policy 'p' with the skill 'rhyme'"),
    ],
)
def test_what_nobody_can_do_is_refused_with_the_reason(asked: dict[str, str], why: str) -> None:
    step = roster("p").submit([attempt(**asked)])  # type: ignore[arg-type]
    assert [r.failure for r in step.reports] == [FailureKind.NO_AGENT]
    assert why in step.reports[0].detail


def test_an_agent_id_is_used_once() -> None:
    with pytest.raises(ValueError, match="a0"):
        roster("p").add("a0", role="worker", policy="p", cell="c0")


def test_a_cell_that_dies_loses_what_it_had_and_nothing_else() -> None:
    shard = roster("p", "p", cells=2)
    step = shard.submit([attempt("t1"), attempt("t2")])
    had = {a.cell: a for a in step.assignments}["c0"]
    lost = shard.cell_down("c0", "c0 died")
    assert [(r.attempt_id, r.failure, r.agent) for r in lost.reports] == [(had.attempt.id, FailureKind.LOST, "a0")]
    assert lost.reports[0].detail == "c0 died" and lost.reports[0].policy == "p"
    assert shard.busy == 1


def test_work_waits_while_the_only_cell_is_down_and_goes_on_when_it_is_back() -> None:
    shard = roster("p")
    shard.submit([attempt(number=1)])
    shard.cell_down("c0", "died")
    waits = shard.submit([attempt(number=2)])
    assert waits.assignments == [] and waits.reports == []
    back = shard.cell_up("c0")
    assert [a.attempt.id for a in back.assignments] == ["m/t/0/2"]
    assert shard.cell_up("c0").assignments == []


def test_a_cell_that_drains_gets_no_work_and_keeps_what_it_has() -> None:
    shard = roster("p", "p", "p", "p", cells=2)
    shard.submit([attempt("t1", barred=("a1", "a2", "a3"))])
    shard.drain("c0")
    step = shard.submit([attempt(f"u{n}") for n in range(4)])
    assert {a.cell for a in step.assignments} == {"c1"} and len(step.assignments) == 2
    assert shard.done("m/t1/0/1").assignments == [] and shard.busy_in("c0") == 0
    assert [a.agent_id for a in shard.cell_up("c0").assignments] == ["a0", "a2"]


def test_an_idle_agent_moves_and_a_busy_one_does_not() -> None:
    shard = roster("p", "p", cells=2)
    shard.submit([attempt("t1", barred=("a1",))])
    shard.submit([attempt("t2", barred=("a1",))])
    assert (shard.idle_in("c0"), shard.busy_in("c0"), shard.idle_in("c1")) == ([], 1, ["a1"])
    with pytest.raises(ValueError, match="busy"):
        shard.move("a0", "c1")
    with pytest.raises(ValueError, match="unknown"):
        shard.move("a9", "c1")
    assert shard.move("a1", "c0").assignments == []
    assert (shard.agents_in("c0"), shard.agents_in("c1")) == (["a0", "a1"], [])
    assert [a.cell for a in shard.submit([attempt("t3")]).assignments] == ["c0"]
    shard.done("m/t3/0/1")
    shard.move("a1", "c2")
    assert shard.submit([attempt("t4")]).assignments == [], "c2 has not come up"
    assert [a.agent_id for a in shard.cell_up("c2").assignments] == ["a1"]


def test_an_agent_that_moves_into_a_cell_takes_what_waits() -> None:
    shard = roster("p")
    shard.drain("c0")
    shard.submit([attempt("t1")])
    shard.cell_up("c1")
    assert [(a.cell, a.attempt.task_id) for a in shard.move("a0", "c1").assignments] == [("c1", "t1")]


def test_an_agent_that_is_removed_loses_what_it_had_and_what_waited_for_it_alone() -> None:
    shard = roster("p", "q")
    shard.submit([attempt("t1", policy="q"), attempt("t2", policy="p"), attempt("t3", policy="q"), attempt("t4")])
    step = shard.remove(["a1", "never here"])
    assert {(r.attempt_id, r.failure) for r in step.reports} == {
        ("m/t1/0/1", FailureKind.LOST),
        ("m/t3/0/1", FailureKind.NO_AGENT),
    }
    assert len(shard) == 1 and shard.agents_in("c0") == ["a0"]
    assert [a.attempt.task_id for a in shard.done("m/t2/0/1").assignments] == ["t4"]
    step = shard.remove(["a0"])
    assert [r.failure for r in step.reports] == [FailureKind.LOST]
    assert not shard._lanes._lanes
    assert "no agent has the role" in shard.submit([attempt("t5")]).reports[0].detail
    shard.add("a0", role="worker", policy="p", cell="c0")
    assert [a.agent_id for a in shard.submit([attempt("t6")]).assignments] == ["a0"]


def test_cancelled_work_is_forgotten_where_it_waits_and_named_where_it_runs() -> None:
    shard = roster("p")
    shard.submit([attempt("t1"), attempt("t2")])
    assert list(shard.cancel(["m/t1/0/1", "m/t2/0/1", "unknown"])) == [("c0", "m/t1/0/1")]
    assert shard.waiting == 0 and shard.done("m/t1/0/1").assignments == []


def test_a_full_queue_is_a_refusal() -> None:
    shard = roster("p", max_waiting=1)
    step = shard.submit([attempt("t1"), attempt("t2"), attempt("t3")])
    assert len(step.assignments) == 1 and shard.waiting == 1
    [refusal] = step.reports
    assert (refusal.attempt_id, refusal.failure) == ("m/t3/0/1", FailureKind.OVERLOADED)


def test_what_waits_is_refused_once_its_last_agent_is_gone() -> None:
    shard = roster("p", "p")
    shard.submit([attempt("other", barred=("a1",))])
    shard.submit([attempt("t", replica=0)])
    waits = shard.submit([attempt("t", replica=1)])
    assert waits.reports == [] and shard.waiting == 1
    shard.done("m/other/0/1")
    assert shard.waiting == 0, "the freed agent took replica 1"
    third = shard.submit([attempt("t", replica=2)])
    assert [report.failure for report in third.reports] == [FailureKind.NO_AGENT]


def test_an_agent_that_failed_one_replica_is_barred_from_the_waiting_ones_too() -> None:
    shard = roster("p", "p")
    shard.submit([attempt("busy", barred=("a1",))])
    shard.submit([attempt("t", replica=0), attempt("t", replica=1)])
    assert shard.waiting == 1
    freed = shard.done("m/t/0/1")
    assert freed.assignments == [], "it votes for replica 0 and takes no other"
    again = shard.submit([attempt("t", replica=0, number=2, barred=("a1",))])
    assert again.assignments == [] and shard.waiting == 2
    last = shard.done("m/busy/0/1")
    assert [a.agent_id for a in last.assignments] == ["a0"]
    assert [r.failure for r in last.reports] == [FailureKind.NO_AGENT], "the other replica has nobody left"
    assert shard.waiting == 0


def test_an_idle_agent_whose_replica_goes_to_another_takes_what_it_was_excluded_from() -> None:
    shard = roster("p", "p", "q")
    first = shard.submit([attempt("t", replica=0, policy="p"), attempt("busy", policy="p")])
    holder = first.assignments[0].agent_id
    shard.submit([attempt("t", replica=1, policy="p"), attempt("more", policy="p")])
    assert [a.attempt.task_id for a in shard.done("m/t/0/1").assignments] == ["more"]
    assert shard.done("m/more/0/1").assignments == [] and shard.waiting == 1
    step = shard.submit([attempt("t", replica=0, number=2, policy="q")])
    assert [(a.agent_id, a.attempt.replica) for a in step.assignments] == [("a2", 0), (holder, 1)]


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 80))
def test_who_voted_is_remembered_while_the_task_goes_on(seed: int, agents: int, tasks: int) -> None:
    """However attempts end and come again, no agent has two replicas of a task at the end."""
    chance = random.Random(seed)
    shard = roster(*["p"] * agents, seed=seed)
    replicas = min(agents, 3)
    step = shard.submit([attempt(f"t{t}", replica=r) for t in range(tasks) for r in range(replicas)])
    running, votes = list(step.assignments), []
    while running:
        ended = running.pop(chance.randrange(len(running)))
        votes.append((ended.attempt.task_id, ended.agent_id))
        running += shard.done(ended.attempt.id).assignments
    assert len(votes) == len(set(votes)) == tasks * replicas


def test_tasks_that_go_on_are_remembered_however_many_end_meanwhile() -> None:
    shard = roster("p", "p")
    slow = shard.submit([attempt("slow", replica=0)]).assignments[0].agent_id
    for n in range(MAX_TASKS_REMEMBERED + 100):
        shard.submit([attempt(f"t{n}")])
        shard.done(f"m/t{n}/0/1")
    assert len(shard._tasks) <= MAX_TASKS_REMEMBERED + 10
    shard.done("m/slow/0/1")
    shard.submit([attempt("busy", barred=(slow,))])
    assert shard.submit([attempt("slow", replica=1)]).assignments == [], "its only free agent has voted on it"


def test_appraisals_of_strangers_and_of_skills_that_an_agent_lacks_are_ignored() -> None:
    shard = roster("p", "p")
    shard.appraise([Appraisal("gone", "", 0.0), Appraisal("a0", "rhyme", 0.0)], 0.0)
    assert shard.standing() == {}


def test_the_standing_of_agents_outlives_their_roster() -> None:
    shard = roster("p", "p", "p")
    shard.appraise([Appraisal("a0", "", 0.0)] * 5 + [Appraisal("a2", "", 1.0)] * 3, 10.0)
    assert shard.standing() == {"a0": {"": (1.0, 6.0, 10.0)}, "a2": {"": (4.0, 1.0, 10.0)}}
    heir = roster("p", "p")
    heir.restore(shard.standing())
    assert heir.standing() == {"a0": {"": (1.0, 6.0, 10.0)}}
    heir.appraise([], 10.0)
    assert heir.reputations(5) == [("a0", "worker", 1 / 7, 5.0, 0), ("a1", "worker", 0.5, 0.0, 0)]
    assert heir.reputations(1) == heir.reputations(5)[:1]


@pytest.mark.parametrize("skill", ["", "rhyme"])
def test_of_two_free_agents_the_one_that_is_better_at_it_is_asked(skill: str) -> None:
    shard = Roster(rng=random.Random(1))
    for n in range(2):
        shard.add(f"a{n}", role="worker", policy="p", cell="c", skills=["rhyme"])
        shard.appraise([Appraisal(f"a{n}", skill, float(n))] * 20, 0.0)
    shard.cell_up("c")
    asked = []
    for n in range(300):
        asked += [a.agent_id for a in shard.submit([attempt(f"t{n}", skill=skill)]).assignments]
        shard.done(f"m/t{n}/0/1")
    assert 280 < asked.count("a1") < 300


def test_counts_by_role() -> None:
    shard = roster("p", "p")
    shard.add("j", role="judge", policy="p", cell="c0")
    shard.submit([attempt("t1"), attempt("t2"), attempt("t3")])
    assert shard.counts() == {"judge": (1, 0, 0), "worker": (2, 2, 1)}
    assert (len(shard), shard.busy, shard.waiting) == (3, 2, 1)


def steps(action: Callable[[], object]) -> int:
    """What an action costs, counted in lines that the interpreter goes through and not in seconds."""
    count = 0

    def tracer(frame: object, event: str, arg: object) -> object:
        nonlocal count
        count += 1
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)  # type: ignore[arg-type]
    try:
        action()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("routing", ["reputation", "least_loaded"])
def test_a_step_does_not_cost_the_number_of_agents(routing: str) -> None:
    def cost(agents: int) -> int:
        shard = roster(*["p"] * agents, cells=4, routing=routing)
        shard.submit([attempt("first")])
        spent = steps(lambda: shard.submit([attempt(f"t{n}", replica=r) for n in range(10) for r in range(3)]))
        return spent + steps(lambda: [shard.done(f"m/t{n}/{r}/1") for n in range(10) for r in range(3)])

    assert cost(5_000) < 1.5 * cost(50)


def test_a_step_does_not_cost_the_number_of_waiting_attempts() -> None:
    """Also not when what waits in front is for one agent alone, which hangs: it has to vote on every task."""

    def cost(tasks: int) -> int:
        shard = roster("p", "p", "p")
        step = shard.submit([attempt(f"t{n}", replica=r, priority=n % 3) for n in range(tasks) for r in range(3)])
        running = [a for a in step.assignments if a.agent_id != "a0"]

        def serve(services: int) -> None:
            for _ in range(services):
                running.extend(shard.done(running.pop(0).attempt.id).assignments)

        serve(tasks)
        return steps(lambda: serve(50))

    assert cost(3_000) < 2 * cost(100)


def test_the_share_of_agents_that_take_work() -> None:
    roster = Roster(rng=random.Random(0))
    assert roster.up == 1.0
    for n in range(4):
        roster.add(f"a{n}", role="worker", policy="p", cell="one" if n else "two")
    assert roster.up == 0.0
    roster.cell_up("one")
    assert roster.up == 0.75
    roster.cell_up("two")
    roster.cell_down("one", "died")
    assert roster.up == 0.25
