"""The node that mends itself: what it refuses, what it undoes, what it leaves behind."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from chimera.core.clock import SystemClock
from chimera.core.errors import InputError
from chimera.core.watching import AnomalyDetected, AnomalyKind, Reading
from chimera.healing.apply import apply
from chimera.healing.change_log import ChangeLog, State
from chimera.healing.failure import failure_of
from chimera.healing.healer import PatchResult
from chimera.healing.memory import signature
from chimera.healing.patch import CodePatch, Whole
from chimera.reload.manager import HotReloadManager
from chimera.system.metacognition import Decision
from tests.unit.system.places import AFTER, ANSWER, BEFORE, places


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    with places(tmp_path, monkeypatch, request.node.name) as made:
        yield made


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


@pytest.mark.parametrize(("state", "text"), [(State.APPLIED, AFTER), (State.INTENDED, BEFORE)])
async def test_what_a_crash_left_half_done_is_undone_first(place: Any, state: State, text: str) -> None:
    """What was done stays. Tests of `apply` have the crashes themselves, by kill -9."""
    one = place([])
    one.home.mkdir()
    log = one.home / "changes.db"
    applied = await asyncio.to_thread(apply, one.app, {f"{one.name}.py": AFTER.encode()}, log=log)
    with closing(ChangeLog(log)) as kept:
        kept.settle(applied.id, state)
    one.source.finish()
    await one.node.run()
    assert one.text == text


@pytest.mark.parametrize(("rejected", "action"), [(0, "patch"), (2, "patch"), (30, "ask")])
async def test_where_patches_for_the_like_never_helped_a_person_is_asked(
    place: Any, rejected: int, action: str
) -> None:
    one = place([])
    told = {"timestamp": 9.0, "value": 3.0, "kind": AnomalyKind.SPIKE, "since": 8.0, "expected": 1.0}
    alert = AnomalyDetected(metric="m", score=9.0, **told)
    await one.node.anomaly_engine.push([Reading(metric="m", timestamp=9.0, value=3.0)])
    one.node._healer = healer = await asyncio.to_thread(one.node._prepared)
    name = signature(failure_of(alert, one.name).text)
    for number in range(rejected):
        patch = CodePatch(summary="no", edits=(Whole(path="x.py", whole=f"x = {number}"),))
        healer.memory.remember(name, patch, accepted=False)
    assert one.node._notice(alert, alert).action == action
    healer.memory.close()
