"""Modules that misbehave, and what threads, links and cancelled callers do meanwhile."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, ReloadError
from chimera.reload.held import Held
from chimera.reload.manager import HotReloadManager
from chimera.reload.reloader import MAX_MODULES, ModuleReloader
from chimera.reload.watcher import CodeWatcher

LONG_S = 20.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    vars(gate := type(sys)("gate")).update(inside=threading.Event(), go_on=threading.Event(), ended=threading.Event())
    sys.modules["gate"] = gate
    yield tmp_path
    gate.go_on.set()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def made(limit_s: float = 2.0) -> ModuleReloader:
    return ModuleReloader(clock=ManualClock(), limit_s=limit_s)


def load(reloader: ModuleReloader, module: str, text: str) -> Any:
    reloader.commit(reloader.prepare(module, text))
    return reloader.module(module)


HOLD = "import gate\ngate.inside.set()\ngate.go_on.wait(20)\n"
CAUGHT = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end:\n    try:\n        while True: pass\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class E(Exception):\n    def __str__(self): return 1 / 0\nraise E\n", "line 3: E, which cannot be shown"),
        (CAUGHT + "    except BaseException: pass\n", "more than 0.3 s"),
        ("# coding: latin-1\nx = '\u20ac'\n", "encoding"),
        ("# coding: rot13\nx = 1\n", "encoding"),
    ],
)
def test_it_is_told_what_is_wrong(folder: Path, text: str, says: str) -> None:
    with pytest.raises(ReloadError, match=says):
        made(0.3).prepare("shop", text)


def test_text_is_in_the_encoding_that_it_names(folder: Path) -> None:
    assert load(made(), "shop", "# coding: latin-1\nx = '\u00e9'\n").x == "\u00e9"
    assert load(made(), "shop", "\ufeffx = '\u20ac'\n").x == "\u20ac"


def test_ctrl_c_of_new_code_ends_no_process(folder: Path) -> None:
    caught: list[BaseException] = []

    def prepare() -> None:
        try:
            made().prepare("shop", "raise KeyboardInterrupt\n")
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=prepare)
    thread.start()
    thread.join()
    assert [type(error) for error in caught] == [ReloadError]


@pytest.mark.parametrize("name", ["sys", "builtins", "__main__"])
def test_what_the_process_runs_on_has_no_versions(folder: Path, name: str) -> None:
    with pytest.raises(ReloadError, match="runs on"):
        made().prepare(name, "x = 1\n")


def test_a_pipe_is_no_source(folder: Path) -> None:
    """To open one waits for its other end, which may never come."""
    os.mkfifo(folder / "shop.py")
    with pytest.raises(ReloadError, match="no file"):
        made().prepare("shop", folder / "shop.py")


def test_its_package_is_there_before_it(folder: Path) -> None:
    for package, text in (("good", "level = 1\n"), ("bad", "1 / 0\n")):
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(text)
        (folder / package / "rates.py").write_text("rate = 3\n")
    reloader = made()
    reloader.commit(reloader.prepare("good.rates", folder / "good" / "rates.py"))
    assert sys.modules["good"].rates.rate == 3
    for source in (None, "rate = 4\n", folder / "bad" / "rates.py"):
        with pytest.raises(ReloadError, match=r"its package bad cannot be imported: ZeroDivisionError"):
            reloader.prepare("bad.rates", source)


def test_a_number_is_not_used_twice_after_a_roll_back(folder: Path) -> None:
    reloader = made()
    load(reloader, "shop", "x = 1\n")
    one, other = reloader.prepare("shop", "x = 2\n"), reloader.prepare("shop", "x = 3\n")
    reloader.commit(one)
    reloader.roll_back("shop")
    with pytest.raises(ReloadError, match="prepare it again"):
        reloader.commit(other)


@pytest.mark.parametrize("back", [False, True])
def test_a_switch_while_another_version_loads_holds(folder: Path, back: bool) -> None:
    reloader = made(LONG_S)
    for number in (1, 2):
        load(reloader, "shop", f"x = {number}\n")
    ready = reloader.prepare("shop", "x = 3\n")
    itself = "x = 4\nimport sys\ngate.saw = sys.modules[__name__].x\n"
    loading = threading.Thread(target=reloader.prepare, args=("shop", HOLD + itself))
    loading.start()
    assert sys.modules["gate"].inside.wait(LONG_S)
    reloader.roll_back("shop") if back else reloader.commit(ready)
    assert sys.modules["shop"].x == reloader.module("shop").x == (1 if back else 3)
    sys.modules["gate"].go_on.set()
    loading.join()
    assert sys.modules["shop"] is reloader.module("shop")
    assert sys.modules["gate"].saw == 4, "it goes on seeing itself"


def test_a_first_version_that_loads_is_not_taken_for_an_imported_one(folder: Path) -> None:
    reloader = made(LONG_S)
    loading = threading.Thread(target=reloader.prepare, args=("shop", HOLD))
    loading.start()
    assert sys.modules["gate"].inside.wait(LONG_S)
    with pytest.raises(ReloadError, match="has not been loaded"):
        reloader.module("shop")
    sys.modules["gate"].go_on.set()
    loading.join()
    assert reloader.modules() == ()


def test_a_version_that_never_ends_does_not_hold_up_others_for_ever(folder: Path) -> None:
    stuck = threading.Thread(target=made(LONG_S).prepare, args=("shop", HOLD))
    stuck.start()
    assert sys.modules["gate"].inside.wait(LONG_S)
    with pytest.raises(ReloadError, match="another version has been loading"):
        made(0.1).prepare("till", "x = 1\n")
    sys.modules["gate"].go_on.set()
    stuck.join()


def test_who_holds_a_state_may_ask_for_the_module_while_a_commit_waits(folder: Path) -> None:
    reloader, held, entered = made(), Held({}), threading.Event()
    load(reloader, "shop", "x = 1\n")
    reloader.hold("shop", held)
    prepared = reloader.prepare("shop", "x = 2\n")
    seen: list[int] = []

    def work() -> None:
        with held:
            entered.set()
            waiting.wait(LONG_S)
            seen.append(reloader.module("shop").x + len(reloader.versions("shop")))

    class Waiting(threading.Event):
        """Set when the commit asks for the holder's state, and so has what it locks before."""

    waiting = Waiting()
    acquire = held.acquire
    held.acquire = lambda timeout_s: (waiting.set(), acquire(timeout_s))[1]  # type: ignore[method-assign]
    thread = threading.Thread(target=work)
    thread.start()
    entered.wait(LONG_S)
    assert reloader.commit(prepared).version == 2
    thread.join()
    assert seen == [2]


