"""`af` as a user runs it: in processes of its own, every command of the docs among them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from chimera import Settings
from tests.acceptance.test_docs import PAGES, blocks
from tests.acceptance.test_run import actors, chimera
from tests.conftest import ROOT

AF = [sys.executable, "-c", "from chimera.cli.arena.main import main; main()"]

BEST = "5Ge54ZxWXnVhgLiTpZ7z5qtwkfkB7rEKAJpBT1dYj9iY3TmU"
"""The hotkey of the demo's best miner."""

A_STRANGER = """
import socket, sys

def refuse(*arguments, **options):
    raise AssertionError("an audit asks nobody")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
sys.modules.update(dict.fromkeys(["ray", "bittensor", "openai"], None))
from chimera.cli.arena.main import main
main()
"""


def af(
    *arguments: str, cwd: Path = ROOT, said: str = "", timeout_s: float = 110, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AF, *arguments],
        capture_output=True,
        text=True,
        input=said,
        timeout=timeout_s,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


@dataclass(frozen=True)
class Demo:
    """What `af validate --demo` printed, and where its evidence is."""

    events: list[dict[str, object]]
    blocks: Path

    @property
    def hotkey(self) -> str:
        return min(path.name for path in self.blocks.iterdir())


@pytest.fixture(scope="module")
def demo(local_ray: Settings, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    home = tmp_path_factory.mktemp("demo")
    done = af("validate", "--demo", "--json", "--address", local_ray.address, CHIMERA_HOME=str(home))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return Demo(events, Path(str(events[-1]["blocks"])))


def commands() -> list[str]:
    """Every `af` command that stands in a block of the docs."""
    lines = [line.split(" #")[0].strip() for body in blocks("") for line in body.splitlines()]
    return sorted({line for line in lines if line.startswith("af ")})


NEEDS_RAY = ("af duel", "af validate")


def test_every_command_and_every_option_is_in_the_docs() -> None:
    text = (ROOT / "docs/arena.md").read_text(encoding="utf-8")
    for command in ("duel", "env list", "env run", "validate", "verify", "blocks", "weights"):
        assert re.search(rf"^af {command}\b", text, re.MULTILINE), command
        for option in set(re.findall(r"--[a-z][a-z-]+", af(*command.split(), "--help", COLUMNS="200").stdout)):
            assert option == "--help" or option in text, f"{command} {option}"


@pytest.mark.cluster
@pytest.mark.timeout(240)
@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_docs_runs(line: str, demo: Demo, local_ray: Settings, tmp_path: Path) -> None:
    for word, stands_for in {"BLOCKS": str(demo.blocks), "HOTKEY": demo.hotkey}.items():
        line = line.replace(word, stands_for)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    if "proof.json" in line and ">" not in line:
        made = af("verify", str(demo.blocks), "--proof", f"{demo.hotkey}/0", "5")
        (tmp_path / "proof.json").write_text(made.stdout, encoding="utf-8")
    words = shlex.split(line.split(" > ")[0])[1:]
    if line.startswith(NEEDS_RAY):
        words += ["--address", local_ray.address]
    home = {"CHIMERA_HOME": str(demo.blocks.parent)} if words[0] == "weights" else {}
    done = af(*words, cwd=tmp_path, said="1\n" * 9, **home)
    assert done.returncode in ((0, 1) if words[:2] == ["env", "run"] else (0,)), done.stderr
    assert done.stdout.strip() and "Traceback" not in done.stderr


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_three_validators_give_the_best_of_three_miners_all_the_weight(demo: Demo) -> None:
    last = demo.events[-1]
    assert (last["event"], last["champion"]) == ("ended", BEST)
    settled = [event for event in demo.events if event["event"] == "settled"]
    assert len(settled) == 6 and len({str(event["hotkey"]) for event in settled}) == 3
    for event in settled:
        weights = event["weights"]
        assert isinstance(weights, dict) and len(weights) == 3
        assert {hotkey for hotkey, weight in weights.items() if weight} == {BEST} and weights[BEST] == 1.0
        assert event["receipt"] and not event["refused"]


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_a_stranger_with_no_wallet_no_network_and_no_ray_verifies_it(demo: Demo, tmp_path: Path) -> None:
    def audit(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", A_STRANGER, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "nobody"), "PYTHONPATH": str(ROOT)},
            check=False,
        )

    done = audit("verify", str(demo.blocks), "--json")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 3 and all(row["valid"] and row["samples"] for row in rows)
    block = min((demo.blocks / demo.hotkey).iterdir())
    copy = tmp_path / block.name
    data = block.read_bytes()
    at = data.index(b'"response":"') + len(b'"response":"')
    copy.write_bytes(data[:at] + (b"8" if data[at : at + 1] != b"8" else b"9") + data[at + 1 :])
    forged = audit("verify", str(copy))
    assert forged.returncode == 1 and "merkle: " in forged.stdout
    assert not (tmp_path / "nobody").exists()


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_a_duel_over_the_cluster_is_the_same_twice_and_json_stands_alone(local_ray: Settings, tmp_path: Path) -> None:
    told = []
    for at in "ab":
        samples = tmp_path / f"{at}.jsonl"
        done = chimera(
            "arena", "duel", "oracle:p=0.6", "oracle:p=0.9", "--json", "--seed", "again", "--samples", str(samples),
            "--plot", str(tmp_path / f"{at}.png"), "--address", local_ray.address,
        )  # fmt: skip
        assert done.returncode == 0 and done.stderr == "", done.stderr
        told.append(json.loads(done.stdout))
        environments = told[-1]["environments"].values()
        assert len(samples.read_bytes().splitlines()) >= 2 * sum(each["samples"] for each in environments)
    assert {path.name for path in tmp_path.glob("a-*.png")} == {"a-mult8-v0.png", "a-tictactoe-v0.png"}
    assert told[0] == told[1]


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_on_a_terminal_there_is_a_bar_with_the_interval(local_ray: Settings) -> None:
    leader, follower = pty.openpty()
    command = [*AF, "duel", "random", "oracle:p=1", "--env", "mult8-v0", "--address", local_ray.address]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=follower, text=True, env={**os.environ, "TERM": "xterm"}
    )
    os.close(follower)
    seen = b""
    until = time.monotonic() + 100
    while time.monotonic() < until and process.poll() is None:
        if select.select([leader], [], [], 0.2)[0]:
            try:
                seen += os.read(leader, 65_536)
            except OSError:
                break
    out, _ = process.communicate(timeout=30)
    os.close(leader)
    assert process.returncode == 0 and "contender wins" in out
    assert b"mult8-v0" in seen and re.search(rb"\d+-0-0  0\.\d{3} \.\. 1\.000", seen)


@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_sigterm_ends_a_duel_and_its_actors(local_ray: Settings, tmp_path: Path) -> None:
    before, samples = actors(), tmp_path / "samples.jsonl"
    command = [
        *AF, "duel", "oracle:p=0", "random", "--env", "mult8-v0", "--budget", "20000",
        "--samples", str(samples), "--address", local_ray.address,
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (samples.exists() and samples.stat().st_size) and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    assert actors() - before
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 143 and "Traceback" not in told
    assert actors() == before


def test_ctrl_c_ends_the_wait_for_a_person() -> None:
    command = [*AF, "env", "run", "mult8-v0", "--policy", "human"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while process.stderr.read(1) not in (">", ""):
        continue
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=30)
    assert process.returncode == 130 and out == "" and "Traceback" not in told


def test_no_page_has_a_command_that_is_none() -> None:
    known = {"blocks", "duel", "env", "validate", "verify", "weights"}
    for page in PAGES:
        for word in re.findall(r"`af ([a-z]+)", page.read_text(encoding="utf-8")):
            assert word in known, f"{page.name}: af {word}"
