"""`ray job submit` of jobs/mission.py on a cluster started as the docs say, with token authentication."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port

pytestmark = pytest.mark.cluster

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
PR_SET_PDEATHSIG = 1

MISSIONS_AS_JOBS = ("examples/missions/datasets.yaml", "examples/missions/own_agent.yaml")

DUEL = "jobs/duel.py oracle:p=0.6 oracle:p=0.9 --env mult8-v0"
VALIDATE = "jobs/validate.py examples/arena/validator.yaml --once --dry-run"

WATCH = "jobs/watch.py examples/watching/server.csv --limit memory_percent=90 --shards 2"

SUBMITTED = (*(f"jobs/mission.py --mission {mission}" for mission in MISSIONS_AS_JOBS), DUEL, VALIDATE, WATCH)
"""Those that this module submits; the docs may name no others."""


@dataclass(frozen=True)
class Head:
    environment: dict[str, str]
    dashboard: str


def marked(marker: str) -> list[int]:
    """Processes that carry our marker in their environment: they are ours, whoever their parent is now."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def end(process: subprocess.Popen[bytes], marker: str) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
    for sign in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + 5
        while (left := marked(marker)) and time.monotonic() < until:
            for pid in left:
                try:
                    os.kill(pid, sign)
                except ProcessLookupError:
                    continue
            time.sleep(0.2)
    assert marked(marker) == []


@pytest.fixture(scope="module")
def head(short_tmp: Path) -> Iterator[Head]:
    """`ray start --head` with RAY_AUTH_MODE=token, on loopback, with ports and a temp dir of its own."""
    folder = short_tmp / "head"
    folder.mkdir()
    [making] = re.findall(r"^umask 077; .*$", (ROOT / "docs/how-to.md").read_text(encoding="utf-8"), re.MULTILINE)
    bin_first = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", making], cwd=folder, env={"PATH": bin_first}, check=True)
    token = folder / "ray_token"
    assert token.stat().st_mode & 0o777 == 0o600
    dashboard = free_port()
    marker = f"CHIMERA_TEST_HEAD={secrets.token_hex(8)}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "CHIMERA_"))}
    environment = kept | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "AUTOSCALER_METRIC_PORT": str(free_port()),
        "DASHBOARD_METRIC_PORT": str(free_port()),
        "PATH": bin_first,
        "CHIMERA_HOME": str(folder / "home"),
    }
    name, _, value = marker.partition("=")
    command = [
        *RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={free_port()}",
        f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}", f"--temp-dir={folder / 'ray'}",
        "--num-cpus=2", "--object-store-memory=100000000", "--dashboard-agent-listen-port=0",
        "--min-worker-port=0", "--max-worker-port=0",
    ]  # fmt: skip
    libc = ctypes.CDLL(None)
    log = (folder / "head.log").open("wb")
    process = subprocess.Popen(
        command,
        env=environment | {name: value},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509
    )
    try:
        until = time.monotonic() + 90
        while b"This command will now block" not in (folder / "head.log").read_bytes():
            assert process.poll() is None and time.monotonic() < until, (folder / "head.log").read_text()
            time.sleep(0.2)
        yield Head(environment, f"http://127.0.0.1:{dashboard}")
    finally:
        end(process, marker)
        log.close()


def submit(head: Head, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command of the docs."""
    command = [*RAY, "job", "submit", "--working-dir", ".", "--", "python", *arguments]
    return subprocess.run(
        command,
        env=head.environment | {"RAY_API_SERVER_ADDRESS": head.dashboard} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.mark.timeout(240)
def test_a_mission_runs_as_a_ray_job_with_token_authentication(head: Head) -> None:
    done = submit(head, "jobs/mission.py", "--mission", MISSIONS_AS_JOBS[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[diabetes.rst:" in done.stdout and "10 feature variables" in done.stdout
    assert "succeeded" in done.stdout


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_an_agent_from_the_working_dir_runs_in_a_job(head: Head) -> None:
    done = submit(head, "jobs/mission.py", "--mission", MISSIONS_AS_JOBS[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 words" in done.stdout


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_duel_runs_as_a_ray_job(head: Head) -> None:
    done = submit(head, *DUEL.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the contender wins: 1 of 1 environment won" in done.stdout


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_validator_runs_as_a_ray_job(head: Head) -> None:
    done = submit(head, *VALIDATE.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "settled: " in done.stdout and "dry run, no weights set" in done.stdout


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_a_watch_runs_as_a_ray_job(head: Head) -> None:
    done = submit(head, *WATCH.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  failure  memory_percent  " in done.stdout and "7,200 readings of 5 metrics" in done.stdout


@pytest.mark.timeout(240)
def test_bad_input_fails_the_job(head: Head) -> None:
    done = submit(head, "jobs/mission.py", "--mission", "no/such.yaml")
    assert done.returncode != 0
    assert "no/such.yaml" in done.stdout


@pytest.mark.timeout(240)
def test_without_the_token_nothing_runs(head: Head, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("0" * 64)
    done = submit(
        head, "jobs/mission.py", "--mission", "examples/missions/datasets.yaml", RAY_AUTH_TOKEN_PATH=str(wrong)
    )
    assert done.returncode != 0
    assert "diabetes.rst" not in done.stdout
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head.dashboard}/api/jobs/", timeout=10)
