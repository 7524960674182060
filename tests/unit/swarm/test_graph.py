"""What a task graph accepts, refuses and answers."""

from __future__ import annotations

import pickle
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import GraphError
from chimera.core.types import Task
from chimera.swarm.graph import MAX_EDGES, TaskGraph, TaskNode

TASK = Task(goal="work")


def node(node_id: str, *after: str, each: str | None = None) -> TaskNode:
    return TaskNode(id=node_id, task=TASK, after=after, each=each)


@st.composite
def dags(draw: st.DrawFn) -> tuple[TaskNode, ...]:
    """Nodes that wait for nodes with smaller numbers only, declared in any order."""
    count = draw(st.integers(1, 30))
    nodes = []
    for n in range(count):
        before = draw(st.sets(st.integers(0, n - 1), max_size=5)) if n else set()
        nodes.append(node(f"n{n}", *(f"n{m}" for m in sorted(before))))
    return tuple(draw(st.permutations(nodes)))


@given(dags())
def test_any_dag_is_accepted_and_ordered(nodes: tuple[TaskNode, ...]) -> None:
    graph = TaskGraph(nodes=nodes, output=nodes[0].id)
    place = {node_id: at for at, node_id in enumerate(graph.order)}
    assert sorted(place) == sorted(n.id for n in nodes)
    for n in nodes:
        assert graph.node(n.id) is n
        assert all(place[name] < place[n.id] for name in n.after)
        assert graph.dependents(n.id) == tuple(m.id for m in nodes if n.id in m.after)


@given(dags(), st.randoms(use_true_random=False))
def test_any_back_edge_is_refused_and_its_cycle_named(nodes: tuple[TaskNode, ...], chance: random.Random) -> None:
    order = TaskGraph(nodes=nodes, output=nodes[0].id).order
    target = chance.choice(order)
    by_id = {n.id: n for n in nodes}
    above = {target}
    for node_id in order:  # everything that waits for the target, directly or not, and itself
        if above & set(by_id[node_id].after):
            above.add(node_id)
    source = chance.choice(sorted(above))
    changed = tuple(n.model_copy(update={"after": (*n.after, source)}) if n.id == target else n for n in nodes)
    with pytest.raises(GraphError) as refusal:
        TaskGraph(nodes=changed, output=target)
    if refusal.value.reason == "duplicate":
        assert source in by_id[target].after
        return
    assert refusal.value.reason == "cycle"
    path = refusal.value.message.removeprefix("tasks wait for one another: ").split(" -> ")
    assert path[0] == path[-1]
    waits = {n.id: n.after for n in changed}
    assert all(first in waits[second] for first, second in pairwise(path) if "..." not in path)


@pytest.mark.parametrize(
    ("nodes", "output", "reason", "says"),
    [
        ((), "a", "empty", "no tasks"),
        ((node("a"), node("a")), "a", "duplicate", "'a'"),
        ((node("a", "a"),), "a", "cycle", "a -> a"),
        ((node("a", "b"),), "a", "unknown", "'a' waits for 'b'"),
        ((node("a"),), "b", "unknown", "output 'b'"),
        ((node("a"), node("b", "a", "a")), "b", "duplicate", "twice"),
        ((node("a"), node("b", each="a")), "a", "fan_out", "name it in `after`"),
        ((node("a"), node("b", "a", each="a")), "b", "fan_out", "output"),
        ((node("a"), node("b", "a", each="a"), node("c", "b", each="b")), "a", "fan_out", "fans out itself"),
        ((node("a"), node("b" * 113, "a", each="a")), "a", "fan_out", "too long"),
    ],
)
def test_what_is_not_a_graph_is_refused(nodes: tuple[TaskNode, ...], output: str, reason: str, says: str) -> None:
    with pytest.raises(GraphError, match=says) as refusal:
        TaskGraph(nodes=nodes, output=output)
    assert refusal.value.reason == reason


def test_a_cycle_is_named_by_its_path() -> None:
    nodes = (node("a", "c"), node("b", "a"), node("c", "b"), node("d", "c"))
    with pytest.raises(GraphError, match=r"(a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)$"):
        TaskGraph(nodes=nodes, output="d")


def test_a_long_cycle_is_named_in_short() -> None:
    nodes = tuple(node(f"n{n}", f"n{(n - 1) % 5_000}") for n in range(5_000))
    with pytest.raises(GraphError, match="one another") as refusal:
        TaskGraph(nodes=nodes, output="n0")
    assert len(refusal.value.message) < 200


def test_dependencies_are_bounded() -> None:
    many = MAX_EDGES // 1_000 + 1
    first = tuple(node(f"a{n}") for n in range(1_000))
    names = tuple(n.id for n in first)
    second = tuple(node(f"b{n}", *names) for n in range(many))
    with pytest.raises(GraphError, match="dependencies") as refusal:
        TaskGraph(nodes=first + second, output="a0")
    assert refusal.value.reason == "too_many"


def test_an_unknown_id_is_named() -> None:
    graph = TaskGraph(nodes=(node("a"),), output="a")
    for ask in (graph.node, graph.dependents):
        with pytest.raises(GraphError, match="'b'"):
            ask("b")


def test_a_graph_survives_a_pickle_round_trip() -> None:
    graph = TaskGraph(nodes=(node("a"), node("b", "a")), output="b")
    copy = pickle.loads(pickle.dumps(graph))
    assert copy == graph
    assert copy.dependents("a") == ("b",)
