"""Chimera and its peers at the same work, side by side: the table of README.md.

    python -m bench.peers [--tasks 5000] [--rounds 3] [--think MS] [--consensus K] [--peers dask,celery] [--json]

Every run has processes, ports and a directory of its own, and ends with them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.peers.catalog import PEERS, Peer
from bench.peers.compare import compare, least_ratio, table
from bench.peers.measure import PROCESSES, WINDOW, Figures

ROOT = Path(__file__).resolve().parents[2]
STOP_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--think", type=float, default=0.0, help="milliseconds that an agent takes to reply")
    parser.add_argument("--consensus", type=int, default=1, help="agents asked for each task; their majority decides")
    parser.add_argument("--agents", type=int, default=1_000, help="agents of Chimera's swarm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS), help="which, with commas between")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds that one run may take")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run in progress is ended too
    if unknown := set(options.peers.split(",")) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    work = [f"--{name}={getattr(options, name)}" for name in ("tasks", "think", "consensus")]
    chimera = Peer("chimera", "", options.agents, PROCESSES, "in the journal", "each write")

    def run(peer: Peer) -> Figures:
        if peer is not chimera:
            return Figures(**child([sys.executable, "-m", "bench.peers.run", peer.name, *work], options.timeout))
        swarm = [f"--agents={options.agents}", f"--cells={PROCESSES}", f"--window={WINDOW // options.consensus}"]
        command = [str(Path(sys.executable).with_name("chimera")), "bench", "swarm", *swarm, *work]
        return swarm_figures(child([*command, "--address=local", "--json"], options.timeout))

    rows = compare(chimera, [PEERS[name] for name in options.peers.split(",")], options.rounds, run)
    least = least_ratio(rows)
    if options.json:
        print(json.dumps({"rounds": options.rounds, "least_ratio": least, "rows": [row.as_dict() for row in rows]}))
        return
    print(table(rows))
    if least is not None:
        print(f"\nleast ratio among peers that acknowledge or journal each task: {least:.2f}")


def swarm_figures(said: dict[str, Any]) -> Figures:
    """What `chimera bench swarm --json` prints, as the peers' figures."""
    if not said["journaled"]:
        raise SystemExit("chimera ran without its journal: there is nothing to compare")
    return Figures(
        tasks_per_s=said["tasks_per_s"],
        p50_ms=said["latency_ms"]["p50"],
        p95_ms=said["latency_ms"]["p95"],
        cpu_s_per_1000_tasks=said["cpu_s_per_1000_tasks"],
        total_rss_mb=said["total_rss_mb"],
        lost=said["lost"] + said["wrong"],
        duplicated=said["duplicated"],
    )


def child(command: list[str], timeout_s: float) -> dict[str, Any]:
    """Run a benchmark in a directory of its own (its path is short: Ray puts sockets in it); the JSON object it prints.

    One that fails or hangs ends this program: it has no place in a table.
    """
    with tempfile.TemporaryDirectory(prefix="p", ignore_cleanup_errors=True) as folder:
        log = Path(folder, "stderr.log")
        with log.open("wb") as stderr:
            running = subprocess.Popen(
                command, cwd=ROOT, env=_environment(folder), stdout=subprocess.PIPE, stderr=stderr, text=True,
                start_new_session=True,
            )  # fmt: skip
            try:
                out, _ = running.communicate(timeout=timeout_s)
            except BaseException as error:  # also Ctrl-C: nothing may go on behind
                _stop(running)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise SystemExit(f"{' '.join(command)}: no answer in {timeout_s:.0f} s") from error
                raise
        found = re.search(r"^\{", out, re.MULTILINE)
        if running.returncode or found is None:
            raise SystemExit(f"{' '.join(command)}: exit {running.returncode}\n{out}\n{log.read_text()[-2_000:]}")
        said: dict[str, Any] = json.JSONDecoder().raw_decode(out, found.start())[0]
        return said


def _stop(running: subprocess.Popen[str]) -> None:
    """Let it end what it started; then end what is left of its group."""
    running.terminate()
    with suppress(subprocess.TimeoutExpired):
        running.communicate(timeout=STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def _environment(folder: str) -> dict[str, str]:
    """This process's environment without anybody's Ray or Chimera, and a fresh one in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CHIMERA_"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "AUTOSCALER_METRIC_PORT": str(_free_port()),
        "DASHBOARD_METRIC_PORT": str(_free_port()),
        "CHIMERA_HOME": f"{folder}/home",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
