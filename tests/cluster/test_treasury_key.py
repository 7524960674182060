"""Nobody but the vault has the CFO's key: not an actor, a worker, a file, an environment, an object or a log of Ray's.

The vault runs as a user of its own, Ray as another, and an actor that was taken over tries everything. Then all that
Ray's processes hold is searched for the key, by root, who may look: with a decoy that says whether the search finds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization

from chimera.treasury.ledger import LedgerRole
from chimera.treasury.vault.home import VaultHome, init
from tests.actors.in_process import until
from tests.cluster.treasury_chaos import SETTINGS
from tests.conftest import ROOT, free_port
from tests.unit.treasury.test_vault_process import in_child, looks_into

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a vault as somebody else"),
]

VAULT, AGENTS = "nobody", 65_533
"""The users of the vault and of Ray."""

PAGE = os.sysconf("SC_PAGE_SIZE")
MOST = 16 << 20
"""Bytes of a process that are read at once."""


@dataclass(frozen=True)
class Scene:
    """A treasury at work: `got` is what the spy got, `runner` is the process of `chimera treasury run`."""

    place: VaultHome
    runner: int
    vault: int
    session: Path
    dashboard: str
    token: str
    decoy: bytes
    got: dict[str, str]

    def key(self) -> dict[str, bytes]:
        """The key in every spelling that somebody may have left it in."""
        pem = (self.place.vault / "cfo-1.pem").read_text().partition("\n")[2]
        private = serialization.load_pem_private_key(pem.encode(), None)
        raw = private.private_bytes_raw()  # type: ignore[union-attr]
        return {
            "raw": raw,
            "hex": raw.hex().encode(),
            "base64": base64.b64encode(raw).rstrip(b"="),
            "PEM": pem.splitlines()[1].encode(),
        }


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    folder = Path(tempfile.mkdtemp(prefix="chk"))
    folder.chmod(0o755)
    ours, home = folder / "ray", folder / "home"
    for each in (ours, ours / "home"):
        each.mkdir()
        os.chown(each, AGENTS, AGENTS)
    home.mkdir()
    place = asyncio.run(init(home, user=VAULT, connect={LedgerRole.APP: (AGENTS,)}))
    place.config.write_text(f"{SETTINGS}connect: {{app: [{AGENTS}]}}\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CHIMERA_"))}
    kept |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": os.pathsep.join((str(ROOT), *site.getsitepackages())),
    }
    environment = {
        **kept,
        "RAY_TMPDIR": str(ours),
        "AUTOSCALER_METRIC_PORT": str(free_port()),
        "DASHBOARD_METRIC_PORT": str(free_port()),
        "HOME": str(ours / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = (folder / "log").open("ab")
    node = subprocess.Popen(
        [python(), "-m", "tests.cluster.treasury_spy"], cwd=ROOT, env=environment, user=AGENTS, group=AGENTS,
        extra_groups=[], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
    )  # fmt: skip
    runner: subprocess.Popen[bytes] | None = None
    try:
        told = _line(node, folder)
        runner = subprocess.Popen(
            [python(), "-m", "chimera", "treasury", "run", "--user", VAULT, "--address", told["address"]],
            cwd=ROOT, env={**kept, "CHIMERA_HOME": str(home)}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert runner.stderr is not None
        said = b""
        while b"the treasury runs" not in said:
            more = runner.stderr.readline()
            assert more, said.decode()
            said += more
        vault = int((place.vault / "vault.lock").read_text())
        decoy = secrets.token_hex(24)
        assert node.stdin is not None
        node.stdin.write(json.dumps({"home": str(home), "vault": vault, "decoy": decoy}).encode() + b"\n")
        node.stdin.flush()
        got = _line(node, folder)
        yield Scene(place, runner.pid, vault, ours, told["dashboard"], kept["RAY_AUTH_TOKEN"], decoy.encode(), got)
    finally:
        if runner is not None:
            runner.terminate()
            runner.wait(60)
        node.stdin.close()  # type: ignore[union-attr]
        try:
            node.wait(60)
        finally:
            log.close()
            for pid in processes(AGENTS):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(folder)


def python() -> str:
    """An interpreter that others may run too: ours can be in somebody's home."""
    for each in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if in_child(AGENTS, partial(_runs, each)) == "True":
            return each
    pytest.skip("no other user can run this Python")


def _runs(path: str) -> str:
    return str(os.access(path, os.X_OK))


def _line(node: subprocess.Popen[bytes], folder: Path) -> dict[str, str]:
    answers: IO[bytes] | None = node.stdout
    assert answers is not None
    line = answers.readline()
    assert line, (folder / "log").read_text()[-3_000:]
    found: dict[str, str] = json.loads(line)
    return found


