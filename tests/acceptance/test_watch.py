"""`chimera watch` as a user runs it: in processes of its own, every command of its docs among them."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from chimera import Settings
from chimera.anomaly.checks import check_detector
from chimera.core.watching import AnomalyDetected
from examples.watching import limits, push, server
from examples.watching.detector import StepDetector
from tests.acceptance.test_docs import commands
from tests.conftest import ROOT, free_port

SERVER = "examples/watching/server.csv"

WITHOUT_RAY = """
import sys

sys.modules.update(dict.fromkeys(["ray", "bittensor", "openai", "matplotlib"], None))
from chimera.cli.main import main
main()
"""


def environment() -> dict[str, str]:
    """Ours, but that output is buffered as it usually is, and what Ray told this process is not handed on."""
    kept = {k: value for k, value in os.environ.items() if k != "PYTHONUNBUFFERED" and not k.startswith("RAY_ENABLE")}
    return kept | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def chimera(*arguments: str, cwd: Path = ROOT, timeout_s: float = 200) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chimera", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )


class _Metrics(BaseHTTPRequestHandler):
    """As much of a Prometheus server, and of an endpoint, as a watch asks for."""

    def do_GET(self) -> None:
        self._answer("text/plain", b"process_load 1.5\nother 2\n")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        value = {"values": [[time.time(), "1"]]} if "range" in self.path else {"value": [time.time(), "1"]}
        kind = "matrix" if "range" in self.path else "vector"
        result = {"resultType": kind, "result": [{"metric": {"__name__": "up", "job": "x"}, **value}]}
        self._answer("application/json", json.dumps({"status": "success", "data": result}).encode())

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture(scope="module")
def metrics() -> Iterator[str]:
    """HOST:PORT of such a server."""
    serving = ThreadingHTTPServer(("127.0.0.1", 0), _Metrics)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{serving.server_port}"
    serving.shutdown()


WATCHES = [line for line in commands() if line.startswith("chimera watch ")]
EVALUATES = [line for line in commands() if line.startswith("chimera anomaly evaluate ")]
FORECASTS = [line for line in commands() if line.startswith("chimera anomaly forecast ")]


def test_the_docs_have_every_source_and_every_option() -> None:
    text = (ROOT / "docs/watching.md").read_text(encoding="utf-8")
    help_text = chimera("watch", "--help").stdout
    assert set(re.findall(r"--[a-z][a-z-]+", help_text)) - {"--help"} == set(
        re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE)
    )
    shown = " ".join(WATCHES)
    assert all(word in shown for word in (".csv", "prometheus:", "scrape:", "statsd:", "otlp:", "http:", "--ray"))
    assert set(re.findall(r"--[a-z][a-z0-9-]+", chimera("anomaly", "evaluate", "--help").stdout)) - {"--help"} <= set(
        re.findall(r"--[a-z][a-z0-9-]+", text)
    )


@pytest.mark.cluster
@pytest.mark.timeout(240)
@pytest.mark.parametrize("line", WATCHES)
def test_a_watch_of_the_docs_runs(line: str, metrics: str, local_ray: Settings, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    line = re.sub(r"(statsd|otlp|http):127\.0\.0\.1:\d+", lambda found: f"{found[1]}:127.0.0.1:{free_port()}", line)
    words = shlex.split(line.replace("127.0.0.1:9090", metrics))[1:]
    if "--ray" in words or "--shards" in words:
        words += ["--address", local_ray.address]
    done = chimera(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\S+: [\d,]+ readings? of [\d,]+ metrics?; .* failure warnings?; refused: ", done.stderr, re.M)
    assert "Traceback" not in done.stderr
    if "scrape:" in line or "prometheus:" in line:
        assert ": 0 readings" not in done.stderr
    if "--plot" in words:
        assert (tmp_path / words[words.index("--plot") + 1]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.soak
@pytest.mark.timeout(240)
@pytest.mark.parametrize("line", EVALUATES)
def test_an_evaluation_of_the_docs_runs(line: str) -> None:
    done = chimera(*shlex.split(line)[1:])
    assert done.returncode == 0, done.stderr
    assert re.search(r"nab +│", done.stdout) and "synthetic/clean" in done.stdout and "false warnings" in done.stdout


@pytest.mark.timeout(120)
@pytest.mark.parametrize("line", FORECASTS)
def test_a_forecast_of_the_docs_runs(line: str) -> None:
    words = shlex.split(line)[1:]
    assert set(re.findall(r"--[a-z]+", chimera("anomaly", "forecast", "--help").stdout)) - {"--help"} <= set(
        re.findall(r"--[a-z]+", " ".join(FORECASTS))
    )
    done = chimera(*words)
    assert done.returncode == 0, done.stderr
    steps = int(words[words.index("--horizon") + 1])
    if "--json" in words:
        assert len(json.loads(done.stdout)["forecast"]) == steps
    else:
        assert len(done.stdout.splitlines()) == 2 + steps


LOOKS_AHEAD = """
def detector(stream):
    points = list(stream)
    for point in points:
        yield 0.0, False, None
"""

BLIND = """
def detector(stream):
    for time, value in stream:
        yield 0.0, False, None
