"""The node that mends itself: what it refuses, what it undoes, what it leaves behind."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.sources.push import PushSource
from chimera.core.clock import SystemClock
from chimera.core.errors import InputError
from chimera.healing.apply import apply
from chimera.healing.failure import Failure
from chimera.healing.generator import CodeGenerator, GeneratorOptions
from chimera.healing.healer import HealerOptions, PatchResult
from chimera.reload.manager import HotReloadManager
from chimera.system.heart import HeartNode, HeartSettings, Review
from chimera.system.metacognition import Decision
from tests.unit.healing.test_generator import Scripted

BEFORE = "def share(part, whole):\n    return part / whole\n"
AFTER = "def share(part, whole):\n    return part / whole if whole else 0.0\n"
ANSWER = f"A share of nothing is nothing.\n\nNAME.py\n```python\n{AFTER}```\n"
TEST = "from NAME import share\n\ndef test_share():\n    assert share(1, 2) == 0.5\n"
HIDDEN = "from NAME import share\n\ndef test_nothing():\n    assert share(0, 0) == 0.0\n"


class Place:
    """A workspace with one module of its own name, and a node for it."""

    def __init__(self, folder: Path, name: str, answers: list[str], review: Review | None = None) -> None:
        self.name, self.app, self.home = name, folder / "app", folder / "home"
        for path, text in ((f"app/{name}.py", BEFORE), ("app/test_it.py", TEST), ("hidden/test_hidden.py", HIDDEN)):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text.replace("NAME", name))
        settings = HeartSettings(
            workspace=self.app,
            hidden_tests=folder / "hidden",
            home=self.home,
            owners={"m": name},
            healing=HealerOptions(repairs=0),
        )
        self.node = HeartNode(settings, review=review)
        self.node.source = self.source = PushSource()
        self.node.anomaly_engine = AnomalyDetectionEngine()
        model = Scripted([answer.replace("NAME", name) for answer in answers])
        self.node.code_generator = CodeGenerator(model, options=GeneratorOptions(candidates=1, misread=0))
        self.node.hot_reload = HotReloadManager(clock=SystemClock())

    @property
    def text(self) -> str:
        return (self.app / f"{self.name}.py").read_text()

    async def heal(self) -> list[str]:
        """Report a failure, and run until it is dealt with; the steps."""
        decision = self.node.report(Failure(kind="traceback", module=self.name, text="ZeroDivisionError: x"))
        assert decision.action == "patch"
        self.source.finish()
        await self.node.run()
        return [event.step for event in self.node.events]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    names: list[str] = []

    def made(answers: list[str], review: Review | None = None) -> Place:
        (folder := tmp_path / str(len(names))).mkdir()
        name = f"shared_out_{abs(hash(request.node.name)) % 10**8}_{len(names)}"
        names.append(name)
        monkeypatch.syspath_prepend(str(folder / "app"))
        found = Place(folder, name, answers, review)
        importlib.invalidate_caches()
        importlib.import_module(name)
        return found

    yield made
    for name in names:
        sys.modules.pop(name, None)


async def test_a_failure_that_is_reported_is_mended_in_the_running_process(place: Any) -> None:
    one = place([ANSWER])
    assert await one.heal() == ["noticed", "decided", "applied", "kept"]
    assert one.text == AFTER
    assert sys.modules[one.name].share(0, 0) == 0.0
    lines = [json.loads(line) for line in (one.home / "heart.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == ["noticed", "decided", "applied", "kept"]
    assert len({line["patch"] for line in lines[2:]}) == 1 and lines[2]["patch"]


async def test_what_no_test_accepts_changes_nothing(place: Any) -> None:
    one = place([ANSWER.replace("else 0.0", "else 1.0")])
    assert await one.heal() == ["noticed", "decided", "rejected"]
    assert one.text == BEFORE
    assert "held-out tests" in one.node.events[-1].detail


async def test_what_a_review_does_not_agree_to_is_not_applied(place: Any) -> None:
    shown: list[tuple[Decision, PatchResult]] = []

    async def no(decision: Decision, result: PatchResult) -> bool:
        shown.append((decision, result))
        return False

    one = place([ANSWER], no)
    assert await one.heal() == ["noticed", "decided", "rejected"]
    assert one.text == BEFORE
    [(decision, result)] = shown
    assert decision.module == one.name and result.changes == {f"{one.name}.py": AFTER}


async def test_a_module_that_cannot_be_loaded_leaves_the_files_as_they_were(place: Any) -> None:
    one = place([ANSWER])

    def refuse(module: Any) -> None:
        raise RuntimeError("it does not work here")

    one.node.hot_reload = HotReloadManager(clock=SystemClock(), smoke=refuse)
    assert await one.heal() == ["noticed", "decided", "failed"]
    assert one.text == BEFORE
    with pytest.raises(ZeroDivisionError):
        sys.modules[one.name].share(0, 0)


async def test_a_model_that_writes_no_patch_ends_this_patch_and_not_the_node(place: Any) -> None:
    one = place(["I do not know."])
    assert await one.heal() == ["noticed", "decided", "failed"]
    assert "wrote no patch that fits" in one.node.events[-1].detail


async def test_a_node_without_its_parts_names_them(place: Any) -> None:
    one = place([])
    one.node.hot_reload = one.node.source = None
    with pytest.raises(InputError, match="set source, hot_reload"):
        await one.node.run()


async def test_what_was_applied_before_a_crash_is_whole_when_it_runs_again(place: Any) -> None:
    """A change that is settled stays; `recover` is asked before anything else (see tests of `apply` for kill -9)."""
    one = place([])
    one.home.mkdir()
    await asyncio.to_thread(apply, one.app, {f"{one.name}.py": AFTER.encode()}, log=one.home / "changes.db")
    one.source.finish()
    await one.node.run()
    assert one.text == AFTER
