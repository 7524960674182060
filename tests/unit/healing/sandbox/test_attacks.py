"""An attacker's program gets nothing out of any sandbox, harms nothing around it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chimera.core.errors import SandboxUnavailable
from chimera.healing.sandbox import Limits, Sandbox, SandboxResult
from chimera.healing.sandbox.bwrap import Bwrap
from chimera.healing.sandbox.landlock import Landlock
from chimera.healing.sandbox.port import MiB

PROBER = Path(__file__).with_name("prober.py")

KINDS: dict[str, Callable[[], Sandbox]] = {"bwrap": Bwrap, "landlock": Landlock, "old": lambda: Landlock(abi=5)}
"""`old` is Landlock as Linux 6.10 has it, where it does not keep signals in."""


SMALL = Limits(wall_s=15.0, cpu_s=8.0, memory_bytes=128 * MiB, processes=20, output_bytes=100_000, disk_bytes=16 * MiB)


@pytest.fixture(params=["bwrap", "landlock"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    try:
        return KINDS[request.param]()
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@dataclass
class Scene:
    """What surrounds a run: secrets, listeners, a process to harm. `asked` tells the attacker where to look."""

    folder: Path
    outside: Path
    asked: dict[str, Any]
    victim: subprocess.Popen[bytes]

    @property
    def marker(self) -> str:
        return str(self.asked["marker"])

    def argv(self, attack: str) -> list[str]:
        return [sys.executable, "-I", "-S", "prober.py", attack, json.dumps(self.asked)]

    def processes(self) -> list[int]:
        """Those of the run that are still there: its arguments hold the marker."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                if self.marker.encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and int(pid) != self.victim.pid:
                    found.append(int(pid))
        return found

    def started(self) -> bool:
        """Whether the attack `sleep` has begun."""
        return (self.folder / "started").exists()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until that is so. The test's own time-out ends it."""
        while not holds():  # noqa: ASYNC110 (processes send no event)
            await asyncio.sleep(0.02)

    def untouched(self) -> None:
        """Nothing is left outside of the folder, nor of a kind in it that would give rights."""
        assert sorted(os.listdir(self.outside)) == ["secret", "spare"]
        assert (self.outside / "secret").read_text() == self.marker
        for left in ("/dev/shm", "/tmp", "/var/tmp", "/dev/mqueue"):
            assert not Path(left, self.marker).exists()
        keys = [line.split()[0] for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
        assert str(self.asked["key"]) not in keys
        assert [path for path in self.folder.iterdir() if path.lstat().st_mode & 0o6000] == []


@pytest.fixture
def scene(tmp_path: Path, short_tmp: Path) -> Iterator[Scene]:
    marker = f"mark{secrets.token_hex(8)}"
    folder, outside = tmp_path / "work", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    shutil.copy(PROBER, folder)
    (outside / "secret").write_text(marker)
    (outside / "secret").chmod(0o640)
    (outside / "spare").write_text(marker)
    code = "import time; time.sleep(600)"
    victim = subprocess.Popen([sys.executable, "-c", code, marker], env={"TOKEN": marker}, cwd=outside)
    path, datagrams = str(short_tmp / f"{marker}.s"), str(short_tmp / f"{marker}.d")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letters,
    ):
        unix.bind(path)
        unix.listen()
        abstract.bind(f"\0{marker}")
        abstract.listen()
        letters.bind(datagrams)
        asked = {
            "outside": str(outside),
            "marker": marker,
            "victim": victim.pid,
            "port": tcp.getsockname()[1],
            "path": path,
            "datagrams": datagrams,
            "abstract": f"\0{marker}",
            "key": int(marker[4:11], 16),
        }
        yield Scene(folder, outside, asked, victim)
    victim.kill()
    victim.wait()


async def run(sandbox: Sandbox, scene: Scene, attack: str, limits: Limits = SMALL) -> SandboxResult:
    result = await sandbox.run(scene.argv(attack), folder=scene.folder, limits=limits)
    assert scene.processes() == []
    return result