"""


@pytest.mark.timeout(240)
def test_an_evaluation_takes_any_detector_that_does_not_look_ahead(tmp_path: Path) -> None:
    (tmp_path / "ahead.py").write_text(LOOKS_AHEAD)
    (tmp_path / "blind.py").write_text(BLIND)
    evaluate = ("anomaly", "evaluate", "--seeds", "1", "--json", "--detector")
    ahead = chimera(*evaluate, "ahead:detector", cwd=tmp_path)
    assert ahead.returncode == 2 and "looks ahead" in ahead.stderr
    blind = chimera(*evaluate, "blind:detector", cwd=tmp_path)
    assert blind.returncode == 0, blind.stderr
    parts = json.loads(blind.stdout)["parts"]
    assert parts["synthetic"]["found"] == 0 and parts["synthetic"]["windows"] == 48
    for wrong in ("nothing:detector", "blind:none", "blind"):
        assert chimera(*evaluate, wrong, cwd=tmp_path).returncode == 2
    assert chimera("anomaly", "evaluate", "--seeds", "0").returncode == 2


def test_a_file_needs_no_ray_and_json_stands_alone() -> None:
    command = [sys.executable, "-c", WITHOUT_RAY, "watch", SERVER, "--limit", "memory_percent=90", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert all({"metric", "timestamp", "value", "kind", "score"} <= each.keys() for each in told)
    kinds = {(each["metric"], each["kind"]) for each in told}
    assert {("requests_per_s", "drop"), ("latency_ms", "spike"), ("memory_percent", "failure")} <= kinds
    assert len(done.stderr.splitlines()) == 1 and "7,200 readings of 5 metrics" in done.stderr


def started(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "chimera", "watch", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env={**environment(), "TERM": "xterm"}, stdin=subprocess.PIPE, stdout=stdout,
        stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip


def feed(process: subprocess.Popen[str], rows: range) -> None:
    assert process.stdin is not None
    for at in rows:
        value = (at * 37 % 11) / 10 + (500 if at % 300 in (250, 251, 252) else 0)
        process.stdin.write(f"{1_700_000_000 + 10 * at},{value}\n")
    process.stdin.flush()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_alerts_come_while_a_pipe_is_open_and_a_signal_ends_it_well(number: signal.Signals) -> None:
    process = started("-", "--json")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("time,load\n")
    feed(process, range(270))
    first = json.loads(process.stdout.readline())  # it hangs here where lines are kept back
    assert first["metric"] == "load" and first["kind"] == "spike"
    process.send_signal(number)
    out, told = process.communicate(timeout=30)
    assert process.returncode == 0 and re.search(r"\d+ readings of 1 metric; 1 anomaly \(1 spike\)", told)
    assert out == "" and "Traceback" not in told


@pytest.mark.timeout(120)
def test_whatever_was_answered_202_before_sigterm_is_judged() -> None:
    process = started("http:127.0.0.1:0", "--json")
    assert process.stderr is not None
    listening, at, url = process.stderr.readline().split()
    assert (listening, at) == ("listening", "at") and url.endswith("/readings")
    accepted = 0
    for part in range(8):
        readings = [
            {"metric": f"m{at % 100}", "timestamp": 1_700_000_000 + part * 50 + at // 100, "value": at * 37 % 11}
            for at in range(5_000)
        ]
        request = Request(url, json.dumps(readings).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as answer:
            assert answer.status == 202
            accepted += json.load(answer)["accepted"]
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0 and accepted == 40_000
    assert f": {accepted:,} readings of 100 metrics; " in told and "refused: none" in told


@pytest.mark.timeout(120)
def test_a_reader_that_leaves_ends_the_watch() -> None:
    process = started("-", "--json")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("time,load\n")
    process.stdout.close()
    process.stdout = None
    feed(process, range(600))
    assert process.stderr is not None
    assert "readings of 1 metric" in process.stderr.readline()
    assert process.wait(30) == 0
    for stream in (process.stdin, process.stderr):
        stream.close()


@pytest.mark.timeout(120)
def test_a_terminal_has_a_live_table() -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 140, 0, 0))
    process = started("-", stdout=follower)
    os.close(follower)
    assert process.stdin is not None
    process.stdin.write("time,load\n")
    process.stdin.flush()
    feed(process, range(270))
    seen, until = b"", time.monotonic() + 60
    while time.monotonic() < until and b"spike" not in seen:
        if select.select([leader], [], [], 0.2)[0]:
            seen += os.read(leader, 65_536)
    process.send_signal(signal.SIGINT)
    reading = threading.Thread(target=process.wait, args=(30,))
    reading.start()
    while reading.is_alive() or select.select([leader], [], [], 0.0)[0]:
        try:
            if select.select([leader], [], [], 0.1)[0]:
                seen += os.read(leader, 65_536)
        except OSError:  # it has been hung up
            break
    reading.join()
    os.close(leader)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 0 and "readings of 1 metric; 1 anomaly (1 spike)" in told, told
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1
    assert re.search(rb"load +[\d.]+ +[\d.]+", seen)


def test_the_file_of_the_examples_is_what_its_script_writes() -> None:
    out = io.StringIO()
    server.write(out)
    assert (ROOT / SERVER).read_text(encoding="utf-8") == out.getvalue()


def test_the_examples_do_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    found = asyncio.run(push.main())
    assert {alert.metric for alert in found} == {f"latency_ms{{host={host}}}" for host in "abc"}
    assert all(isinstance(alert, AnomalyDetected) and alert.value > alert.expected for alert in found)
    [warning] = asyncio.run(limits.main())
    assert (warning.metric, warning.limit) == ("memory_percent", 90.0) and 60 < warning.in_s <= 600
    check_detector(StepDetector)
    assert "2,700 readings of 3 metrics" in capsys.readouterr().out
