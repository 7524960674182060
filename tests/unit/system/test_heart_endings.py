"""However a node ends, and whatever happens on the way, a patch that was not kept is not there."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chimera.core.clock import SystemClock
from chimera.core.errors import HealingError
from chimera.core.watching import Reading
from chimera.healing.apply import apply, recover
from chimera.reload.held import Held
from chimera.reload.manager import HotReloadManager
from chimera.system.heart import HeartSettings
from chimera.system.loading import InProcess
from chimera.system.mending import Mending
from tests.conftest import ROOT
from tests.unit.system.places import AFTER, ANSWER, BEFORE, Place, places, proposal

LONG_S = 30.0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Any]:
    with places(tmp_path, monkeypatch, request.node.name) as made:
        yield made


async def until(condition: Any) -> None:
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 (what it waits for tells nobody)
            await asyncio.sleep(0.01)


def mending(one: Place) -> Mending:
    one.home.mkdir(exist_ok=True)
    assert isinstance(one.node.hot_reload, HotReloadManager)
    return Mending(one.app, one.home, InProcess(one.node.hot_reload))


def half(one: Place) -> float:
    return sys.modules[one.name].share(1, 2)


def is_mended(one: Place) -> bool:
    try:
        return sys.modules[one.name].share(0, 0) == 0.0
    except ZeroDivisionError:
        return False


async def test_a_node_that_is_cancelled_during_the_probation_takes_the_patch_back(place: Any) -> None:
    one = place([ANSWER])
    await one.alarm()
    beating = asyncio.create_task(one.node.run())
    await until(lambda: "applied" in one.steps)
    assert one.text == AFTER and is_mended(one)
    beating.cancel()
    with suppress(asyncio.CancelledError):
        await beating
    assert one.steps[-1] == "rolled_back" and "was ended" in one.node.events[-1].detail
    assert one.text == BEFORE and not is_mended(one)
    assert not (one.home / "probation.json").exists()


@pytest.mark.parametrize("cancels", [1, 3])
async def test_a_node_that_is_cancelled_while_it_applies_takes_the_patch_back(place: Any, cancels: int) -> None:
    """Between the files and the module, where it used to leave the new files beside the old module."""
    one = place([ANSWER])
    await one.alarm()
    beating = asyncio.create_task(one.node.run())

    def refuse(module: Any) -> None:
        for _ in range(cancels):
            beating.get_loop().call_soon_threadsafe(beating.cancel)

    one.node.hot_reload = HotReloadManager(clock=SystemClock(), smoke=refuse)
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(LONG_S):
            await beating
    assert one.text == BEFORE and not is_mended(one)
    assert not (one.home / "probation.json").exists() and "kept" not in one.steps


async def test_a_node_that_is_cancelled_while_files_change_takes_the_patch_back(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that changes them goes on all the same: it is waited for."""
    one = place([ANSWER])
    await one.alarm()
    beating = asyncio.create_task(one.node.run())
    cancelled = threading.Event()

    def cancel() -> None:
        beating.cancel()
        beating.get_loop().call_later(0.05, cancelled.set)

    def slow(*args: Any, **kwargs: Any) -> Any:
        beating.get_loop().call_soon_threadsafe(cancel)
        cancelled.wait(LONG_S)
        return apply(*args, **kwargs)

    monkeypatch.setattr("chimera.system.mending.apply", slow)
    with pytest.raises(asyncio.CancelledError):
        await beating
    assert one.steps[-1] == "rolled_back"
    await asyncio.sleep(0.1)
    assert one.text == BEFORE and not is_mended(one)


async def test_a_source_that_fails_ends_the_node_and_the_patch(place: Any) -> None:
    one = place([ANSWER])
    await one.alarm()
    one.node.source = source = one.source
    beating = asyncio.create_task(one.node.run())
    await until(lambda: "applied" in one.steps)

    def broken(*args: object) -> Any:
        raise RuntimeError("the wire is cut")

    one.node.anomaly_engine.push = broken
    await source.push([Reading("m", 20.0, 1.0)])
    with pytest.raises(RuntimeError, match="wire"):
        await beating
    assert one.text == BEFORE and not is_mended(one)


async def test_an_alert_that_cannot_be_dealt_with_does_not_end_the_node(place: Any) -> None:
    one = place([])
    one.node._mind.consider = None
    await one.alarm_only()
    one.source.finish()
    await one.node.run()
    assert one.steps == ["failed"] and "TypeError" in one.node.events[-1].detail