@pytest.mark.parametrize("sandbox", sorted(KINDS), indirect=True)
async def test_nothing_is_got(sandbox: Sandbox, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", scene.marker)
    kept = os.open(scene.outside / "secret", os.O_RDONLY)
    os.set_inheritable(kept, True)
    before = os.stat(scene.outside / "secret")
    result = await run(sandbox, scene, "all", Limits(wall_s=60.0))
    os.close(kept)
    assert result.exit_code == 0, result.stderr
    got = json.loads(result.stdout)
    assert len(got) >= 50
    assert {name: value for name, value in got.items() if value} == {}
    assert scene.victim.poll() is None
    after = os.stat(scene.outside / "secret")
    assert (after.st_mode, after.st_mtime, after.st_nlink) == (before.st_mode, before.st_mtime, before.st_nlink)
    scene.untouched()


WITHOUT_RIGHTS = {
    *"environment_of_the_parent environment_of_others command_lines_of_others memory_of_another".split(),
    *"folder_of_another secret_file network_here raw_and_netlink_sockets unix_socket abstract_unix_socket".split(),
    *"unix_socket_through_a_pair signal_to_another signal_through_a_pidfd limits_of_another".split(),
    *"priority_of_another processors_of_another symbolic_link_out hard_link_out rename_out_and_in".split(),
    *"write_to_a_secret truncate_a_secret delete_a_secret setuid_file setuid_file_made_so".split(),
    *"host_configuration privileges_to_gain personality names_of_files watch_of_files".split(),
}
"""What an ordinary user's program gets where there are no walls."""


def test_without_walls_the_attacks_succeed(scene: Scene) -> None:
    command = [sys.executable, "-I", "-S", str(PROBER), "look", json.dumps(scene.asked)]
    env = {"TOKEN": scene.marker}
    done = subprocess.run(command, cwd=scene.folder, env=env, capture_output=True, timeout=60, check=True)
    got = json.loads(done.stdout)
    assert {name for name in WITHOUT_RIGHTS if not got[name]} == set(), done.stderr


@pytest.mark.parametrize(
    ("attack", "limit"),
    [
        ("fork_bomb", "processes"),
        ("memory_bomb_of_many", "memory"),
        ("disk_fill", "disk"),
        ("disk_fill_without_names", "disk"),
        ("many_files", "disk"),
        ("deep_folders", "disk"),
        ("output_flood", "output"),
        ("sleep", "time"),
        ("spin", "cpu"),
        ("spin_many", "cpu"),
    ],
)
async def test_havoc_ends_at_its_limit(sandbox: Sandbox, scene: Scene, attack: str, limit: str) -> None:
    limits = SMALL.model_copy(update={"time": {"wall_s": 0.5}, "cpu": {"cpu_s": 0.6}}.get(limit, {}))
    result = await run(sandbox, scene, attack, limits)
    assert result.killed_for == limit, result
    assert result.timed_out is (limit == "time")
    assert len(result.stdout) <= limits.output_bytes
    assert result.truncated is (limit == "output")
    assert result.exit_code is None or result.exit_code


async def test_memory_of_one_process_is_refused(sandbox: Sandbox, scene: Scene) -> None:
    result = await run(sandbox, scene, "memory_bomb")
    assert b"MemoryError" in result.stderr or result.killed_for == "memory"
    result = await run(sandbox, scene, "map_shared")
    assert b"Cannot allocate memory" in result.stderr


async def test_files_open_at_once_are_bounded(sandbox: Sandbox, scene: Scene) -> None:
    result = await run(sandbox, scene, "open_files", SMALL.model_copy(update={"files": 64}))
    assert 32 < int(result.stdout) <= 64


@pytest.mark.parametrize("attack", ["daemon", "daemon_that_holds_the_output"])
@pytest.mark.parametrize("sandbox", sorted(KINDS), indirect=True)
async def test_no_process_survives(sandbox: Sandbox, scene: Scene, attack: str) -> None:
    result = await run(sandbox, scene, attack)
    assert (result.exit_code, result.stdout) == (0, b"left\n"), result


async def test_a_cancelled_run_is_ended(sandbox: Sandbox, scene: Scene) -> None:
    running = asyncio.create_task(sandbox.run(scene.argv("sleep"), folder=scene.folder))
    await scene.until(scene.started)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert scene.processes() == []


@pytest.mark.parametrize("sandbox", sorted(KINDS), indirect=True)
async def test_a_run_ends_with_the_process_that_started_it(sandbox: Sandbox, scene: Scene) -> None:
    kind = type(sandbox)
    options = f"abi={sandbox._abi}" if isinstance(sandbox, Landlock) else ""
    code = (
        f"import asyncio\nfrom pathlib import Path\nfrom {kind.__module__} import {kind.__name__} as kind\n"
        f"asyncio.run(kind({options}).run({scene.argv('sleep')!r}, folder=Path({str(scene.folder)!r})))"
    )
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={**os.environ, "TMPDIR": str(scene.outside)}
    )
    await scene.until(scene.started)
    starter.kill()
    await starter.wait()
    await scene.until(lambda: scene.processes() == [])
