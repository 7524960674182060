"""From a mission to its graph of tasks, and from a list of items to one task for each."""

from __future__ import annotations

from pydantic import JsonValue, ValidationError

from chimera.core.errors import GraphError, MissionError
from chimera.core.types import Consensus, Task
from chimera.swarm.graph import MAX_EDGES, TaskGraph, TaskNode, check_nodes
from chimera.swarm.mission import Mission, TaskDraft

EXTRACTION_SHARE = 0.8
"""The share of a brief's deadline when extraction ends, whoever is still at it: the rest is for a partial answer."""

_REVIEW = ("review", "review_below", "review_s")


class TaskDecomposer:
    """Makes graphs of at most `max_nodes` tasks. Raises GraphError; see `TaskGraph` for the reasons.

    Raises MissionError for a task whose own fields do not go with those of its mission.
    """

    def __init__(self, max_nodes: int = 10_000) -> None:
        self.max_nodes = max_nodes

    def decompose(self, mission: Mission) -> TaskGraph:
        """The graph of `mission`: its own tasks, or a brief over its documents, or a single task."""
        if mission.tasks:
            graph = self._own_tasks(mission)
        elif mission.docs is not None:
            graph = self.validate(_brief(mission))
        else:
            graph = self.validate(TaskGraph(nodes=(TaskNode(id="task", task=_task(mission)),), output="task"))
        return _with_review(mission, graph)

    def validate(self, graph: TaskGraph) -> TaskGraph:
        """`graph`, if it is within `max_nodes`; it is valid in every other way since it was made."""
        self._check_count(len(graph.nodes))
        return graph

    def expand(self, graph: TaskGraph, node_id: str, items: JsonValue) -> TaskGraph:
        """`graph` with the fan `node_id` replaced by one task for each of `items`.

        What waited for the fan waits for all of its tasks; if there are none, for the node it fanned out over.
        Raises GraphError: `fan_out` if the node is no fan or `items` no list, `too_many` tasks or dependencies.
        """
        fan = graph.node(node_id)
        if fan.each is None:
            raise GraphError(f"task {node_id!r} does not fan out", "fan_out")
        if not isinstance(items, list):
            kind = type(items).__name__
            raise GraphError(f"{node_id!r} fans out over {fan.each!r}, whose value is no list but {kind}", "fan_out")
        dependents = graph.dependents(node_id)
        self._check_count(len(graph.nodes) - 1 + len(items))
        if len(items) * (len(fan.after) + len(dependents)) > MAX_EDGES:
            raise GraphError(f"task {node_id!r} fans out into more than {MAX_EDGES} dependencies", "too_many")
        tasks = tuple(_fan_task(fan, index, item) for index, item in enumerate(items))
        instead = tuple(task.id for task in tasks) or (fan.each,)
        waiting = set(dependents)
        nodes: list[TaskNode] = []
        for node in graph.nodes:
            if node.id == node_id:
                nodes += tasks
            elif node.id in waiting:
                nodes.append(node.model_copy(update={"after": _replaced(node.after, node_id, instead)}))
            else:
                nodes.append(node)
        return TaskGraph(nodes=tuple(nodes), output=graph.output)

    def _own_tasks(self, mission: Mission) -> TaskGraph:
        self._check_count(len(mission.tasks))
        nodes = tuple(_node(mission, draft) for draft in mission.tasks)
        if mission.output is not None:
            return TaskGraph(nodes=nodes, output=mission.output)
        check_nodes(nodes)  # first, so that a cycle is called a cycle and not a graph without an end
        waited_for = {name for node in nodes for name in node.after}
        ends = [node.id for node in nodes if node.id not in waited_for]
        if len(ends) > 1:
            names = ", ".join(ends[:10]) + (", ..." if len(ends) > 10 else "")
            raise GraphError(f"the graph ends in {len(ends)} tasks ({names}): name one as `output`", "unknown")
        return TaskGraph(nodes=nodes, output=ends[0])

    def _check_count(self, count: int) -> None:
        if count > self.max_nodes:
            raise GraphError(f"the graph has {count} tasks; the limit is {self.max_nodes}", "too_many")