async def test_missing_and_earlier_readings_say_nothing_about_a_patch(place: Any) -> None:
    one = place([ANSWER])
    await one.alarm()
    beating = asyncio.create_task(one.node.run())
    await until(lambda: one.node._probation is not None)
    await one.source.push([Reading("m", 9.0 - 0.001 * at, 900.0) for at in range(1, 9)])
    await one.source.push([Reading("m", 10.0 + at, float("nan")) for at in range(30)])
    await one.source.push([Reading("m", 50.0 + at, 1.0 + at % 2) for at in range(20)])
    await until(lambda: one.steps[-1] != "applied")
    one.source.finish()
    await beating
    assert one.steps[-1] == "kept"


async def test_what_was_changed_since_it_was_tried_is_not_overwritten(place: Any) -> None:
    one = place([ANSWER])
    model = one.node.code_generator._model
    chat = model.chat

    async def slow(request: Any) -> Any:
        answer = await chat(request)
        one.app.joinpath("notes.py").write_text("x = 1\n")
        one.app.joinpath(f"{one.name}.py").write_text(f"# mine\n{BEFORE}")
        return answer

    model.chat = slow
    assert await one.heal() == ["noticed", "decided", "failed"]
    assert one.text == f"# mine\n{BEFORE}" and "PatchConflict" in one.node.events[-1].detail
    assert not (one.home / "probation.json").exists()


async def test_a_patch_with_a_new_module_goes_in_and_out_as_one(place: Any) -> None:
    one = place([])
    beside = f"beside_{one.name}"
    new = f"from {beside} import NOTHING\n\ndef share(part, whole):\n    return part / whole if whole else NOTHING\n"
    changes = {f"{one.name}.py": new, f"{beside}.py": "NOTHING = 0.0\n"}
    patch, work = proposal(one.name, changes, {f"{one.name}.py": BEFORE, f"{beside}.py": None}), mending(one)
    await work.apply(patch)
    assert is_mended(one)
    assert await work.take_back(patch) and not await work.take_back(patch)
    assert one.text == BEFORE and not (one.app / f"{beside}.py").exists() and not is_mended(one)


async def test_modules_are_loaded_after_those_that_they_import(place: Any) -> None:
    """By name, this one would come first and take the old rate."""
    one = place([])
    rates = f"zz_{one.name}"
    (one.app / f"{rates}.py").write_text("RATE = 1\n")
    importlib.invalidate_caches()
    importlib.import_module(rates)
    changes = {
        f"{one.name}.py": f"from {rates} import RATE\ndef share(a, b): return RATE\n",
        f"{rates}.py": "RATE = 2\n",
    }
    await mending(one).apply(proposal(one.name, changes, {f"{one.name}.py": BEFORE, f"{rates}.py": "RATE = 1\n"}))
    assert half(one) == 2
    del sys.modules[rates]


async def test_what_the_state_became_during_the_probation_is_not_lost(place: Any) -> None:
    one = place([])
    held = Held({"sold": 1})
    one.node.hot_reload.reloader.hold(one.name, held)
    counted = f"{AFTER}\ndef migrate(state, old): return {{**state, 'new': 1}}\n"
    counted += "def migrate_back(state, older): return {'sold': state['sold']}\n"
    patch, work = proposal(one.name, {f"{one.name}.py": counted}, {f"{one.name}.py": BEFORE}), mending(one)
    await work.apply(patch)
    with held as state:
        state["sold"] = 5
    await work.take_back(patch)
    assert held.state == {"sold": 5}


async def test_what_somebody_saved_meanwhile_is_in_use_and_stays(place: Any) -> None:
    one = place([])
    patch = proposal(one.name, {f"{one.name}.py": AFTER}, {f"{one.name}.py": BEFORE})
    one.node._mending = work = mending(one)
    await work.apply(patch)
    (one.app / f"{one.name}.py").write_text("def share(a, b): return 7.0\n")
    await one.node._take_back(patch, "its metric: worse")
    assert one.text == "def share(a, b): return 7.0\n"
    assert one.steps == ["failed"] and "somebody else changed" in one.node.events[-1].detail
    assert work.left() is None


async def test_no_patch_follows_one_that_could_not_be_taken_back(place: Any) -> None:
    one = place([])
    patch, work = proposal(one.name, {f"{one.name}.py": AFTER}, {f"{one.name}.py": BEFORE}), mending(one)
    await work.apply(patch)
    with pytest.raises(HealingError, match="could not be taken back"):
        await work.apply(patch)
    assert one.text == AFTER


async def test_a_patch_whose_probation_was_cut_off_is_taken_back_at_the_next_start(place: Any) -> None:
    one = place([])
    await mending(one).apply(proposal(one.name, {f"{one.name}.py": AFTER}, {f"{one.name}.py": BEFORE}))
    assert is_mended(one)
    one.source.finish()
    await one.node.run()
    assert one.steps == ["rolled_back"] and "was killed" in one.node.events[0].detail
    assert one.text == BEFORE and not is_mended(one)
    again = place([])
    again.source.finish()
    await again.node.run()
    assert again.steps == []


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from chimera.core.clock import SystemClock
from chimera.reload.manager import HotReloadManager
from chimera.system.heart import HeartNode, HeartSettings
from chimera.system.heart import HeartSettings
from chimera.system.loading import InProcess
from chimera.system.mending import Mending
from chimera.system.proposals import Proposal

