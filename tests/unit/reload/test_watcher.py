"""What the watcher tells of real files, as editors and deployments change them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chimera.core.errors import InputError
from chimera.reload.watcher import Changed, CodeWatcher

LONG_S = 20.0


class Seen:
    """Collects what is told. `quiet` writes a marker, last by name, and sees that nothing comes before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue: asyncio.Queue[Changed] = asyncio.Queue()
        self._markers = 0

    async def next(self) -> tuple[str, bool]:
        changed = await asyncio.wait_for(self.queue.get(), LONG_S)
        return changed.module, changed.digest is not None

    async def until(self, module: str, there: bool = True) -> None:
        while await self.next() != (module, there):
            pass

    async def quiet(self) -> None:
        self._markers += 1
        (self.folder / f"zz_marker{self._markers}.py").write_text("")
        assert await self.next() == (f"zz_marker{self._markers}", True)


def put(file: Path, text: str) -> None:
    """At once, so that there is no moment at which the file is empty."""
    beside = file.with_name(f".{file.name}.tmp")
    beside.write_text(text)
    os.replace(beside, file)


@asynccontextmanager
async def watching(folder: Path, **options: int) -> AsyncIterator[Seen]:
    watcher, seen = CodeWatcher(folder, **options), Seen(folder)

    async def collect() -> None:
        async for changes in watcher.changes():
            for changed in sorted(changes, key=lambda one: one.module):
                seen.queue.put_nowait(changed)

    task = asyncio.create_task(collect())
    ready = asyncio.create_task(watcher.ready.wait())
    await asyncio.wait([task, ready], timeout=LONG_S, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield seen
    finally:
        task.cancel()
        ready.cancel()
        await asyncio.wait([task], timeout=LONG_S)
        assert task.cancelled()


async def test_new_content_is_told_and_a_touch_is_not(tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    file.write_text("x = 1\n")
    (tmp_path / "__pycache__").mkdir()
    async with watching(tmp_path) as seen:
        put(file, "x = 2\n")
        await seen.until("shop")
        while not seen.queue.empty():
            seen.queue.get_nowait()
        file.touch()
        put(file, "x = 2\n")
        (tmp_path / "notes.txt").write_text("no code")
        (tmp_path / "__pycache__" / "shop.py").write_text("x")
        (tmp_path / ".shop.py.swp").write_text("x")
        await seen.quiet()
        file.write_text("x = (\n")
        await seen.until("shop")


async def test_editors_that_replace_or_delete_and_create(tmp_path: Path) -> None:
    file = tmp_path / "shop.py"
    file.write_text("x = 1\n")
    async with watching(tmp_path) as seen:
        put(file, "x = 2\n")
        assert await seen.next() == ("shop", True)
        file.unlink()
        put(file, "x = 3\n")
        assert await seen.next() == ("shop", True)
        file.unlink()
        file.write_text("x = 4\n")
        await seen.until("shop")
        file.unlink()
        await seen.until("shop", False)


async def test_renames_of_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "__init__.py").write_text("")
    (tmp_path / "store" / "rates.py").write_text("rate = 1\n")
    async with watching(tmp_path) as seen:
        (tmp_path / "store" / "rates.py").rename(tmp_path / "store" / "prices.py")
        assert {await seen.next(), await seen.next()} == {("store.prices", True), ("store.rates", False)}
        (tmp_path / "store").rename(tmp_path / "depot")
        found = {await seen.next() for _ in range(4)}
        assert found == {("depot", True), ("depot.prices", True), ("store", False), ("store.prices", False)}


async def test_links_within_and_to_elsewhere(tmp_path: Path) -> None:
    code, one, two = tmp_path / "code", tmp_path / "one", tmp_path / "two"
    for folder in (code, one, two):
        folder.mkdir()
    (one / "real.py").write_text("x = 1\n")
    (two / "real.py").write_text("x = 2\n")
    (code / "shop.py").symlink_to(one / "real.py")
    async with watching(code) as seen:
        put(one / "real.py", "x = 11\n")
        await seen.until("shop")
        fresh = code / "new"
        fresh.symlink_to(two / "real.py")
        os.replace(fresh, code / "shop.py")
        await seen.until("shop")
        await seen.quiet()
        put(two / "real.py", "x = 22\n")
        await seen.until("shop")


async def test_modules_are_named_from_their_package(tmp_path: Path) -> None:
    inner = tmp_path / "store" / "inner"
    inner.mkdir(parents=True)
    for folder in (inner, inner.parent):
        (folder / "__init__.py").write_text("")
    async with watching(inner) as seen:
        put(inner / "no-module.py", "x = 1\n")
        put(inner / "rates.py", "x = 1\n")
        assert await seen.next() == ("store.inner.rates", True)
        put(inner / "__init__.py", "x = 1\n")
        assert await seen.next() == ("store.inner", True)


async def test_it_is_bounded(tmp_path: Path) -> None:
    for at in range(3):
        (tmp_path / f"m{at}.py").write_text("x = 1\n")
    async with watching(tmp_path, max_files=2, max_bytes=100) as seen:
        put(tmp_path / "m2.py", "x = 2\n")
        put(tmp_path / "m1.py", "#" * 101)
        assert await seen.next() == ("m1", False)
    watcher = CodeWatcher(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no folder"):
        await anext(watcher.changes())
