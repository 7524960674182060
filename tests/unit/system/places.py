"""A workspace with a module that is wrong, a node for it, and a patch that mends it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.sources.push import PushSource
from chimera.core.clock import SystemClock
from chimera.core.watching import AnomalyDetected, AnomalyKind, Reading
from chimera.healing.failure import Failure
from chimera.healing.generator import CodeGenerator, GeneratorOptions
from chimera.healing.healer import HealerOptions
from chimera.healing.judge import Verdict
from chimera.healing.patch import CodePatch, Whole
from chimera.reload.manager import HotReloadManager
from chimera.system.heart import HeartNode, HeartSettings, Review
from chimera.system.metacognition import Decision
from chimera.system.proposals import Proposal
from tests.unit.healing.test_generator import Scripted

BEFORE = "def share(part, whole):\n    return part / whole\n"
AFTER = "def share(part, whole):\n    return part / whole if whole else 0.0\n"
ANSWER = f"A share of nothing is nothing.\n\nNAME.py\n```python\n{AFTER}```\n"
TEST = "from NAME import share\n\ndef test_share():\n    assert share(1, 2) == 0.5\n"
HIDDEN = "from NAME import share\n\ndef test_nothing():\n    assert share(0, 0) == 0.0\n"

ALERT = AnomalyDetected(
    metric="m", score=9.0, timestamp=9.0, value=3.0, kind=AnomalyKind.SPIKE, since=8.0, expected=1.0
)


class Place:
    """A workspace with one module of its own name, and a node for it."""

    def __init__(
        self, folder: Path, module: str, answers: list[str], review: Review | None = None, **more: Any
    ) -> None:
        name = self.name = module
        self.app, self.home = folder / "app", folder / "home"
        for path, text in ((f"app/{name}.py", BEFORE), ("app/test_it.py", TEST), ("hidden/test_hidden.py", HIDDEN)):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text.replace("NAME", name))
        settings = HeartSettings(
            workspace=self.app,
            hidden_tests=folder / "hidden",
            home=self.home,
            owners={"m": name},
            healing=HealerOptions(repairs=0, wall_s=60.0),
            **more,
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

    async def alarm(self) -> None:
        """The metric of the module goes wrong, and a patch is wanted."""
        engine = self.node.anomaly_engine
        await engine.push([Reading("m", float(at), 1.0 + at % 2) for at in range(8)])
        await engine.push([Reading("m", 9.0, 30.0)])
        assert self.node._notice(ALERT, ALERT).action == "patch"

    async def alarm_only(self) -> None:
        """The engine tells of the metric when it is pushed next."""

        async def push(batch: object) -> list[AnomalyDetected]:
            return [ALERT]

        self.node.anomaly_engine.push = push
        await self.source.push([Reading("m", 9.0, 30.0)])

    @property
    def steps(self) -> list[str]:
        return [event.step for event in self.node.events]


def proposal(name: str, changes: dict[str, str], before: dict[str, str | None]) -> Proposal:
    """A patch that has been accepted, and that no metric asked for."""
    edits = tuple(Whole(path=path, whole=text) for path, text in changes.items())
    return Proposal(
        decision=Decision(action="patch", subject=name, module=name, reason="it is strong enough"),
        failure=Failure(kind="traceback", module=name, text="ZeroDivisionError: x"),
        alert=None,
        signature="s",
        patch=CodePatch(summary="A share of nothing is nothing.", edits=edits),
        verdict=Verdict(verdict="accept", stage="done", reason="", sandbox="bwrap"),
        confidence=1.0,
        before=before,
        changes=changes,
    )


@contextmanager
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str) -> Iterator[Callable[..., Place]]:
    """Makes places, each with a module of its own name, which is loaded."""
    before = set(sys.modules)
    names: list[str] = []

    def made(answers: list[str], review: Review | None = None, **more: Any) -> Place:
        (folder := tmp_path / str(len(names))).mkdir()
        name = f"shared_out_{abs(hash(of)) % 10**8}_{len(names)}"
        names.append(name)
        monkeypatch.syspath_prepend(str(folder / "app"))
        found = Place(folder, name, answers, review, **more)
        importlib.invalidate_caches()
        importlib.import_module(name)
        return found

    yield made
    for name in set(sys.modules) - before:
        if name.startswith(("shared_out_", "beside_")):
            del sys.modules[name]
