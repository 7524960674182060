"""Which modules under a folder have new content: file events, checked against what the files hold.

Editors touch, write in place, write beside and rename over, delete and create; deployments switch symbolic links. All
of these come down to one question, whether the bytes are others than before, and it is answered by their hash. Whether
they are good Python is not asked here.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chimera.core.errors import InputError, MissingExtra, ReloadError
from chimera.reload.source import MAX_SOURCE_BYTES, read_file

DEBOUNCE_MS = 50

STEP_MS = 10

TIMEOUT_MS = 1_000

GRACE_S = 0.1
"""A file that is gone may be about to come back: some editors delete and create."""

MAX_FILES = 10_000

MAX_FOLDERS = 10_000
"""Folders that are looked into: a link may lead to a whole disk."""

SKIPPED = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True)
class Changed:
    """`digest` is the SHA-256 of the file in hex; None when it is gone."""

    module: str
    path: Path
    digest: str | None


class CodeWatcher:
    """Watches the .py files under `folder`, without hidden folders and caches.

    Modules are named from the folder, or from the package that it is in. Files that are larger than a source may be
    are not watched, nor those past `max_files`, which `left_out` counts. The folder may go and come back, and be a
    link that is switched.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        debounce_ms: int = DEBOUNCE_MS,
        step_ms: int = STEP_MS,
        max_files: int = MAX_FILES,
        max_bytes: int = MAX_SOURCE_BYTES,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.left_out = 0
        self.ready = asyncio.Event()
        self._debounce_ms = debounce_ms
        self._step_ms = step_ms
        self._max_files = max_files
        self._max_bytes = max_bytes
        self._known: dict[str, str] = {}
        self._elsewhere: set[str] = set()
        self._missing: set[str] = set()
        self._top = self.folder
        while (self._top / "__init__.py").exists():
            self._top = self._top.parent

    async def changes(self) -> AsyncIterator[frozenset[Changed]]:
        """What changed since the last set, until it is closed or cancelled. `ready` is set once changes are seen.

        What happens while a set is being dealt with is in the next one. Raises InputError if there is no such folder,
        MissingExtra without watchfiles, ReloadError if the system has no room for more watches.
        """
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is no folder: give one that holds Python files")
        first = True
        while True:
            stop = threading.Event()
            while (folder := _opened(self.folder)) is None:
                if gone := self._look(set(self._known), final=True):
                    yield gone
                await asyncio.sleep(TIMEOUT_MS / 1_000)
            notify = None
            try:
                self._elsewhere = await asyncio.to_thread(self._targets)
                if (notify := await asyncio.to_thread(self._open)) is None:
                    continue
                # Watched first and read afterwards, so that nothing falls between.
                found = await asyncio.to_thread(self._scan)
                if first:
                    self._missing.clear()
                    first, found = False, frozenset()
                    self.ready.set()
                if found:
                    yield found
                while True:
                    changed, moved = await _to_the_end(stop, self._wait, notify, stop, folder)
                    if changed:
                        yield changed
                    if moved:
                        break
            finally:
                os.close(folder)
                if notify is not None:
                    notify.close()

    def _open(self) -> Any:
        """None where the folder went away just now."""
        try:
            from watchfiles._rust_notify import RustNotify
        except ImportError as error:
            raise MissingExtra("watchfiles", "reload") from error
        try:
            return RustNotify([str(self.folder), *sorted(self._elsewhere)], False, False, 300, True, True)
        except OSError as error:
            if not self.folder.is_dir() or any(not os.path.isdir(each) for each in self._elsewhere):
                return None
            raise ReloadError(
                f"{self.folder} cannot be watched: {error}; fs.inotify.max_user_watches may be too low"
            ) from error

    def _wait(self, notify: Any, stop: threading.Event, folder: int) -> tuple[frozenset[Changed], bool]:
        """In a thread: the next changes, and whether links lead elsewhere now, so that other folders are watched.

        `folder` is the one that is watched, opened: as long as it is, no other gets its number.
        """
        timeout_ms = round(GRACE_S * 1_000) if self._missing else TIMEOUT_MS
        raw = notify.watch(self._debounce_ms, self._step_ms, timeout_ms, stop)
        if raw in ("stop", "signal"):
            return frozenset(), False
        if not _is(self.folder, folder):
            return frozenset(), True
        paths = set() if raw == "timeout" else {path for _, path in raw}
        moved = False
        if any(self._is_a_tree(path) for path in paths):
            changed = self._scan()
            moved = self._targets() != self._elsewhere
        else:
            files = {path for path in paths if path.endswith(".py") and self._is_inside(path)}
            changed = self._look(files | (self._missing if raw == "timeout" else set()), raw == "timeout")
        return changed, moved

    def _is_inside(self, path: str) -> bool:
        try:
            parts = Path(path).relative_to(self.folder).parts
        except ValueError:
            return False
        return not any(part in SKIPPED or part.startswith(".") for part in parts)

    def _is_a_tree(self, path: str) -> bool:
        """May have changed more than itself: a folder, a link, something outside, or one of these that is gone."""
        if Path(path).name in SKIPPED or any(part in SKIPPED for part in Path(path).parts[-2:]):
            return False
        if not path.startswith(f"{self.folder}{os.sep}"):
            return True
        if os.path.islink(path) or os.path.isdir(path):
            return True
        return not os.path.exists(path) and any(known.startswith(path + os.sep) for known in self._known)

    def _files(self) -> Iterator[str]:
        count = left_out = 0
        seen: set[str] = set()
        for folder, names, files in os.walk(self.folder, followlinks=True):
            real = os.path.realpath(folder)
            names[:] = [] if real in seen else sorted(n for n in names if n not in SKIPPED and not n.startswith("."))
            seen.add(real)
            if len(seen) > MAX_FOLDERS:
                left_out += 1
                break
            for name in sorted(files):
                if not name.endswith(".py") or name.startswith("."):
                    continue
                count += 1
                if count > self._max_files:
                    left_out += 1
                else:
                    yield os.path.join(folder, name)
        self.left_out = left_out

    def _targets(self) -> set[str]:
        """Folders outside of the one watched, into which links in it lead."""
        found = set()
        real_root = os.path.realpath(self.folder) + os.sep
        for path in self._files():
            real = os.path.realpath(path)
            if not real.startswith(real_root) and os.path.isdir(os.path.dirname(real)):
                found.add(os.path.dirname(real))
        return found

    def _scan(self) -> frozenset[Changed]:
        return self._look({*self._files(), *self._known}, final=False)

    def _look(self, paths: set[str], final: bool) -> frozenset[Changed]:
        """Those of `paths` that hold something else than before. One that is gone is so when it is `final`."""
        changed = set()
        for path in sorted(paths):
            digest = self._digest(path)
            if digest is None and path in self._known and not final:
                self._missing.add(path)
                continue
            self._missing.discard(path)
            if digest == self._known.get(path) or (path not in self._known and len(self._known) >= self._max_files):
                continue
            if digest is None:
                del self._known[path]
            else:
                self._known[path] = digest
            if name := self._name(Path(path)):
                changed.add(Changed(name, Path(path), digest))
        return frozenset(changed)

    def _digest(self, path: str) -> str | None:
        """None for what is not there, cannot be read or is too large."""
        try:
            content = read_file(path, self._max_bytes + 1)
        except OSError:
            return None
        return hashlib.sha256(content).hexdigest() if len(content) <= self._max_bytes else None

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self._top).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        return ".".join(parts) if all(part.isidentifier() for part in parts) else ""


def _opened(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _is(folder: Path, opened: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(opened))
    except OSError:
        return False


async def _to_the_end(stop: threading.Event, work: Any, *args: Any) -> Any:
    """Run `work` in a thread. A cancel tells it to stop, and waits until it has: it uses what is closed next."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([running])
        raise