def processes(uid: int) -> list[int]:
    """All of that user's."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return found


def memory(pid: int) -> Iterator[bytes]:
    """What a process has written and holds, the object store's pages with it; only what is really there."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pages:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end, rights = re.match(r"(\w+)-(\w+) (\S+)", line).groups()  # type: ignore[union-attr]
            if not rights.startswith("rw"):
                continue
            first, last = int(begin, 16) // PAGE, int(end, 16) // PAGE
            entries = np.frombuffer(os.pread(pages.fileno(), 8 * (last - first), 8 * first), dtype=np.uint64)
            there = np.flatnonzero(np.diff((entries >> np.uint64(63)).astype(np.int8), prepend=0, append=0))
            for start, stop in there.reshape(-1, 2):
                at, until = (first + int(start)) * PAGE, (first + int(stop)) * PAGE
                while at < until:
                    with suppress(OSError):  # let go meanwhile
                        yield os.pread(mem.fileno(), min(MOST, until - at), at)
                    at += MOST - 1_000 if until - at > MOST else MOST


def files(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.read_bytes()


def holders(scene: Scene, needles: dict[str, bytes]) -> set[tuple[str, str]]:
    """Which spelling is held where: by which process, or in Ray's files."""
    found = set()
    for pid in [*processes(AGENTS), scene.runner]:
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            texts = [*memory(pid), Path(f"/proc/{pid}/environ").read_bytes()]
        except OSError:
            continue
        found |= {(name, spelling) for text in texts for spelling, needle in needles.items() if needle in text}
    for text in files(scene.session):
        found |= {("files", spelling) for spelling, needle in needles.items() if needle in text}
    for path in ("/api/v0/actors?detail=1", "/api/v0/workers?detail=1", "/api/jobs/", "/nodes?view=summary"):
        asking = urllib.request.Request(f"{scene.dashboard}{path}", headers={"Authorization": f"Bearer {scene.token}"})
        with urllib.request.urlopen(asking, timeout=30) as answer:
            text = answer.read()
            found |= {(path, spelling) for spelling, needle in needles.items() if needle in text}
    return found


def test_what_the_spy_may_it_may(scene: Scene) -> None:
    """The tries below are refused for what they are, and not because nothing works."""
    assert scene.got["what it may: pay"] == "got paid"
    assert scene.got["what it may: ask for much"] == "got waiting"


def test_no_actor_reads_what_is_the_vaults_or_looks_into_it(scene: Scene) -> None:
    tries = [name for name in scene.got if name.startswith(("read", "list", "look", "trace", "write"))]
    assert len(tries) == 13
    assert {name: scene.got[name] for name in tries if "PermissionError" not in scene.got[name]} == {}


def test_no_actor_holds_a_key(scene: Scene) -> None:
    assert scene.got["a key in memory of the CFO"] == scene.got["a key in memory of the ledger"] == "got []"


def test_an_actor_at_the_apps_socket_decides_and_approves_nothing(scene: Scene) -> None:
    for name in (
        "approve",
        "sign as the CFO",
        "have agreed to what nobody asked for",
        "move what is not approved",
        "raise a cap",
        "change the rules",
        "let a stopped treasury spend",
        "make a payee who is paid by use",
    ):
        assert scene.got[name].startswith("got refused: "), (name, scene.got[name])
    assert scene.got["have it agreed to"] == "got ['ask']", "however it is asked, the vault judges for itself"
    for role in (LedgerRole.APPROVER, LedgerRole.OWNER):
        assert not scene.got[f"connect as {role}"].startswith("got"), scene.got


def test_the_key_is_nowhere_in_ray(scene: Scene) -> None:
    """Not in an actor's state however it would be pickled, a runtime environment, the object store, the key-value
    store of Ray's head, a log, or what the dashboard tells: all that is in memory or in files, and is searched."""
    key = scene.key()
    assert any(key["raw"] in text for text in memory(scene.vault)), "there it is, so it would be found elsewhere"
    found = holders(scene, {**key, "decoy": scene.decoy})
    assert {each for each in found if each[1] != "decoy"} == set()
    assert {"gcs_server", "ray::Spy", "files"} <= {name for name, _ in found}, "key-value store, objects, log"


async def test_one_user_for_all_keeps_memory_apart_and_not_files() -> None:
    """Where vault and agents are one user, no process sees the vault's memory, but each can read the key's file, as
    the kernel asks only who they are: give the vault a user of its own (`chimera treasury run --user`)."""
    home = Path(tempfile.mkdtemp(prefix="chk"))
    os.chmod(home, 0o755)
    try:
        place = await init(home, user=VAULT)
        uid = place.vault.stat().st_uid
        vault = await asyncio.create_subprocess_exec(
            *(python(), "-P", "-m", "chimera.treasury.vault", "--home", str(home)), user=uid, group=uid, cwd="/",
            extra_groups=[], env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *site.getsitepackages()))},
        )  # fmt: skip
        try:
            await until(place.socket(LedgerRole.APP).exists, 30)
            assert in_child(uid, lambda: looks_into(vault.pid)) == ""
            assert "PRIVATE KEY" in in_child(uid, (place.vault / "cfo-1.pem").read_text)
        finally:
            vault.terminate()
            await vault.wait()
    finally:
        shutil.rmtree(home)
