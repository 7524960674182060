from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.types import FailureKind, Task
from chimera.swarm.attempt import Attempt
from chimera.swarm.roster import Roster


def attempt(
    name: str = "t", replica: int = 0, number: int = 1, role: str = "worker", barred: tuple[str, ...] = (), **task: bool
) -> Attempt:
    spec = Task(goal="g", role=role, replicas=3, **task)  # type: ignore[arg-type]
    return Attempt(f"m/{name}/{replica}/{number}", "m", name, replica, number, spec, 5.0, {}, frozenset(barred))


def roster(*policies: str, cells: int = 1, up: bool = True) -> Roster:
    made = Roster()
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
    assert [a.agent_id for a in first.assignments] == ["a0"]
    assert second.assignments == [] and shard.waiting == 1
    freed = shard.done("m/t1/0/1")
    assert [a.attempt.task_id for a in freed.assignments] == ["t2"]
    assert shard.waiting == 0


def test_no_agent_votes_twice_on_a_task() -> None:
    shard = roster("p", "p")
    step = shard.submit([attempt(replica=0), attempt(replica=1), attempt(replica=2)])
    assert sorted(a.agent_id for a in step.assignments) == ["a0", "a1"]
    assert [r.failure for r in step.reports] == [FailureKind.NO_AGENT]
    assert "has voted on it, failed it or is at it" in step.reports[0].detail


def test_a_barred_agent_is_passed_over() -> None:
    step = roster("p", "p").submit([attempt(barred=("a0",))])
    assert [a.agent_id for a in step.assignments] == ["a1"]


def test_different_policies_give_replica_i_the_ith_policy_by_name() -> None:
    shard = roster("tfidf", "bm25", "graph", "bm25")
    step = shard.submit([attempt(replica=r, different_policies=True) for r in (2, 0, 1)])
    assert {a.attempt.replica: a.agent_id for a in step.assignments} == {0: "a1", 1: "a2", 2: "a0"}


def test_too_few_different_policies_are_said_so() -> None:
    step = roster("p", "q").submit([attempt(replica=r, different_policies=True) for r in range(3)])
    assert "2 different policies" in step.reports[0].detail


def test_a_role_that_nobody_has_is_said_so() -> None:
    step = roster("p").submit([attempt(role="poet")])
    assert "no agent has the role 'poet'" in step.reports[0].detail


def test_a_cell_that_dies_loses_what_it_had_and_nothing_else() -> None:
    shard = roster("p", "p", cells=2)
    shard.submit([attempt("t1"), attempt("t2")])
    lost = shard.cell_down("c0", "c0 died")
    assert [(r.attempt_id, r.failure, r.agent) for r in lost.reports] == [("m/t1/0/1", FailureKind.LOST, "a0")]
    assert shard.busy == 1


def test_work_waits_while_the_only_cell_is_down_and_goes_on_when_it_is_back() -> None:
    shard = roster("p")
    shard.submit([attempt(number=1)])
    shard.cell_down("c0", "died")
    waits = shard.submit([attempt(number=2)])
    assert waits.assignments == [] and waits.reports == []
    back = shard.cell_up("c0")
    assert [a.attempt.id for a in back.assignments] == ["m/t/0/2"]


def test_cancelled_work_is_forgotten_where_it_waits_and_named_where_it_runs() -> None:
    shard = roster("p")
    shard.submit([attempt("t1"), attempt("t2")])
    assert list(shard.cancel(["m/t1/0/1", "m/t2/0/1"])) == [("c0", "m/t1/0/1")]
    assert shard.waiting == 0


def test_a_full_queue_is_a_refusal() -> None:
    shard = Roster(max_waiting=1)
    shard.add("a0", role="worker", policy="p", cell="c0")
    shard.cell_up("c0")
    step = shard.submit([attempt("t1"), attempt("t2"), attempt("t3")])
    assert len(step.assignments) == 1 and shard.waiting == 1
    assert [r.attempt_id for r in step.reports] == ["m/t3/0/1"]


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_nothing_is_lost_whatever_happens(moves: list[int], agents: int) -> None:
    """Every attempt handed in is waiting, in hand, done, or reported: exactly one of them."""
    shard = roster(*["p"] * agents, cells=2)
    submitted, in_hand, ended = 0, set(), 0
    for move in moves:
        if move <= 2:
            step = shard.submit([attempt(f"t{submitted}")])
            submitted += 1
        elif move == 3 and in_hand:
            done = min(in_hand)
            in_hand.discard(done)
            ended += 1
            step = shard.done(done)
        elif move == 4:
            step = shard.cell_down("c0", "died")
            in_hand -= {r.attempt_id for r in step.reports}
        else:
            step = shard.cell_up("c0")
        ended += len(step.reports)
        in_hand |= {a.attempt.id for a in step.assignments}
        assert shard.busy == len(in_hand)
        assert submitted == shard.waiting + shard.busy + ended


def test_what_waits_is_refused_once_its_last_agent_is_gone() -> None:
    shard = roster("p", "p")
    shard.submit([attempt("other")])
    shard.submit([attempt("t", replica=0)])
    waits = shard.submit([attempt("t", replica=1)])
    assert waits.reports == [] and shard.waiting == 1
    shard.done("m/other/0/1")
    assert shard.waiting == 0, "the freed agent took replica 1"
    third = shard.submit([attempt("t", replica=2)])
    assert [report.failure for report in third.reports] == [FailureKind.NO_AGENT]


def test_an_agent_that_failed_one_replica_is_barred_from_the_waiting_ones_too() -> None:
    shard = roster("p", "p")
    shard.submit([attempt("busy")])
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


def test_a_step_does_not_cost_the_number_of_agents() -> None:
    """Counted in steps of the interpreter, not in seconds."""
    import sys

    def steps(agents: int) -> int:
        shard = roster(*["p"] * agents)
        count = 0

        def tracer(frame: object, event: str, arg: object) -> object:
            nonlocal count
            count += 1
            return tracer

        sys.settrace(tracer)  # type: ignore[arg-type]
        shard.submit([attempt(f"t{n}") for n in range(10)])
        sys.settrace(None)
        return count

    assert steps(2_000) < 3 * steps(20)
