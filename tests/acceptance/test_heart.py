"""`chimera heart run` as a user runs it: the docs' settings, a scripted model over a real wire, readings in a pipe."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.healing.workspace import snapshot
from tests.acceptance.test_heal_run import chimera, completion
from tests.conftest import ROOT
from tests.llm_stub import LlmStub

SHOP = ROOT / "examples" / "self_healing"

RIGHT = "    return total - min(prices_cents) if len(prices_cents) >= 10 else total\n"
WRONG = "    return total - sorted(prices_cents)[4] if len(prices_cents) >= 4 else total\n"
TOLD = '\nprint("till is loaded")\n'
"""At the end of the module: on standard error once for each version that the process loads."""

ANSWER = f"""\
The free piece is the cheapest.

There may be no fifth price.

till.py
<<<<<<< SEARCH
{WRONG}=======
{RIGHT}>>>>>>> REPLACE
"""

[NODE] = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "heart.md").read_text("utf-8"), re.DOTALL)

WAIT_S = 100.0


class Node:
    """A node of the docs over the example's shop, with a bug in it, in a process of its own."""

    def __init__(self, folder: Path, stub: LlmStub) -> None:
        self.folder, self.stub = folder, stub
        for name in ("app", "hidden"):
            shutil.copytree(SHOP / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.till = folder / "app" / "till.py"
        self.till.write_text(self.till.read_text().replace(RIGHT, WRONG) + TOLD)
        assert WRONG in self.till.read_text()
        (folder / "node.toml").write_text(NODE)
        self.before = snapshot(folder / "app").digest
        self.steps: list[dict[str, Any]] = []
        self._random, self._pushed = random.Random(7), 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def options(self) -> list[str]:
        model = f"local:scripted@{self.stub.url}/v1"
        return ["--config", str(self.folder / "node.toml"), "--source", "-", "--model", model]

    def __enter__(self) -> Node:
        command = [sys.executable, "-m", "chimera", "heart", "run", *self.options, "--json"]
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        self._errors = (self.folder / "stderr").open("w")
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=kept, text=True, stdin=-1, stdout=-1, stderr=self._errors
        )
        self._watchdog = threading.Timer(WAIT_S, self._process.kill)
        self._watchdog.start()
        self._write("timestamp,till_errors_percent\n")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait(WAIT_S)
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            pipe.close()

    @property
    def told(self) -> str:
        return (self.folder / "stderr").read_text()

    def _write(self, text: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def push(self, count: int, level: float) -> None:
        """Readings of the till, ten seconds apart."""
        at = range(self._pushed, self._pushed + count)
        self._pushed += count
        self._write("".join(f"{1_000_000 + 10 * number},{level + self._random.random():.3f}\n" for number in at))

    def until(self, step: str) -> dict[str, Any]:
        """The next step of that name; what comes before it is in `steps` too."""
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self.steps.append(json.loads(line))
            if self.steps[-1]["step"] == step:
                return self.steps[-1]
        raise AssertionError(f"it ended before {step!r}: {self.steps}\n{self.told}")

    def ended(self, number: signal.Signals | None = None) -> int:
        """Ask it to end, by a signal or by the end of its readings, and its exit code."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        if number is None:
            self._process.stdin.close()
        else:
            self._process.send_signal(number)
        self.steps += map(json.loads, self._process.stdout)
        return self._process.wait(WAIT_S)

    @property
    def names(self) -> list[str]:
        return [step["step"] for step in self.steps]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with LlmStub(completion(ANSWER)) as stub, Node(tmp_path, stub) as made:
        yield made


@pytest.mark.timeout(150)
def test_what_is_noticed_is_mended_and_kept(node: Node) -> None:
    node.push(300, 2.0)
    node.push(20, 60.0)
    applied = node.until("applied")
    node.push(25, 2.0)
    kept = node.until("kept")
    assert node.names == ["noticed", "decided", "applied", "kept"] and kept["patch"] == applied["patch"]
    assert node.ended(signal.SIGINT) == 0, node.told
    assert RIGHT in node.till.read_text() and node.told.count("till is loaded") == 2
    assert "till_errors_percent" in json.dumps(node.stub.asked[0].body)
    assert "345 readings of 1 metric, 4 steps; today $0.0000" in node.told
    log = chimera("heart", "log", "--home", str(node.folder / "state"), "--limit", "2", "--json")
    assert [json.loads(line)["step"] for line in log.stdout.splitlines()] == ["applied", "kept"]


@pytest.mark.timeout(150)
def test_a_patch_that_makes_it_worse_is_undone_by_itself(node: Node) -> None:
    node.push(300, 2.0)
    node.push(20, 60.0)
    node.until("applied")
    node.push(25, 200.0)
    assert "worse" in node.until("rolled_back")["detail"]
    assert node.ended() == 0, node.told
    assert snapshot(node.folder / "app").digest == node.before


@pytest.mark.timeout(150)
def test_sigterm_undoes_a_patch_that_nobody_would_watch_any_more(node: Node) -> None:
    node.push(300, 2.0)
    node.push(20, 60.0)
    node.until("applied")
    assert node.ended(signal.SIGTERM) == 0, node.told
    assert node.names[-1] == "rolled_back"
    assert snapshot(node.folder / "app").digest == node.before


@pytest.fixture
def careful(tmp_path: Path) -> Iterator[Node]:
    """A node that trusts no patch by itself."""
    with LlmStub(completion(ANSWER)) as stub:
        made = Node(tmp_path, stub)
        (tmp_path / "node.toml").write_text("review_below = 1.0\n" + NODE)
        with made:
            made.push(300, 2.0)
            made.push(20, 60.0)
            yield made


@pytest.mark.timeout(150)
def test_a_patch_that_a_person_agrees_to_is_applied_and_watched(careful: Node) -> None:
    patch, home = careful.until("asked")["patch"], ("--home", str(careful.folder / "state"))
    assert snapshot(careful.folder / "app").digest == careful.before
    listed = chimera("heart", "reviews", *home, "--json")
    [waits] = map(json.loads, listed.stdout.splitlines())
    assert (waits["patch"], waits["subject"]) == (patch, "till") and f"+{RIGHT}" in waits["diff"]
    assert f"    +{RIGHT}" in chimera("heart", "reviews", *home).stdout
    assert chimera("heart", "agree", patch[:8], *home).returncode == 0
    careful.until("applied")
    careful.push(25, 2.0)
    careful.until("kept")
    assert careful.names[2:] == ["asked", "agreed", "applied", "kept"]
    assert "no patch waits" in chimera("heart", "reviews", *home).stderr
    assert careful.ended(signal.SIGINT) == 0 and RIGHT in careful.till.read_text()


@pytest.mark.timeout(150)
def test_a_patch_that_a_person_refuses_is_forgotten(careful: Node) -> None:
    patch, home = careful.until("asked")["patch"], ("--home", str(careful.folder / "state"))
    assert chimera("heart", "refuse", "0" * 32, *home).returncode == 2
    assert chimera("heart", "refuse", patch, *home).returncode == 0
    assert careful.until("rejected")["patch"] == patch
    assert careful.ended(signal.SIGINT) == 0 and snapshot(careful.folder / "app").digest == careful.before
    assert "no patch waits" in chimera("heart", "reviews", *home).stderr


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Node]:
    """A node that is not started."""
    with LlmStub() as stub:
        yield Node(tmp_path, stub)


BAD = {
    "nothing at all": ([], "source"),
    "no such file": (["--config", "{folder}/none.toml"], "none.toml: cannot be read"),
    "no model that writes": (["--model", "offline"], "anthropic:MODEL"),
    "no key": (["--model", "anthropic:NAME"], "set ANTHROPIC_API_KEY"),
    "no price for the cap": (["--model", "compatible:m@http://127.0.0.1:9/v1"], "price of compatible:m"),
    "no such source": (["--source", "tea:leaves"], "no source of readings"),
    "no such module": (["--owner", "m=tills"], "there is till"),
    "a module that breaks": (["--owner", "m=broken"], "broken, an owner, cannot be imported"),
    "a module that ends the process": (["--owner", "m=leaving"], "SystemExit"),
    "another module of the name": (["--owner", "m=json"], "another module has its name"),
    "an owner that is none": (["--owner", "till"], "GLOB=MODULE"),
    "no hidden tests": (["--hidden-tests", "{folder}/nowhere"], "is no folder"),
    "a home in the workspace": (["--home", "{folder}/app/state"], "lies in the workspace"),
    "no such file of readings": (["--source", "{folder}/none.csv"], "none.csv"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_2_and_says_what_to_do(place: Node, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, says = BAD[case]
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    (place.folder / "app" / "broken.py").write_text("1 / 0\n")
    (place.folder / "app" / "leaving.py").write_text("raise SystemExit(0)\n")
    (place.folder / "app" / "json.py").write_text("")
    given = place.options if options and "none.toml" not in options[-1] else []
    done = chimera("heart", "run", *given, *(option.format(folder=place.folder) for option in options))
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not place.stub.asked and not done.stdout


def test_no_sandbox_is_3(place: Node) -> None:
    with (place.folder / "node.toml").open("r+") as file:
        text = file.read()
        file.seek(0)
        file.write('sandbox = "bwrap"\n' + text)
    done = chimera("heart", "run", *place.options, PATH=str(place.folder))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "bwrap" in done.stderr and "no code is run" in done.stderr


def test_a_log_that_is_not_there_is_2(tmp_path: Path) -> None:
    done = chimera("heart", "log", "--home", str(tmp_path))
    assert done.returncode == 2 and "--home" in done.stderr
