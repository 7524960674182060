"""One Ray for the whole session of tests: on loopback, with a temp dir and ports of its own, ended with the session."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chimera import Settings, SwarmCoordinator

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a CHIMERA_HOME of its own, and no settings from outside."""
    for name in [name for name in os.environ if name.startswith("CHIMERA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHIMERA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A temp dir with a short path: Ray puts sockets in it, whose paths have at most 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="ch"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def local_ray(short_tmp: Path) -> Iterator[Settings]:
    """A Ray in this process. Its processes end with this one, even if it is killed (Ray ties them to it)."""
    from chimera.actors import cluster

    os.environ.update(
        RAY_TMPDIR=str(short_tmp),
        AUTOSCALER_METRIC_PORT=str(free_port()),
        DASHBOARD_METRIC_PORT=str(free_port()),
    )
    connection = cluster.connect(Settings(address="local"))
    assert connection.started, "the tests must not join somebody else's Ray"
    yield Settings(address=connection.address)
    cluster.disconnect(connection)


@pytest.fixture
async def swarm(local_ray: Settings, home: Path) -> AsyncIterator[SwarmCoordinator]:
    """An empty swarm of at most 50 agents in two cells."""
    settings = Settings(address=local_ray.address, cells=2, stall_s=3.0)
    async with SwarmCoordinator(max_agents=50, settings=settings) as swarm:
        yield swarm
