"""From a mission to its graph, and a fan to its tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from chimera.core.errors import GraphError, MissionError
from chimera.core.types import Consensus, EqualityKind, Task
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.mission_file import parse_mission

DECOMPOSER = TaskDecomposer()
QUESTION = "How many features?"


def graph_of(**fields: object) -> TaskGraph:
    return DECOMPOSER.decompose(parse_mission({"goal": QUESTION, **fields}))


def fan(*, after_fan: tuple[str, ...] = ("fan",)) -> TaskGraph:
    task = Task(goal="work", inputs={"kept": 1})
    nodes = (
        TaskNode(id="list", task=task),
        TaskNode(id="other", task=task),
        TaskNode(id="fan", task=task, after=("other", "list"), each="list", needs="settled"),
        TaskNode(id="gather", task=task, after=after_fan, needs="settled"),
    )
    return TaskGraph(nodes=nodes, output="gather")


def test_a_goal_alone_is_one_task() -> None:
    graph = graph_of(consensus="quorum", threshold=0.6, replicas=5, limits={"deadline_s": 9, "max_attempts": 1})
    assert graph.output == "task"
    assert graph.node("task").task == Task(
        goal=QUESTION, replicas=5, consensus=Consensus.QUORUM, threshold=0.6, deadline_s=9.0, max_attempts=1
    )


def test_documents_make_a_brief() -> None:
    limits = {"deadline_s": 30, "attempt_timeout_s": 5, "max_attempts": 2}
    graph = graph_of(docs="/docs", replicas=3, consensus="quorum", threshold=0.6, model="offline", limits=limits)
    plan, extract, judge, compose = graph.nodes
    assert [n.id for n in graph.nodes] == ["plan", "extract", "judge", "compose"] == list(graph.order)
    assert [n.task.role for n in graph.nodes] == ["planner", "worker", "judge", "composer"]
    assert [n.task.replicas for n in graph.nodes] == [1, 3, 1, 1]
    assert (extract.after, extract.each) == (("plan",), "plan")
    assert (judge.after, judge.needs) == (("plan", "extract"), "settled")
    assert compose.after == ("judge",)
    assert graph.output == "compose"
    assert (extract.task.consensus, extract.task.threshold) == (Consensus.QUORUM, 0.6)
    assert extract.task.equality.kind is EqualityKind.JSON
    assert not extract.task.early_stop
    assert extract.task.different_policies
    assert plan.task.inputs == {"docs": "/docs", "question": QUESTION, "replicas": 3}
    assert compose.task.inputs == {
        "question": QUESTION, "replicas": 3, "consensus": "quorum", "threshold": 0.6, "model": "offline",
    }  # fmt: skip
    for n in graph.nodes:
        assert n.task.goal == QUESTION
        assert (n.task.attempt_timeout_s, n.task.max_attempts) == (5.0, 2)
    assert [n.task.deadline_s for n in graph.nodes if n is not extract] == [30.0] * 3
    assert 0 < extract.task.deadline_s < 30, "time is left to judge and compose what came in"


def test_own_tasks_take_from_the_mission_what_they_leave_open() -> None:
    graph = graph_of(
        replicas=2,
        consensus="quorum",
        threshold=0.5,
        docs="/docs",
        tasks=[
            {"id": "a", "goal": "first", "inputs": {"x": None}},
            {
                "id": "b",
                "goal": "second",
                "after": ["a"],
                "each": "a",
                "consensus": "majority",
                "inputs": {"docs": "/own"},
            },
            {"id": "c", "goal": "third", "after": ["b"], "needs": "settled", "threshold": 0.9, "replicas": 7},
        ],
    )
    a, b, c = graph.nodes
    assert (a.task.replicas, a.task.consensus, a.task.threshold) == (2, Consensus.QUORUM, 0.5)
    assert (b.task.consensus, b.task.threshold, b.after, b.each) == (Consensus.MAJORITY, None, ("a",), "a")
    assert (c.task.threshold, c.task.replicas, c.needs) == (0.9, 7, "settled")
    assert [n.task.inputs for n in graph.nodes] == [{"docs": "/docs", "x": None}, {"docs": "/own"}, {"docs": "/docs"}]
    assert graph.output == "c"


def task(task_id: str, *after: str) -> dict[str, object]:
    return {"id": task_id, "goal": "work", "after": list(after)}


@pytest.mark.parametrize(
    ("tasks", "output", "reason", "says"),
    [
        ([task("a", "b"), task("b", "a")], None, "cycle", "->"),
        ([task("a", "b"), task("b", "a")], "a", "cycle", "->"),
        ([task("a"), task("b", "c")], None, "unknown", "'c'"),
        ([task("a"), task("a")], None, "duplicate", "'a'"),
        ([task("a"), task("b")], None, "unknown", r"ends in 2 tasks \(a, b\): name one as `output`"),
        ([task("a"), task("b")], "c", "unknown", "'c'"),
    ],
)
def test_own_tasks_that_are_no_graph_are_refused(
    tasks: list[dict[str, object]], output: str | None, reason: str, says: str
) -> None:
    with pytest.raises(GraphError, match=says) as refusal:
        graph_of(tasks=tasks, output=output)
    assert refusal.value.reason == reason


def test_a_task_that_does_not_go_with_its_mission_is_named() -> None:
    task = {"id": "sure", "goal": "g", "certainty": 0.9, "equality": {"kind": "numeric", "tolerance": 0.1}}
    with pytest.raises(MissionError, match="task 'sure': certainty below 1 is only for votes"):
        graph_of(tasks=[task])


def test_the_output_may_be_named() -> None:
    assert graph_of(tasks=[task("a"), task("b", "a"), task("c", "a")], output="a").output == "a"


def test_the_number_of_tasks_is_bounded() -> None:
    small = TaskDecomposer(max_nodes=4)
    assert small.decompose(parse_mission({"goal": "g", "docs": "/d"}))
    with pytest.raises(GraphError, match="the limit is 3") as refusal:
        TaskDecomposer(max_nodes=3).decompose(parse_mission({"goal": "g", "docs": "/d"}))
    assert refusal.value.reason == "too_many"
    with pytest.raises(GraphError, match="the limit is 3"):
        TaskDecomposer(max_nodes=3).validate(fan())
    assert len(small.expand(fan(), "fan", [1]).nodes) == 4
    with pytest.raises(GraphError, match="5 tasks; the limit is 4") as refusal:
        small.expand(fan(), "fan", [1, 2])
    assert refusal.value.reason == "too_many"


@given(st.lists(st.recursive(st.none() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4), max_size=20))
def test_a_fan_becomes_one_task_for_each_item(items: list[JsonValue]) -> None:
    graph = DECOMPOSER.expand(fan(after_fan=("other", "fan")), "fan", items)
    fanned = [n for n in graph.nodes if n.id.startswith("fan")]
    assert [n.id for n in fanned] == [f"fan[{n}]" for n in range(len(items))]
    assert [n.task.inputs for n in fanned] == [{"kept": 1, "item": item} for item in items]
    for n in fanned:
        assert (n.after, n.each, n.needs) == (("other", "list"), None, "settled")
    gather = graph.node("gather")
    assert gather.after == ("other", *([n.id for n in fanned] or ["list"]))
    assert gather.needs == "settled"
    assert graph.node("list") == fan().node("list")
    assert graph.output == "gather"
    assert list(graph.order)[-1] == "gather"


def test_an_empty_fan_does_not_name_a_dependency_twice() -> None:
    graph = DECOMPOSER.expand(fan(after_fan=("list", "fan")), "fan", [])
    assert graph.node("gather").after == ("list",)


@pytest.mark.parametrize("items", [None, 3, "abc", {"a": 1}, True])
def test_only_a_list_can_be_fanned_out_over(items: JsonValue) -> None:
    with pytest.raises(GraphError, match="no list") as refusal:
        DECOMPOSER.expand(fan(), "fan", items)
    assert refusal.value.reason == "fan_out"


def test_only_a_fan_can_be_expanded() -> None:
    with pytest.raises(GraphError, match="does not fan out"):
        DECOMPOSER.expand(fan(), "list", [1])
    with pytest.raises(GraphError, match="not a task") as refusal:
        DECOMPOSER.expand(fan(), "nobody", [1])
    assert refusal.value.reason == "unknown"
    once = DECOMPOSER.expand(fan(), "fan", [1])
    with pytest.raises(GraphError):
        DECOMPOSER.expand(once, "fan", [1])


def test_two_wide_fans_in_a_row_are_too_many_dependencies() -> None:
    work = Task(goal="work")
    nodes = (
        TaskNode(id="list", task=work),
        TaskNode(id="first", task=work, after=("list",), each="list"),
        TaskNode(id="second", task=work, after=("first", "list"), each="list"),
        TaskNode(id="end", task=work, after=("second",)),
    )
    graph = DECOMPOSER.expand(TaskGraph(nodes=nodes, output="end"), "first", [0] * 2_000)
    with pytest.raises(GraphError, match="dependencies") as refusal:
        DECOMPOSER.expand(graph, "second", [0] * 2_000)
    assert refusal.value.reason == "too_many"


def test_a_task_named_like_one_of_a_fan_is_found_out() -> None:
    graph = fan()
    rival = TaskNode(id="fan[0]", task=Task(goal="rival"))
    with pytest.raises(GraphError, match=r"fan\[0\]") as refusal:
        DECOMPOSER.expand(TaskGraph(nodes=(*graph.nodes, rival), output="gather"), "fan", [1])
    assert refusal.value.reason == "duplicate"
