"""How far a mission's graph has come: which tasks are decided, and which may start."""

from __future__ import annotations

from collections import deque

from chimera.swarm.attempt import Settled
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph, TaskNode


class Progress:
    """`graph` grows when a fan expands; `settled` are the tasks that have been decided, in that order."""

    def __init__(self, graph: TaskGraph, decomposer: TaskDecomposer) -> None:
        self.graph = graph
        self.settled: dict[str, Settled] = {}
        self._decomposer = decomposer
        self._unmet = {node.id: len(node.after) for node in graph.nodes}
        self._ready = deque(node.id for node in graph.nodes if not node.after)
        self._fanned_over: dict[str, str] = {}

    @property
    def output(self) -> Settled | None:
        """The output task, once it is decided."""
        return self.settled.get(self.graph.output)

    def next(self) -> TaskNode | None:
        """The next task that may start, each once; a fan may only if there is a value to fan out over."""
        while self._ready:
            node = self.graph.node(self._ready.popleft())
            if node.each is None or self.settled[node.each].decision.agreed:
                return node
        return None

    def upstream(self, node: TaskNode) -> dict[str, Settled]:
        """The decided tasks that `node` waited for. A task of a fan has its item and does not carry all the others'."""
        left_out = self._fanned_over.get(node.id)
        return {name: self.settled[name] for name in node.after if name in self.settled and name != left_out}

    def settle(self, name: str, settled: Settled) -> None:
        """The task is decided; what waited for it alone may start."""
        self.settled[name] = settled
        for follower in self.graph.dependents(name):
            if settled.decision.agreed or self.graph.node(follower).needs == "settled":
                self._unmet[follower] -= 1
                if self._unmet[follower] == 0:
                    self._ready.append(follower)

    def expand(self, fan: TaskNode) -> list[TaskNode]:
        """Put one task for each item in the place of `fan`, which may start. Returns them. Raises GraphError."""
        over = str(fan.each)
        followers = self.graph.dependents(fan.id)
        self.graph = self._decomposer.expand(self.graph, fan.id, self.settled[over].decision.value)
        tasks = [node for node in self.graph.nodes if node.id not in self._unmet]
        for task in tasks:
            self._fanned_over[task.id] = over
            self._unmet[task.id] = 0
            self._ready.append(task.id)
        for name in followers:
            follower = self.graph.node(name)
            self._unmet[name] = sum(not self._is_met(follower, dependency) for dependency in follower.after)
            if self._unmet[name] == 0:
                self._ready.append(name)
        return tasks

    def _is_met(self, node: TaskNode, dependency: str) -> bool:
        settled = self.settled.get(dependency)
        return settled is not None and (settled.decision.agreed or node.needs == "settled")