def test_holders_that_nobody_keeps_go(folder: Path) -> None:
    reloader, held = made(), Held({"n": 1})
    load(reloader, "shop", "x = 1\n")
    reloader.hold("shop", held)
    load(reloader, "shop", "x = 2\n")
    gone = weakref.ref(held)
    del held
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("body", "says"), [("while True: pass", "took more than 0.3 s"), ("raise SystemExit", "raised SystemExit")]
)
def test_a_migrate_that_goes_wrong_in_the_commit_changes_nothing(folder: Path, body: str, says: str) -> None:
    reloader, held = made(0.3), Held({"n": 1})
    load(reloader, "shop", "x = 1\n")
    reloader.hold("shop", held)
    prepared = reloader.prepare("shop", f"def migrate(state, old):\n  if state['n'] == 1: return state\n  {body}\n")
    held.state["n"] = 2
    with pytest.raises(ReloadError, match=rf"migrate\(\).* {says}"):
        reloader.commit(prepared)
    assert reloader.current("shop").version == 1 and held.state == {"n": 2}


@pytest.mark.parametrize("body", ["gate.go_on.wait(20)", "raise SystemExit"])
def test_a_stop_that_hangs_or_exits_holds_nothing_up(folder: Path, body: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("chimera.reload.reloader.STOP_S", 0.05)
    reloader = made()
    reloader.abort(reloader.prepare("shop", f"import gate\ndef __stop__(): {body}\n"))
    assert load(reloader, "shop", "x = 1\n").x == 1


def test_a_timer_is_a_thread_that_it_starts(folder: Path) -> None:
    text = "import threading\ndef tick(): pass\ntimer = threading.Timer(0.5, tick)\ntimer.start()\n"
    with pytest.raises(ReloadError, match="__stop__"):
        made().prepare("shop", text)


def test_names_that_failed_leave_room_for_others(folder: Path) -> None:
    reloader = made()
    for number in range(MAX_MODULES + 1):
        with pytest.raises(ReloadError, match="ZeroDivisionError"):
            reloader.prepare(f"wrong_{number}", "1 / 0\n")


STOPPED = "import gate\nNUMBER = {number}\ndef price(): return NUMBER\ndef __stop__(): gate.ended.set()\n"


async def test_what_a_call_is_in_is_stopped_when_the_call_ends(folder: Path) -> None:
    manager = HotReloadManager(clock=ManualClock())
    await manager.reload("shop", "def price(): return 1\n")
    manager.expose("price", "shop", "price")
    await manager.reload("shop", STOPPED.format(number=2))
    ended = sys.modules["gate"].ended
    with manager.registry.lease("price") as lease:
        await manager.roll_back("shop")
        assert not await asyncio.to_thread(ended.wait, 0.05) and lease.call() == 2
    assert await asyncio.to_thread(ended.wait, LONG_S)


async def test_a_tool_never_falls_back_to_what_was_rolled_back(folder: Path) -> None:
    manager = HotReloadManager(clock=ManualClock())
    await manager.reload("shop", "def price(): return 1\n")
    manager.expose("price", "shop", "price")
    await manager.reload("shop", "def price(): return 2\n")
    with manager.registry.lease("price") as lease:
        lease.succeeded()
    await manager.roll_back("shop")
    for _ in range(5):
        with manager.registry.lease("price") as lease:
            lease.failed()
    assert manager.registry.active("price").version == 1
    assert [one.deprecated for one in manager.registry.versions("price")] == [False, True]


async def test_a_tool_is_of_one_module(folder: Path) -> None:
    manager = HotReloadManager(clock=ManualClock())
    for module in ("shop", "till"):
        await manager.reload(module, "def price(): return 1\n")
    manager.expose("price", "shop", "price")
    with pytest.raises(InputError, match="of shop already"):
        manager.expose("price", "till", "price")


async def test_a_check_that_raises_is_a_no(folder: Path) -> None:
    def verify(module: str, source: bytes, signature: bytes) -> bool:
        raise ValueError("not a signature")

    manager = HotReloadManager(clock=ManualClock(), verify=verify)
    with pytest.raises(ReloadError, match="cannot be verified: ValueError"):
        await manager.reload("shop", "x = 1\n")
    assert manager.stats().failed == 1


async def test_a_holder_in_use_holds_up_the_switch_and_not_the_loop(folder: Path) -> None:
    """And a caller who is cancelled meanwhile is so when the switch is through, which is told."""
    manager, held = HotReloadManager(clock=ManualClock()), Held({})
    await manager.reload("shop", "x = 1\n")
    manager.reloader.hold("shop", held)
    loop, asked, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    acquire, count = held.acquire, iter(range(9))

    def acquired(timeout_s: float) -> bool:
        if next(count):  # the first is a trial
            loop.call_soon_threadsafe(asked.set)
            go_on.wait(LONG_S)
        return acquire(timeout_s)

    held.acquire = acquired  # type: ignore[method-assign]
    reloading = asyncio.create_task(manager.reload("shop", "x = 2\n"))
    await asyncio.wait_for(asked.wait(), LONG_S)
    reloading.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await reloading
    assert manager.reloader.current("shop").version == 2 and manager.stats().reloaded == 2


async def watched(folder: Path, act: Any, module: str, times: int = 1) -> None:
    """`act` is noticed, again and again."""
    watcher = CodeWatcher(folder)
    told: asyncio.Queue[str] = asyncio.Queue()

    async def collect() -> None:
        async for changes in watcher.changes():
            for changed in changes:
                if changed.digest is not None:
                    told.put_nowait(changed.module)

    task = asyncio.create_task(collect())
    try:
        await asyncio.wait_for(watcher.ready.wait(), LONG_S)
        for number in range(times):
            act(number)
            while await asyncio.wait_for(told.get(), LONG_S) != module:
                pass
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_folder_that_is_deleted_and_made_again_is_still_watched(tmp_path: Path) -> None:
    (root := tmp_path / "code").mkdir()

    def act(number: int) -> None:
        if number == 0:
            shutil.rmtree(root)
            root.mkdir()
        (root / "shop.py").write_text(f"x = {number}\n")

    await watched(root, act, "shop", 3)


async def test_a_folder_that_is_a_link_may_be_switched(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"release{number}").mkdir()
        (tmp_path / f"release{number}" / "shop.py").write_text(f"x = {number}\n")
    (current := tmp_path / "current").symlink_to(tmp_path / "release0")

    def act(number: int) -> None:
        (tmp_path / "next").symlink_to(tmp_path / f"release{number + 1}")
        os.replace(tmp_path / "next", current)

    await watched(current, act, "shop", 2)


async def test_a_pipe_among_the_files_stops_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    await watched(tmp_path, lambda number: (tmp_path / "shop.py").write_text("x = 1\n"), "shop")


async def test_a_link_into_nowhere_stops_nothing(tmp_path: Path) -> None:
    (root := tmp_path / "code").mkdir()
    (root / "gone.py").symlink_to(tmp_path / "nowhere" / "gone.py")
    await watched(root, lambda number: (root / "shop.py").write_text("x = 1\n"), "shop")