root, name = Path(sys.argv[1]), sys.argv[2]
text = (root / "proposal.json").read_text()

async def heal(folder):
    app, home = folder / "app", folder / "home"
    sys.path.insert(0, str(app))
    __import__(name)
    node = HeartNode(HeartSettings(workspace=app, hidden_tests=app, home=home, owners={}))
    home.mkdir()
    node._mending = Mending(app, home, InProcess(HotReloadManager(clock=SystemClock())))
    assert await node._try(Proposal.model_validate_json(text))

for number in range(1, 60):
    folder = root / str(number)
    (folder / "app").mkdir(parents=True)
    (folder / "app" / f"{name}.py").write_text(sys.argv[3])
    if not (child := os.fork()):
        left = number
        def counted(real):
            def call(*args, **kwargs):
                global left
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)
            return call
        for function in ("fsync", "replace", "rename", "unlink", "open", "remove"):
            setattr(os, function, counted(getattr(os, function)))
        asyncio.run(heal(folder))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(number)
        break
"""


@pytest.mark.timeout(120)
async def test_killed_at_each_step_a_patch_is_kept_or_is_not_there(place: Any, tmp_path: Path) -> None:
    name = "killed_app"
    (root := tmp_path / "killed").mkdir()
    patch = proposal(name, {f"{name}.py": AFTER}, {f"{name}.py": BEFORE})
    (root / "proposal.json").write_text(patch.model_dump_json())
    command = [sys.executable, "-c", KILLED, str(root), name, BEFORE]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 100, "check": False}
    done = await asyncio.to_thread(subprocess.run, command, **options)
    assert done.returncode == 0, done.stderr
    kills, applied, kept = int(done.stdout) - 1, 0, 0
    for number in range(1, kills + 1):
        app, home = root / str(number) / "app", root / str(number) / "home"
        was_on_probation = (home / "probation.json").exists()
        there = (app / f"{name}.py").read_text()
        home.mkdir(exist_ok=True)
        recover(app, log=home / "changes.db")
        work = Mending(app, home, InProcess(HotReloadManager(clock=SystemClock())))
        if (left := work.left()) is not None:
            await work.take_back(left)
        after = (app / f"{name}.py").read_text()
        assert after == (BEFORE if was_on_probation else there), number
        assert work.left() is None and sorted(path.name for path in app.iterdir() if path.is_file()) == [f"{name}.py"]
        applied, kept = applied + (was_on_probation and there == AFTER), kept + (after == AFTER)
    assert applied > 1 and kept >= 1, "some died on probation, some after it"


async def test_a_full_disk_ends_neither_the_node_nor_the_log(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = place([ANSWER])
    one.home.mkdir()
    log = one.node._log
    log.path.write_text('{"at_s": 1.0, "step": "kept", "sub')
    real, full = log._write, [True]

    def write(line: bytes) -> None:
        if full.pop() if full else False:
            raise OSError(28, "No space left on device")
        real(line)

    monkeypatch.setattr(log, "_write", write)
    assert await one.heal() == ["noticed", "decided", "applied", "kept"]
    torn, *lines = log.path.read_text().splitlines()
    assert torn.endswith("sub") and [json.loads(line)["step"] for line in lines] == ["decided", "applied", "kept"]


async def test_a_line_that_does_not_fit_leaves_nothing_of_itself(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = place([])
    one.node._tell("kept", "a")
    before = one.node._log.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("os.fsync", full)
        one.node._tell("kept", "b")
    assert one.node._log.path.read_bytes() == before and one.steps == ["kept", "kept"]
    one.node._tell("kept", "c")
    assert [json.loads(line)["subject"] for line in one.node._log.path.read_text().splitlines()] == ["a", "c"]


async def test_after_the_source_nothing_is_begun_that_nobody_could_watch(place: Any) -> None:
    one = place([ANSWER])
    one.node._ended = True
    await one.alarm()
    one.source.finish()
    healing = asyncio.create_task(one.node._heal_in_turn())
    await one.node._waiting.join()
    healing.cancel()
    assert one.steps == ["noticed", "decided", "failed"] and one.text == BEFORE


@pytest.mark.parametrize("wrong", [{"owners": {"m": "../../etc"}}, {"further": {"a b": ()}}, {"name": "a/b"}])
def test_names_that_are_none_are_refused_before_anything_runs(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="pattern"):
        HeartSettings(**{"workspace": tmp_path, "hidden_tests": tmp_path, "home": tmp_path, "owners": {}, **wrong})
