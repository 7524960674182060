"""A federation over Ray: each sandbox an actor, one of them killed while it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from chimera import Settings
from chimera.actors import cluster
from chimera.sandbox.federation.report import RoundReport
from chimera.system.federating import federate
from tests.unit.sandbox.federation import tiny
from tests.unit.sandbox.federation.house import node, plan

pytestmark = pytest.mark.cluster

ENEMY, DIES = 3, 4


async def test_sandboxes_in_actors_train_on_when_one_is_killed(local_ray: Settings, tmp_path: Path) -> None:
    apps = {1: "honest", 2: "honest", ENEMY: "scaled", DIES: "deadly"}
    nodes = [node(tmp_path, node_id, app) for node_id, app in apps.items()]
    watched: list[RoundReport] = []
    federated = await federate(
        nodes,
        plan("fedmedian", malicious=1, rounds=4, round_s=60.0),
        tiny.blank(),
        settings=local_ray,
        watch=watched.append,
    )
    states = [{row.node_id: row.state for row in report.nodes} for report in federated.report.rounds]
    assert [each[DIES] for each in states][:2] == ["counted", "failed"]
    assert all(each[i] == "counted" for each in states for i in (1, 2, ENEMY))
    assert abs(tiny.mean(federated.arrays) / tiny.TARGET - 1) < 0.05
    assert watched == list(federated.report.rounds)
    assert not [name for name in cluster.names() if name.startswith("federation-")], "its actors end with it"
