"""Six modules with real kinds of bugs and seven answers to each: every verdict right, behind every wall that works."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from chimera.core.errors import SandboxUnavailable
from chimera.healing.judge import Verdict, judge
from chimera.healing.sandbox import Sandbox, open_sandbox
from chimera.healing.workspace import snapshot

DATA = Path(__file__).parent.parent / "data" / "healing"
MODULES = sorted(path.parent.name for path in DATA.glob("*/answers.json"))

STAGES = {
    "good": "done",
    "wrong": "hidden",
    "exfiltrating": "capabilities",
    "infinite_loop": "visible",
    "huge_output": "visible",
    "edits_tests": "paths",
    "fake_pass": "capabilities",
}
FAULTS = {"wrong": "failed", "infinite_loop": "time", "huge_output": "output"}


@pytest.fixture(scope="session", params=["bwrap", "landlock"])
def walls(request: pytest.FixtureRequest) -> Sandbox:
    try:
        return open_sandbox(request.param)
    except SandboxUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("module", MODULES)
async def test_every_verdict_is_right(module: str, walls: Sandbox) -> None:
    answers = json.loads((DATA / module / "answers.json").read_text("utf-8"))
    assert set(answers) == set(STAGES)
    before = snapshot(DATA / module).digest
    two = asyncio.Semaphore(2)

    async def verdict(name: str) -> Verdict:
        wall_s = 2.0 if name == "infinite_loop" else 30.0
        async with two:
            return await judge(DATA / module, DATA / module / "hidden", answers[name], walls, wall_s=wall_s)

    verdicts = dict(zip(answers, await asyncio.gather(*map(verdict, answers)), strict=True))
    found = {name: (verdict.accepted, verdict.stage, verdict.fault) for name, verdict in verdicts.items()}
    assert found == {name: (name == "good", stage, FAULTS.get(name, "")) for name, stage in STAGES.items()}
    assert snapshot(DATA / module).digest == before


def test_there_are_six_modules() -> None:
    assert len(MODULES) == 6


def chimera(*arguments: str, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chimera", *arguments],
        capture_output=True, text=True, timeout=60, env={"PATH": path, "HOME": "/nonexistent"}, check=False,
    )  # fmt: skip


def judged(patch: Path, *more: str, workspace: str = "basket") -> subprocess.CompletedProcess[str]:
    places = ("--workspace", str(DATA / workspace), "--hidden-tests", str(DATA / "basket" / "hidden"))
    return chimera("heal", "judge", *places, "--patch", str(patch), *more)


@pytest.fixture
def patch(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    answers = json.loads((DATA / "basket" / "answers.json").read_text("utf-8"))
    (tmp_path / "patch.json").write_text(json.dumps(answers[request.param]))
    return tmp_path / "patch.json"


@pytest.mark.parametrize("patch", ["good"], indirect=True)
def test_accepted_is_0(walls: Sandbox, patch: Path) -> None:
    done = judged(patch, "--json", "--timeout", "30", "--sandbox", walls.name)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert (document["verdict"], document["sandbox"]) == ("accept", walls.name)
    assert "2 visible, 3 hidden" in document["reason"]


@pytest.mark.parametrize("patch", ["fake_pass"], indirect=True)
def test_rejected_is_1(walls: Sandbox, patch: Path) -> None:
    done = judged(patch, "--json", "--sandbox", walls.name)
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["verdict"] == "reject" and "_exit" in json.loads(done.stdout)["reason"]
    patch.write_text('{"summary": "no patch"}')
    assert judged(patch, "--sandbox", walls.name).returncode == 1


@pytest.mark.parametrize("patch", ["good"], indirect=True)
def test_bad_input_is_2(patch: Path) -> None:
    assert judged(patch.with_name("none.json"), "--json").returncode == 2
    assert judged(patch, "--json", workspace="nowhere").returncode == 2
    assert judged(patch, "--sandbox", "cardboard").returncode == 2


@pytest.mark.parametrize("patch", ["good"], indirect=True)
def test_no_sandbox_is_3_and_nothing_is_run(patch: Path, tmp_path: Path) -> None:
    done = chimera(
        *("heal", "judge", "--workspace", str(DATA / "basket"), "--hidden-tests", str(DATA / "basket" / "hidden")),
        *("--patch", str(patch), "--sandbox", "bwrap", "--json"),
        path=str(tmp_path),
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "verdict" not in json.loads(done.stdout)
