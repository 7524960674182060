"""Ray's own metrics port serves what a swarm publishes."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from typing import Any

import pytest
import ray

from chimera.actors.metrics import METRICS, SwarmMetrics
from chimera.core.config import Settings
from chimera.swarm.status import SwarmStatus
from tests.made_status import made_status

pytestmark = pytest.mark.cluster

SERIES = re.compile(r"^ray_(chimera_\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)


class Publisher:
    """What a coordinator does with its status."""

    def __init__(self) -> None:
        self._metrics = SwarmMetrics()

    def publish(self, status: SwarmStatus) -> None:
        self._metrics.publish(status)


def scrape(name: str) -> list[tuple[str, dict[str, str], float]]:
    """This swarm's series: metric, labels, value."""
    [node] = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        found = SERIES.findall(answer.read().decode())
    told = [(metric, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for metric, labels, value in found]
    return [(metric, labels, value) for metric, labels, value in told if labels.get("swarm") == name]


@pytest.mark.timeout(150)
async def test_a_scrape_finds_every_series_under_its_name(local_ray: Settings) -> None:
    status = made_status(name="swarm-scraped")
    expected = SwarmMetrics().samples(status)
    publisher: Any = ray.remote(Publisher).options(num_cpus=0).remote()
    try:
        for _ in range(60):
            await publisher.publish.remote(status)
            told = await asyncio.to_thread(scrape, status.swarm)
            if len(told) >= len(expected):
                break
            await asyncio.sleep(1.0)
    finally:
        ray.kill(publisher)
    found = {(metric, tuple(labels[key] for key in METRICS[metric][1])): value for metric, labels, value in told}
    assert found == {(sample.metric, sample.labels): pytest.approx(sample.value) for sample in expected}
    assert len(told) == len(expected) <= 200