def _fan_task(fan: TaskNode, index: int, item: JsonValue) -> TaskNode:
    task = fan.task.model_copy(update={"inputs": {**fan.task.inputs, "item": item}})
    return fan.model_copy(update={"id": f"{fan.id}[{index}]", "task": task, "each": None})


def _replaced(after: tuple[str, ...], name: str, instead: tuple[str, ...]) -> tuple[str, ...]:
    at = after.index(name)
    return tuple(dict.fromkeys((*after[:at], *instead, *after[at + 1 :])))


def _task(mission: Mission, **changes: object) -> Task:
    """A task as the mission has it, less `changes`."""
    limits = mission.limits
    fields: dict[str, object] = {
        "goal": mission.goal,
        "replicas": mission.replicas,
        "consensus": mission.consensus,
        "threshold": mission.threshold,
        "deadline_s": limits.deadline_s,
        "attempt_timeout_s": limits.attempt_timeout_s,
        "max_attempts": limits.max_attempts,
        "priority": limits.priority,
    }
    return Task.model_validate({**fields, **changes})


def _node(mission: Mission, draft: TaskDraft) -> TaskNode:
    """A user's task, with what it leaves open taken from the mission."""
    changes = {name: value for name, value in draft if name in Task.model_fields and value is not None}
    if draft.consensus not in (None, mission.consensus):
        changes.setdefault("threshold", None)  # the mission's own belongs to its own consensus
    if mission.docs is not None:
        changes["inputs"] = {"docs": mission.docs, **draft.inputs}
    try:
        task = _task(mission, **changes)
    except ValidationError as error:  # its own fields do not go with the mission's
        [first, *_] = error.errors(include_url=False, include_input=False)
        raise MissionError(f"task {draft.id!r}: {first['msg'].removeprefix('Value error, ')}") from None
    return TaskNode(id=draft.id, task=task, after=draft.after, each=draft.each, needs=draft.needs)


def _with_review(mission: Mission, graph: TaskGraph) -> TaskGraph:
    """The graph with the mission's own review at its output, as far as that task says nothing else itself."""
    draft = next((draft for draft in mission.tasks if draft.id == graph.output), None)
    if mission.review == "never" or (draft is not None and draft.review is not None):
        return graph
    own = {name for name in _REVIEW if draft is not None and getattr(draft, name) is not None}
    rule = {name: getattr(mission, name) for name in _REVIEW if name not in own}
    output = graph.node(graph.output)
    held = output.model_copy(update={"task": output.task.model_copy(update=rule)})
    return TaskGraph(nodes=tuple(held if node is output else node for node in graph.nodes), output=graph.output)


def _brief(mission: Mission) -> TaskGraph:
    """Plan, extract from every shard, judge the quotes, compose the answer.

    Extraction does not stop early: every dissenting reply is reported, and the answer must not depend on which of them
    came first. Its replicas differ in policy, since three of the same would agree on the same mistake.
    """
    single = {"replicas": 1, "consensus": Consensus.MAJORITY, "threshold": None}
    question: dict[str, JsonValue] = {"question": mission.goal, "replicas": mission.replicas}
    planned = _task(mission, **single, role="planner", inputs={**question, "docs": mission.docs})
    most_s = EXTRACTION_SHARE * mission.limits.deadline_s
    extracted = _task(mission, role="worker", early_stop=False, different_policies=True, deadline_s=most_s)
    judged = _task(mission, **single, role="judge")
    vote: dict[str, JsonValue] = {"consensus": mission.consensus.value, "threshold": mission.threshold}
    composed = _task(mission, **single, role="composer", inputs={**question, **vote, "model": mission.model})
    return TaskGraph(
        nodes=(
            TaskNode(id="plan", task=planned),
            TaskNode(id="extract", task=extracted, after=("plan",), each="plan"),
            TaskNode(id="judge", task=judged, after=("plan", "extract"), needs="settled"),
            TaskNode(id="compose", task=composed, after=("judge",)),
        ),
        output="compose",
    )
