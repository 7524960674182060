"""What is exported stays bounded and whole, and the files in deploy/ speak of nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from chimera.actors.metrics import MAX_ROLES, METRICS, OTHER, Sample, SwarmMetrics
from chimera.swarm.status import RoleStatus
from tests.made_status import made_status

DEPLOY = Path(__file__).parents[3] / "deploy"
LABELS = {"swarm", "role", "kind", "outcome", "state", "percentile"}


def series(samples: list[Sample]) -> set[tuple[str, tuple[str, ...]]]:
    return {(sample.metric, sample.labels) for sample in samples}


@pytest.mark.parametrize("roles", [0, 1, 20, 10_000])
def test_at_most_200_series_however_many_roles(roles: int) -> None:
    samples = SwarmMetrics().samples(made_status(roles=roles))
    assert len(series(samples)) == len(samples) <= 200
    assert {sample.metric for sample in samples} == METRICS.keys() - (
        {"chimera_agents", "chimera_attempts_waiting"} if roles == 0 else set()
    )


def test_roles_that_come_and_go_add_no_series() -> None:
    metrics = SwarmMetrics()
    seen = set()
    for generation in range(20):
        roles = {f"r{generation}-{i}": RoleStatus(agents=1) for i in range(10)}
        seen |= series(metrics.samples(made_status(agents_by_role=roles)))
    assert len(seen) <= 200


def test_the_largest_roles_are_named_and_no_agent_is_left_out() -> None:
    metrics = SwarmMetrics()
    status = made_status(roles=20)
    for _ in range(2):
        samples = metrics.samples(status)
        agents = Counter({s.labels[0]: s.value for s in samples if s.metric == "chimera_agents"})
        named = {s.labels[0] for s in samples if s.metric == "chimera_agents"}
        assert named == {f"role-{i}" for i in range(20 - MAX_ROLES, 20)} | {OTHER}
        total = sum(s.value for s in samples if s.metric == "chimera_agents")
        assert total == sum(role.agents for role in status.agents_by_role.values())
        assert agents
    gone = metrics.samples(made_status(agents_by_role={OTHER: RoleStatus(agents=3, busy=1, waiting=2)}))
    assert Sample("chimera_agents", 2, (OTHER, "idle")) in gone
    assert Sample("chimera_agents", 0, ("role-19", "busy")) in gone, "a role that is gone is told as empty"


def test_values_are_the_status() -> None:
    status = made_status()
    samples = SwarmMetrics().samples(status)
    found = {(sample.metric, sample.labels): sample.value for sample in samples}
    assert found["chimera_cells", ("down",)] == 1 and found["chimera_nodes", ("alive",)] == 1
    assert found["chimera_managers", ("restarting",)] == 1
    assert found["chimera_missions", ("queued",)] == 5
    assert found["chimera_calls_total", ("saved",)] == 9
    assert found["chimera_spent_total", ("tokens",)] == 5_000
    assert found["chimera_reserved", ("usd",)] == 0.5
    assert found["chimera_latency_seconds", ("decision", "p95")] == pytest.approx(0.5, rel=0.05)
    assert found["chimera_failures_total", ("poison",)] == 1


def test_latencies_of_nothing_are_not_told_as_zero() -> None:
    samples = SwarmMetrics().samples(made_status(latencies={}))
    assert not [sample for sample in samples if sample.metric == "chimera_latency_seconds"]


def test_labels_are_those_that_stay_few() -> None:
    for name, (_, keys) in METRICS.items():
        assert re.fullmatch(r"chimera_[a-z_]+", name)
        assert set(keys) < LABELS and len(keys) <= 2


def test_without_ray_nothing_is_published() -> None:
    SwarmMetrics().publish(made_status())


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DEPLOY / "grafana" / "chimera.json").read_text(encoding="utf-8"))
    return loaded


def queries() -> list[str]:
    panels = dashboard()["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return found + [
        variable["query"]["query"]
        for variable in dashboard()["templating"]["list"]
        if isinstance(variable["query"], dict)
    ]


def test_the_dashboard_asks_for_what_is_exported_and_for_all_of_it() -> None:
    asked = {name for query in queries() for name in re.findall(r"\bray_(\w+)", query)}
    assert asked == METRICS.keys()


def test_the_dashboard_uses_the_labels_that_a_metric_has() -> None:
    for query in queries():
        used = {label for found in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", found)}
        used |= {
            label for found in re.findall(r"\{([^}]*)\}", query) for label in re.findall(r"(\w+)(?:=~?|!=|!~)", found)
        }
        for name in re.findall(r"\bray_(\w+)", query):
            assert used <= {"swarm", *METRICS[name][1]}, query


def test_the_panels_have_ids_titles_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) >= 8
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24
        taken |= cells
    for panel in panels:
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_prometheus_reads_the_file_that_ray_writes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = config["scrape_configs"]
    [discovery] = job["file_sd_configs"]
    assert all(path.endswith(f"/{PROMETHEUS_SERVICE_DISCOVERY_FILE}") for path in discovery["files"])


def test_every_metric_is_in_the_docs_with_its_labels() -> None:
    page = (DEPLOY.parent / "docs" / "observing.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `ray_")]
    told = {
        name: set(re.findall(r"`(\w+)`", labels))
        for names, labels in rows
        for name in re.findall(r"`ray_(\w+)`", names)
    }
    assert told == {name: set(keys) for name, (_, keys) in METRICS.items()}
