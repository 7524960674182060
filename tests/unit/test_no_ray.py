"""The guard of conftest.py holds, whether Ray is imported before a test or inside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REACHES_RAY = """
import pytest
{top}

def test_init():
    import ray
    ray.init(address="local", num_cpus=1)

def test_first_remote():
    import ray
    ray.remote(lambda: 3).remote()

def test_without_ray():
    pass
"""


@pytest.mark.parametrize("top", ["", "import ray"])
def test_a_unit_test_that_starts_ray_fails(tmp_path: Path, top: str) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_reach.py").write_text(REACHES_RAY.format(top=top))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "2 failed, 1 passed" in done.stdout, done.stdout[-2000:]
    assert done.stdout.count("RayStarted: a unit test must not start Ray") >= 2
