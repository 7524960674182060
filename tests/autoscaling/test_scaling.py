"""A real cluster of several nodes on this machine, scaled by Ray's own autoscaler."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chimera import Settings
from tests.autoscaling.head import MARKER, ROOT, ScaledHead, processes

HERE = Path(__file__).parent

DIES = f"""
import os, signal, subprocess, sys
from pathlib import Path
from tests.autoscaling.head import start_guard
start_guard(sys.argv[1], Path(sys.argv[2]))
subprocess.Popen(["sleep", "600"], env={{"{MARKER}": sys.argv[1]}}, start_new_session=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.soak
@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_nodes_come_and_go_with_cells_and_with_requests(scaled_head: ScaledHead) -> None:
    assert scaled_head.alive() == 1 and scaled_head.nodes() == []
    printed = scaled_head.run_driver(HERE / "drive_scaling.py", timeout_s=240)
    assert "5 lapsed: 1 node" in printed
    assert scaled_head.alive() == 1 and scaled_head.nodes() == []


@pytest.mark.soak  # 100 s: what decides on nodes, and what asks Ray for them, have quick tests of their own
@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_a_swarm_brings_nodes_when_it_is_busy_and_gives_them_back(scaled_head: ScaledHead) -> None:
    printed = scaled_head.run_driver(HERE / "drive_swarm.py", timeout_s=360)
    assert "none lost" in printed and "the request is released" in printed
    assert scaled_head.alive() == 1 and scaled_head.nodes() == []


def test_a_test_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", DIES, "a-marker", str(folder)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -9
    until = time.monotonic() + 30
    while (list(processes("a-marker")) or folder.exists()) and time.monotonic() < until:
        time.sleep(0.05)
    assert list(processes("a-marker")) == []
    assert not folder.exists()


@pytest.mark.cluster
def test_where_nobody_scales_nothing_is_asked_for(local_ray: Settings) -> None:
    from chimera.actors import cluster, scaling

    assert not scaling.autoscaled()
    asyncio.run(scaling.request_cells("swarm-x", 5))
    asyncio.run(scaling.release("swarm-x"))
    assert cluster.find(scaling.HEADROOM) is None
    [node] = scaling.nodes()
    assert node.alive and node.head and node.cells == 0
    assert scaling.capacity().cells == int(node.resources["CPU"])
