"""Trials behind real walls: room for tests that start many threads, and none to reach who reports on them."""

from __future__ import annotations

import pytest

from chimera.core.errors import SandboxUnavailable
from chimera.healing.sandbox import Sandbox, open_sandbox
from chimera.healing.trial import Expected, Suite, Trial

THREADS = b"""
import threading

def test_many_at_once():
    gate = threading.Event()
    threads = [threading.Thread(target=gate.wait) for _ in range(120)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(30)
"""

REACHING = b"""
import ctypes, errno, os

def refused(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(number, *arguments) == -1 and ctypes.get_errno() == errno.EPERM

def out_of_reach(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return True
    return False

def test_the_runner_is_out_of_reach():
    for pid in (1, os.getppid(), os.getpid()):
        for name in ("mem", "maps", "environ", "cmdline", "fd"):
            assert out_of_reach(f"/proc/{pid}/{name}"), (pid, name)

def test_nobody_is_watched():
    if os.uname().machine == "x86_64":
        assert refused(294, 0) and refused(253)  # inotify_init1, inotify_init
"""


@pytest.fixture(scope="module", params=["bwrap", "landlock"])
def walls(request: pytest.FixtureRequest) -> Sandbox:
    try:
        return open_sandbox(request.param)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("tests", "names"),
    [(THREADS, ["test_many_at_once"]), (REACHING, ["test_the_runner_is_out_of_reach", "test_nobody_is_watched"])],
)
async def test_within_walls(walls: Sandbox, tests: bytes, names: list[str]) -> None:
    suite = Suite(name="visible", tests=("test_app.py",), files={"test_app.py": tests})
    expected = Expected(ids=frozenset(f"test_app.py::{name}" for name in names))
    report = await Trial(walls, wall_s=60.0).run({"app.py": b""}, suite, expected)
    assert report.ok, report.reason
