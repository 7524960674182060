"""Modules of which several versions are loaded, each in a module object of its own, and one of them is in use.

`importlib.reload` runs new code in the old module's namespace: classes are replaced under their instances, names that
are gone stay, and a failure half-way leaves a mixture. Here a version is whole before anybody sees it, and switching
to it, or back, is setting one pointer. Who has kept something of an older version goes on with that version: reach a
module by `reloader.module(name)`, or a tool through the registry, where the newest is wanted.
"""

from __future__ import annotations

import inspect
import io
import pickle
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from chimera.core.clock import Clock
from chimera.core.errors import ReloadError
from chimera.reload.deadline import time_limit
from chimera.reload.fresh import bind_children, forget, make_module, point, shown
from chimera.reload.held import Held, all_of, migrated, moved_back
from chimera.reload.source import MAX_SOURCE_BYTES, Source, compiled, read_source
from chimera.reload.versions import ModuleVersion

Smoke = Callable[[ModuleType], object]

KEEP = 4

MAX_MODULES = 256

MAX_PREPARED = 16

HOLDER_S = 5.0


@dataclass(eq=False)
class Prepared:
    """A version that has run and passed its tests, and that nobody sees yet. Commit it or abort it."""

    version: ModuleVersion
    module: ModuleType
    follows: int
    """The version that was in use when it was made; 0 for none."""
    drawn: list[ModuleType]
    """Modules that it imported for the first time and that keep something of it."""


@dataclass(eq=False)
class _Loaded:
    version: ModuleVersion
    module: ModuleType
    before: list[tuple[Held, Any]] = field(default_factory=list)
    """The holders' states as they were when this version came in."""


@dataclass(eq=False)
class _Line:
    """The versions of one module: the last is in use, and those before it are warm."""

    loaded: deque[_Loaded] = field(default_factory=deque)
    holders: weakref.WeakSet[Held] = field(default_factory=weakref.WeakSet)
    highest: int = 0


