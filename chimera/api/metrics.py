"""A swarm's status in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chimera.swarm.status import SwarmStatus


def exposition(status: SwarmStatus) -> str:
    """Every number of the status as a gauge, named after its place in it."""
    told = status.model_dump(mode="json", exclude={"nodes", "managers", "swarm", "pid"})
    lines = [f'chimera_up{{swarm="{status.swarm}"}} 1', f"chimera_nodes {len(status.nodes)}"]
    return "\n".join([*lines, *(f"{name} {value}" for name, value in _numbers("chimera", told))]) + "\n"


def _numbers(prefix: str, told: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in told.items():
        name = f"{prefix}_{''.join(c if c.isascii() and c.isalnum() else '_' for c in key)}"
        if isinstance(value, Mapping):
            yield from _numbers(name, value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value
