"""A swarm's status as Ray metrics, which Prometheus scrapes from every node under the prefix `ray_`.

All are gauges, the totals too. Ray's agent never forgets a counter, and each swarm has a name of its own, so counters
would pile up on a cluster that lives long; a gauge is gone 20 seconds after its swarm has stopped setting it. `rate()`
reads totals the same either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import ray
from ray.util.metrics import Gauge

from chimera.core.types import Spend
from chimera.swarm.status import RoleStatus, SwarmStatus

MAX_ROLES = 16
"""Roles with series of their own. The others are added up as `other`."""

OTHER = "other"

METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "chimera_uptime_seconds": ("Since the coordinator started.", ()),
    "chimera_nodes": ("Nodes of the cluster, alive or dead.", ("state",)),
    "chimera_managers": ("Managers, up or restarting.", ("state",)),
    "chimera_cells": ("Cells, up or down.", ("state",)),
    "chimera_agents": ("Agents by role, idle or busy.", ("role", "state")),
    "chimera_attempts_waiting": ("Attempts that wait for an agent.", ("role",)),
    "chimera_missions": ("Missions that run, and that wait to be started.", ("state",)),
    "chimera_missions_admitted_total": ("Missions admitted, resumed ones among them.", ()),
    "chimera_missions_refused_total": ("Missions turned away at a limit.", ()),
    "chimera_missions_ended_total": ("Missions by the state they ended in.", ("state",)),
    "chimera_decisions_total": ("Tasks decided, by what their vote came to.", ("outcome",)),
    "chimera_failures_total": ("Attempts that failed.", ("kind",)),
    "chimera_calls_total": ("Attempts made, and votes saved by an early decision.", ("kind",)),
    "chimera_quarantined_total": ("Tasks put aside because they kill their hosts.", ()),
    "chimera_latency_seconds": ("Over the last 30 to 60 seconds.", ("kind", "percentile")),
    "chimera_reserved": ("Reserved for attempts in progress: usd, tokens, calls, seconds.", ("kind",)),
    "chimera_spent_total": ("Spent: usd, tokens, calls, seconds.", ("kind",)),
    "chimera_journal_events_total": ("Events made durable.", ()),
    "chimera_journal_appends_total": ("Appends to the journal.", ()),
}
"""What is exported: a description, and the labels besides `swarm`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The value of one series. `labels` are the values of the metric's labels, in their order."""

    metric: str
    value: float
    labels: tuple[str, ...] = ()


class SwarmMetrics:
    """Publishes one swarm's status. At most 200 series, whatever the number of agents and of roles."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}
        self._roles: set[str] = set()

    def publish(self, status: SwarmStatus) -> None:
        """Set every gauge; call it every few seconds. Without a Ray it does nothing."""
        if not ray.is_initialized():
            return
        for sample in self.samples(status):
            keys = METRICS[sample.metric][1]
            self._gauge(sample.metric).set(
                sample.value, {"swarm": status.swarm, **dict(zip(keys, sample.labels, strict=True))}
            )

    def samples(self, status: SwarmStatus) -> list[Sample]:
        """The series of this status. A role that once had its own keeps it, so that no line of a graph ends early."""
        roles = status.agents_by_role
        new = sorted(roles.keys() - self._roles - {OTHER}, key=lambda role: (-roles[role].agents, role))
        self._roles.update(new[: MAX_ROLES - len(self._roles)])
        return [*_places(status), *self._by_role(status), *_work(status), *_latencies(status), *_budget(status)]

    def _by_role(self, status: SwarmStatus) -> Iterator[Sample]:
        for role in sorted(self._roles):
            yield from _role(role, status.agents_by_role.get(role, RoleStatus()))
        rest = [counts for role, counts in status.agents_by_role.items() if role not in self._roles]
        if rest:
            yield from _role(
                OTHER,
                RoleStatus(
                    agents=sum(r.agents for r in rest),
                    busy=sum(r.busy for r in rest),
                    waiting=sum(r.waiting for r in rest),
                ),
            )

    def _gauge(self, metric: str) -> Gauge:
        if metric not in self._gauges:
            description, keys = METRICS[metric]
            self._gauges[metric] = Gauge(metric, description, ("swarm", *keys))
        return self._gauges[metric]


def _role(role: str, counts: RoleStatus) -> Iterator[Sample]:
    yield Sample("chimera_agents", counts.agents - counts.busy, (role, "idle"))
    yield Sample("chimera_agents", counts.busy, (role, "busy"))
    yield Sample("chimera_attempts_waiting", counts.waiting, (role,))


def _places(status: SwarmStatus) -> Iterator[Sample]:
    alive = sum(node.alive for node in status.nodes)
    managers_up = sum(manager.state == "up" for manager in status.managers)
    yield Sample("chimera_uptime_seconds", status.uptime_s)
    yield Sample("chimera_nodes", alive, ("alive",))
    yield Sample("chimera_nodes", len(status.nodes) - alive, ("dead",))
    yield Sample("chimera_managers", managers_up, ("up",))
    yield Sample("chimera_managers", len(status.managers) - managers_up, ("restarting",))
    yield Sample("chimera_cells", status.cells_up, ("up",))
    yield Sample("chimera_cells", status.cells - status.cells_up, ("down",))


def _work(status: SwarmStatus) -> Iterator[Sample]:
    missions = status.missions
    yield Sample("chimera_missions", missions.running, ("running",))
    yield Sample("chimera_missions", missions.queued, ("queued",))
    yield Sample("chimera_missions_admitted_total", missions.admitted)
    yield Sample("chimera_missions_refused_total", missions.refused)
    for state, count in missions.ended.items():
        yield Sample("chimera_missions_ended_total", count, (state,))
    for outcome, count in status.consensus.items():
        yield Sample("chimera_decisions_total", count, (outcome,))
    for kind, count in status.failures.items():
        yield Sample("chimera_failures_total", count, (kind,))
    yield Sample("chimera_calls_total", status.calls.made, ("made",))
    yield Sample("chimera_calls_total", status.calls.saved, ("saved",))
    yield Sample("chimera_quarantined_total", status.quarantined)
    yield Sample("chimera_journal_events_total", status.journal.events)
    yield Sample("chimera_journal_appends_total", status.journal.appends)


def _latencies(status: SwarmStatus) -> Iterator[Sample]:
    latencies = status.latencies
    for kind, found in (
        ("mission", latencies.mission_ms),
        ("decision", latencies.decision_ms),
        ("attempt", latencies.attempt_ms),
        ("overhead", latencies.overhead_ms),
    ):
        if found.count:
            for percentile, value_ms in (("p50", found.p50), ("p95", found.p95), ("p99", found.p99)):
                yield Sample("chimera_latency_seconds", value_ms / 1_000, (kind, percentile))


def _budget(status: SwarmStatus) -> Iterator[Sample]:
    for metric, spend in (
        ("chimera_reserved", status.budget.reserved),
        ("chimera_spent_total", status.budget.spent),
    ):
        for kind in Spend.model_fields:
            yield Sample(metric, getattr(spend, kind), (kind,))