class ModuleReloader:
    """Safe to use from any thread. `keep` versions of a module stay loaded, at least the one in use and the one before.

    A version that starts threads needs `__stop__()`, which ends them: it is called when the version is given up.
    """

    def __init__(
        self, *, clock: Clock, keep: int = KEEP, limit_s: float = 10.0, max_source_bytes: int = MAX_SOURCE_BYTES
    ) -> None:
        self._clock = clock
        self._keep = max(2, keep)
        self._limit_s = limit_s
        self._max_source_bytes = max_source_bytes
        self._lock = threading.RLock()
        self._lines: dict[str, _Line] = {}
        self._prepared: set[Prepared] = set()

    def read(self, module: str, source: str | bytes | Path | None = None) -> Source:
        """The source that `prepare` would take. Raises ReloadError."""
        return read_source(module, source, max_bytes=self._max_source_bytes)

    def prepare(
        self,
        module: str,
        source: Source | str | bytes | Path | None = None,
        *,
        smoke: Smoke | None = None,
        version: int | None = None,
    ) -> Prepared:
        """Compile, run in a new module object, call its `__smoke__()` and `smoke(module)`, try `migrate` on copies.

        `source` is text, bytes or a file; None means the module's own file. `version` is a number above all that this
        module has had; None means the next. Raises ReloadError for whatever goes wrong, and then nothing has changed.
        """
        text = source if isinstance(source, Source) else self.read(module, source)
        code = compiled(text)
        with self._lock:
            line = self._line(module)
            if len(self._prepared) >= MAX_PREPARED:
                raise ReloadError(f"{MAX_PREPARED} versions wait to be committed: commit or abort some")
            number = line.highest + 1 if version is None else version
            if number <= line.highest:
                raise ReloadError(f"{module} has had version {line.highest}: {number} is not above it")
            old = line.loaded[-1] if line.loaded else None
        fresh = make_module(text, code)
        drawn: list[ModuleType] = []
        with shown(fresh, old.module if old else None) as drawn_on_the_way:
            drawn = drawn_on_the_way
            try:
                with time_limit(self._limit_s, f"loading {module}"):
                    self._try(fresh, smoke, line, old)
            except BaseException as error:
                problem: BaseException | None = error
            else:
                problem = None
        if problem is not None:
            _give_up(fresh, drawn)
            if isinstance(problem, ReloadError | KeyboardInterrupt):
                raise problem
            raise ReloadError(f"{_where(problem, text)} {type(problem).__name__}: {problem!s:.500}") from problem
        made = ModuleVersion(
            module=module,
            version=number,
            digest=text.digest,
            loaded_at=self._clock.now(),
            path=text.path,
            source_bytes=len(text.code),
        )
        prepared = Prepared(made, fresh, old.version.version if old else 0, drawn)
        with self._lock:
            self._prepared.add(prepared)
        return prepared

    def _try(self, fresh: ModuleType, smoke: Smoke | None, line: _Line, old: _Loaded | None) -> None:
        spec = fresh.__spec__
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module(fresh)
        tests: list[Callable[[], object]] = [vars(fresh)["__smoke__"]] if "__smoke__" in vars(fresh) else []
        if smoke is not None:
            tests.append(partial(smoke, fresh))
        for test in tests:
            answer = test()
            if inspect.isawaitable(answer):
                getattr(answer, "close", lambda: None)()
                raise ReloadError(f"{fresh.__name__}: its smoke test is a coroutine: make it a plain function")
            if answer is False:
                raise ReloadError(f"{fresh.__name__}: its smoke test says False")
        if "__stop__" not in vars(fresh) and (names := _threads_of(fresh)):
            raise ReloadError(f"{fresh.__name__} starts threads ({names}) and has no __stop__() that ends them: add it")
        for holder in list(line.holders):
            with all_of([holder], HOLDER_S):
                migrated(fresh, holder.state, old.version if old else None)

    def commit(self, prepared: Prepared) -> ModuleVersion:
        """It is in use from here on. All holders' states are migrated as they are now, or nothing changes.

        Raises ReloadError if a `migrate` raises, if it has been committed or aborted before, or if another version came
        into use since it was prepared.
        """
        name = prepared.version.module
        with self._lock:
            line = self._line(name)
            now = line.loaded[-1].version.version if line.loaded else 0
            if prepared not in self._prepared:
                raise ReloadError(f"version {prepared.version.version} of {name} has been committed or aborted before")
            if now != prepared.follows:
                raise ReloadError(f"{name} is at version {now}, not {prepared.follows}: prepare it again")
            holders = list(line.holders)
            with all_of(holders, HOLDER_S):
                old = line.loaded[-1].version if line.loaded else None
                states = [migrated(prepared.module, holder.state, old) for holder in holders]
                coming = _Loaded(prepared.version, prepared.module, [(holder, holder.state) for holder in holders])
                self._prepared.discard(prepared)
                line.highest = prepared.version.version
                line.loaded.append(coming)
                self._use(line, holders, states)
            gone = [line.loaded.popleft() for _ in range(len(line.loaded) - self._keep)]
        for loaded in gone:
            _give_up(loaded.module, [])
        return prepared.version

    def abort(self, prepared: Prepared) -> None:
        """It will not be used. Doing so again, or after a commit, changes nothing."""
        with self._lock:
            if prepared not in self._prepared:
                return
            self._prepared.discard(prepared)
        _give_up(prepared.module, prepared.drawn)

    def roll_back(self, module: str, *, lossy: bool = False) -> ModuleVersion:
        """Back to the version before, which is still warm. Holders' states go through `migrate_back(state, version)`.

        `lossy` gives them back the states that they had when that version was left. Raises ReloadError if there is no
        version before, or the states cannot go back; then nothing has changed.
        """
        with self._lock:
            line = self._known(module)
            if len(line.loaded) < 2:
                raise ReloadError(f"{module} has no version before the one in use")
            leaving, to = line.loaded[-1], line.loaded[-2].version
            saved = dict(leaving.before) if lossy else {}
            holders = list(line.holders)
            with all_of(holders, HOLDER_S):
                states = [
                    saved[holder] if holder in saved else moved_back(leaving.module, holder.state, to)
                    for holder in holders
                ]
                line.loaded.pop()
                self._use(line, holders, states)
        _give_up(leaving.module, [])
        return to

    def _use(self, line: _Line, holders: list[Held], states: list[Any]) -> None:
        coming = line.loaded[-1]
        if hasattr(coming.module, "__path__"):
            bind_children(coming.module)
        point(coming.version.module, coming.module)
        for holder, state in zip(holders, states, strict=True):
            holder.state = state

    def hold(self, module: str, held: Held) -> None:
        """Its state changes with the versions of `module` from now on, for as long as somebody else keeps it."""
        with self._lock:
            self._line(module).holders.add(held)

    def module(self, name: str) -> ModuleType:
        """The module object in use. Raises ReloadError for one that has never been loaded here."""
        return self._known(name).loaded[-1].module

    def current(self, name: str) -> ModuleVersion:
        return self._known(name).loaded[-1].version

    def versions(self, name: str) -> tuple[ModuleVersion, ...]:
        """Those that are loaded, the one in use last."""
        with self._lock:
            return tuple(loaded.version for loaded in self._known(name).loaded)

    def modules(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(name for name, line in self._lines.items() if line.loaded))

    def pickled(self, value: object) -> bytes:
        """As `pickle.dumps`, but says so when an object is of a version that is not in use.

        Pickle stores a class by its name, and the name now means the class of the version in use; the bytes of an
        older instance are therefore refused. Bytes made before a switch load as the class in use then. Raises
        ReloadError.
        """
        buffer = io.BytesIO()
        _Pickler(buffer, self).dump(value)
        return buffer.getvalue()

    def version_of(self, thing: type | FunctionType) -> ModuleVersion | None:
        """Of which version a class or function is, if that is still loaded."""
        with self._lock:
            line = self._lines.get(thing.__module__)
            for loaded in line.loaded if line else ():
                if _named(loaded.module, thing.__qualname__) is thing:
                    return loaded.version
        return None

    def _known(self, name: str) -> _Line:
        with self._lock:
            line = self._line(name) if name in self._lines or name in sys.modules else _Line()
        if not line.loaded:
            raise ReloadError(f"{name} has not been loaded: prepare and commit it, or import it first")
        return line

    def _line(self, name: str) -> _Line:
        """A module that was imported in the ordinary way is taken in as version 1."""
        line = self._lines.get(name)
        if line is None and len(self._lines) >= MAX_MODULES:
            raise ReloadError(f"{MAX_MODULES} modules are loaded in versions: no more are taken")
        line = line or self._lines.setdefault(name, _Line())
        imported = sys.modules.get(name)
        if not line.loaded and imported is not None:
            path = getattr(imported, "__file__", None) or ""
            line.highest += 1
            version = ModuleVersion(module=name, version=line.highest, loaded_at=self._clock.now(), path=path)
            line.loaded.append(_Loaded(version, imported))
        return line


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, reloader: ModuleReloader) -> None:
        super().__init__(file)
        self._reloader = reloader

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, type | FunctionType) or obj.__module__ not in self._reloader.modules():
            return NotImplemented
        if _named(self._reloader.module(obj.__module__), obj.__qualname__) is obj:
            return NotImplemented
        of = self._reloader.version_of(obj)
        raise ReloadError(
            f"{obj.__module__}.{obj.__qualname__} is of {f'version {of.version}, which' if of else 'a version that'} "
            f"is not in use: take its data over with migrate(), or make it again, before it is pickled"
        )


def _named(module: ModuleType, qualname: str) -> Any:
    thing: Any = module
    for part in qualname.split("."):
        thing = vars(thing).get(part) if hasattr(thing, "__dict__") else None
    return thing


def _give_up(module: ModuleType, drawn: list[ModuleType]) -> None:
    forget(drawn)
    stop = vars(module).get("__stop__")
    if stop is not None:
        with suppress(Exception):  # it is leaving, and nobody could do anything about it
            stop()


def _threads_of(module: ModuleType) -> str:
    names = vars(module)
    found = []
    for thread in threading.enumerate():
        target = getattr(thread, "_target", None)
        code_of = getattr(getattr(target, "__func__", target), "__globals__", None)
        run_of = getattr(type(thread).run, "__globals__", None)
        if code_of is names or run_of is names:
            found.append(thread.name)
    return ", ".join(found)[:200]


def _where(error: BaseException, source: Source) -> str:
    """The deepest line of the source that the error went through."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == source.module:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{source.module}, line {line}:" if line else f"{source.module}:"
