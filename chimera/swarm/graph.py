"""The graph of a mission's tasks. One that can be made is valid: its checks run when it is made.

`TaskGraph` raises GraphError, with one of the reasons that it names, and never pydantic's own error for these: graphs
come from users' files, and a cycle is named by its path.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from pydantic import model_validator

from chimera.core.errors import GraphError
from chimera.core.types import Frozen, Name, Task

MAX_EDGES = 1_000_000
"""Dependencies in one graph. Two fans of 10,000 tasks after one another would have 100 million: gather between them."""

MAX_FAN_ID_CHARS = 112
"""A fan's id leaves room for `[index]` in a Name."""

_CYCLE_SHOWN = 12


class TaskNode(Frozen):
    """A task and what it waits for.

    `after` names its dependencies; with `needs="agreed"` it starts once all have agreed, with `"settled"` once all are
    decided in any way. `each` names the one of them whose value is a list: the node becomes one task per item, called
    `id[0]`, `id[1]` and so on, with the item in `inputs["item"]`.
    """

    id: Name
    task: Task
    after: tuple[Name, ...] = ()
    each: Name | None = None
    needs: Literal["agreed", "settled"] = "agreed"


class TaskGraph(Frozen):
    """Tasks that wait for one another, without a cycle. `output` is the task whose decision is the mission's value.

    Raises GraphError: `empty`, `duplicate` (an id, or a dependency named twice), `unknown` (a dependency or the output
    is not in the graph), `cycle`, `fan_out` (a fan over a fan, or as the output), `too_many` (dependencies).
    """

    nodes: tuple[TaskNode, ...]
    output: Name

    @model_validator(mode="after")
    def _is_valid(self) -> TaskGraph:
        check_nodes(self.nodes)
        output = self._by_id.get(self.output)
        if output is None:
            raise GraphError(f"the output {self.output!r} is not a task of the graph", "unknown")
        if output.each is not None:
            raise GraphError(f"the output {self.output!r} fans out: let a task after it gather its results", "fan_out")
        return self

    def node(self, node_id: str) -> TaskNode:
        """The node with this id. Raises GraphError (`unknown`)."""
        try:
            return self._by_id[node_id]
        except KeyError:
            raise GraphError(f"{node_id!r} is not a task of the graph", "unknown") from None

    def dependents(self, node_id: str) -> tuple[str, ...]:
        """The ids of the nodes that wait for this one, in the graph's order. Raises GraphError (`unknown`)."""
        self.node(node_id)
        return self._dependents.get(node_id, ())

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Every id, each after all that it waits for. Equal graphs have equal orders."""
        return tuple(TopologicalSorter({node.id: node.after for node in self.nodes}).static_order())

    @cached_property
    def _by_id(self) -> dict[str, TaskNode]:
        return {node.id: node for node in self.nodes}

    @cached_property
    def _dependents(self) -> dict[str, tuple[str, ...]]:
        waiting: dict[str, list[str]] = {}
        for node in self.nodes:
            for name in node.after:
                waiting.setdefault(name, []).append(node.id)
        return {name: tuple(ids) for name, ids in waiting.items()}


def check_nodes(nodes: tuple[TaskNode, ...]) -> None:
    """Everything that a graph has to be, whatever its output. Raises GraphError as `TaskGraph` says."""
    if not nodes:
        raise GraphError("the graph has no tasks", "empty")
    edges = sum(len(node.after) for node in nodes)
    if edges > MAX_EDGES:
        raise GraphError(f"the graph has {edges} dependencies; the limit is {MAX_EDGES}", "too_many")
    by_id = {node.id: node for node in nodes}
    if len(by_id) < len(nodes):
        raise GraphError(f"two tasks are called {_repeated([node.id for node in nodes])!r}", "duplicate")
    for node in nodes:
        _check_node(node, by_id)
    if not edges:
        return
    try:
        TopologicalSorter({node.id: node.after for node in nodes}).prepare()
    except CycleError as error:
        path: list[str] = error.args[1]
        shown = path if len(path) <= _CYCLE_SHOWN else [*path[: _CYCLE_SHOWN - 1], "...", path[-1]]
        raise GraphError(f"tasks wait for one another: {' -> '.join(shown)}", "cycle") from error


def _check_node(node: TaskNode, by_id: dict[str, TaskNode]) -> None:
    for name in node.after:
        if name not in by_id:
            raise GraphError(f"task {node.id!r} waits for {name!r}, which is not in the graph", "unknown")
    if len(set(node.after)) < len(node.after):
        raise GraphError(f"task {node.id!r} names {_repeated(list(node.after))!r} twice in `after`", "duplicate")
    if node.each is None:
        return
    if node.each not in node.after:
        raise GraphError(f"task {node.id!r} fans out over {node.each!r}: name it in `after` too", "fan_out")
    if by_id[node.each].each is not None:
        raise GraphError(f"{node.id!r} fans out over {node.each!r}, which fans out itself: gather first", "fan_out")
    if len(node.id) > MAX_FAN_ID_CHARS:
        raise GraphError(f"{node.id!r} is too long for a fan: {MAX_FAN_ID_CHARS} characters at most", "fan_out")


def _repeated(names: list[str]) -> str:
    """The first name that stands there more than once."""
    counts = Counter(names)
    return next(name for name in names if counts[name] > 1)
