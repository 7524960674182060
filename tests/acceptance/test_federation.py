"""The federation's apps under Flower's own servers: a SuperLink and two SuperNodes on loopback, and `flwr run`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT, free_port

pytest.importorskip("flwr", reason="the extra `federation` is not installed")
pytest.importorskip("tomli", reason="Flower's commands need tomli")

EXAMPLE = ROOT / "examples" / "federation"

TARGET = 0.97

START_S, RUN_S = 60.0, 100.0


@contextmanager
def running(command: list[str], log: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server with a process group of its own, all of which is ended."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True)
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def until(done: Callable[[], Any], what: str, wait_s: float, logs: Path) -> Any:
    end = time.monotonic() + wait_s
    while not (found := done()):
        if time.monotonic() > end:
            told = "\n".join(f"--- {log.name}\n{log.read_text()[-3_000:]}" for log in sorted(logs.glob("*.log")))
            raise AssertionError(f"{what} took more than {wait_s} s\n{told}")
        time.sleep(0.2)
    return found


def environment(home: Path) -> dict[str, str]:
    bin_dir = str(Path(sys.executable).parent)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("FLWR_", "RAY_"))},
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }


def command(name: str) -> str:
    return str(Path(sys.executable).parent / name)


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_the_same_apps_run_under_a_superlink_and_two_supernodes(tmp_path: Path) -> None:
    env = environment(tmp_path / "flwr")
    fleet, control, app_io = free_port(), free_port(), free_port()
    (tmp_path / "flwr").mkdir()
    connection = (
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{control}"\ninsecure = true\n'
    )
    (tmp_path / "flwr" / "config.toml").write_text(connection)
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        records = np.random.default_rng(seed).normal(TARGET, 0.1, (500, 3))
        np.savetxt(tmp_path / name / "records.csv", records, delimiter=",")
    out = tmp_path / "out"
    superlink = [
        command("flower-superlink"),
        "--insecure",
        "--disable-runtime-dependency-installation",
        f"--fleet-api-address=127.0.0.1:{fleet}",
        f"--control-api-address=127.0.0.1:{control}",
        f"--serverappio-api-address=127.0.0.1:{app_io}",
    ]

    def supernode(name: str) -> list[str]:
        folder = tmp_path / name
        return [
            command("flower-supernode"),
            "--insecure",
            f"--superlink=127.0.0.1:{fleet}",
            f"--clientappio-api-address=127.0.0.1:{free_port()}",
            f'--node-config=folder="{folder}" table="{folder / "records.csv"}"',
        ]

    with (
        running(superlink, tmp_path / "superlink.log", env),
        running(supernode("a"), tmp_path / "a.log", env),
        running(supernode("b"), tmp_path / "b.log", env),
    ):
        logs = tmp_path
        until(lambda: "Control API" in (logs / "superlink.log").read_text(), "the SuperLink", START_S, logs)
        begun = subprocess.run(
            [command("flwr"), "run", str(EXAMPLE), "here", "--run-config", f'out="{out}" rounds=3'],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert begun.returncode == 0, begun.stdout + begun.stderr
        until((out / "federation.json").exists, "the run", RUN_S, logs)

    report = json.loads((out / "federation.json").read_text())
    assert report["stopped"] == "" and report["nodes"] == 2
    states = [[node["state"] for node in each["nodes"]] for each in report["rounds"]]
    assert states == [["counted", "counted"]] * 3
    assert report["record_privacy"]["epsilon"] == report["client_privacy"]["epsilon"] == "Infinity"
    assert report["rounds"][-1]["drift"] is not None
    with np.load(out / "generator.npz") as generator:
        assert abs(generator["arr_1"].mean() / TARGET - 1) < 0.05
    assert all((tmp_path / name / "generator.npz").exists() for name in "ab")
