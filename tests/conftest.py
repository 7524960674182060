"""One Ray for the whole session of tests: on loopback, with a temp dir and ports of its own, ended with the session."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: tests run side by side, and waiting threads would spin

from chimera import AgentSpec, Settings, SwarmCoordinator, Task, TaskResult
from chimera.core.types import Isolation

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


@pytest.fixture(scope="session")
def shared_swarm(local_ray: Settings, short_tmp: Path) -> Iterator[SwarmCoordinator]:
    """One swarm for the tests that do it no harm. Each uses a role, and so agents, of its own."""
    settings = Settings(address=local_ray.address, cells=2, home=short_tmp / "home")
    swarm = SwarmCoordinator(max_agents=300, settings=settings)
    asyncio.run(swarm.__aenter__())
    yield swarm
    asyncio.run(swarm.__aexit__(None, None, None))


class Crew:
    """A swarm, and a role in it that no other test uses."""

    def __init__(self, swarm: SwarmCoordinator, role: str) -> None:
        self.swarm = swarm
        self.role = role

    async def spawn(self, *policies: str, isolation: Isolation = Isolation.PACKED) -> None:
        specs = [AgentSpec(role=self.role, policy=f"tests.policies:{p}", isolation=isolation) for p in policies]
        await self.swarm.spawn_agents(specs)

    def task(self, **fields: Any) -> Task:
        return Task(**{"goal": "what is it?", "role": self.role, "replicas": 3, "deadline_s": 30.0, **fields})

    async def submit(self, **fields: Any) -> TaskResult:
        return await self.swarm.submit_task(self.task(**fields))


@pytest.fixture
def crew(shared_swarm: SwarmCoordinator, request: pytest.FixtureRequest) -> Crew:
    """The session's swarm: for tests that do it no harm."""
    return Crew(shared_swarm, f"r{zlib.crc32(request.node.nodeid.encode()):08x}")


@pytest.fixture
async def own_crew(local_ray: Settings, home: Path) -> AsyncIterator[Crew]:
    """A swarm of at most 50 agents in two cells: for tests that kill parts of it, or count them."""
    settings = Settings(address=local_ray.address, cells=2)
    async with SwarmCoordinator(max_agents=50, settings=settings) as swarm:
        yield Crew(swarm, "analyzer")
