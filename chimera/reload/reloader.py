"""Modules of which several versions are loaded, each in a module object of its own, and one of them is in use.

`importlib.reload` runs new code in the old module's namespace: classes are replaced under their instances, names that
are gone stay, and a failure half-way leaves a mixture. Here a version is whole before anybody sees it, and switching
to it, or back, is setting one pointer. Who has kept something of an older version goes on with that version: reach a
module by `reloader.module(name)`, or a tool through the registry, where the newest is wanted.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from chimera.core.clock import Clock
from chimera.core.errors import ReloadError
from chimera.reload.deadline import ends_us, said, time_limit
from chimera.reload.fresh import bind_children, forget, is_stand_in, make_module, shown, use
from chimera.reload.held import Held, all_of, migrated, moved_back
from chimera.reload.pickles import named, pickled
from chimera.reload.source import MAX_SOURCE_BYTES, Source, compiled, import_package, read_source
from chimera.reload.versions import ModuleVersion

_log = logging.getLogger(__name__)

Smoke = Callable[[ModuleType], object]

Leaving = Callable[[ModuleVersion, Callable[[], None]], None]
"""Told of a version that is given up and has a `__stop__()`: call what it is given, once, when nobody uses it."""

KEEP = 4

MAX_MODULES = 256

MAX_PREPARED = 16

HOLDER_S = 5.0

STOP_S = 1.0
"""How long a `__stop__()` is waited for. It goes on in its own thread if it takes longer."""


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
    before: weakref.WeakKeyDictionary[Held, Any] = field(default_factory=weakref.WeakKeyDictionary)
    """The holders' states as they were when this version came in."""


@dataclass(eq=False)
class _Line:
    """The versions of one module: the last is in use, and those before it are warm."""

    loaded: deque[_Loaded] = field(default_factory=deque)
    holders: weakref.WeakSet[Held] = field(default_factory=weakref.WeakSet)
    highest: int = 0


class ModuleReloader:
    """Safe to use from any thread. `keep` versions of a module stay loaded, at least the one in use and the one before.

    A version that starts threads needs `__stop__()`, which ends them: it is called, in a thread of its own, when the
    version is given up, or when `leaving` says so.
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
        self.leaving: Leaving = _at_once

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
        import_package(module)
        with self._lock:
            line = self._line(module)
            if len(self._prepared) >= MAX_PREPARED:
                raise ReloadError(f"{MAX_PREPARED} versions wait to be committed: commit or abort some")
            number = line.highest + 1 if version is None else version
            if number <= line.highest:
                raise ReloadError(f"{module} has had version {line.highest}: {number} is not above it")
            old = line.loaded[-1] if line.loaded else None
        fresh = make_module(text, code)
        made = ModuleVersion(
            module=module,
            version=number,
            digest=text.digest,
            loaded_at=self._clock.now(),
            path=text.path,
            source_bytes=len(text.code),
        )
        with shown(fresh, partial(_in_use, line), self._limit_s) as drawn:
            try:
                with time_limit(self._limit_s, f"loading {module}"):
                    self._try(fresh, smoke, line, old)
            except BaseException as error:
                problem: BaseException | None = error
            else:
                problem = None
        if problem is not None:
            self._give_up(made, fresh, drawn)
            if isinstance(problem, ReloadError) or ends_us(problem):
                raise problem
            raise ReloadError(f"{_where(problem, text)} {said(problem)}") from problem
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
            if now != prepared.follows or prepared.version.version <= line.highest:
                raise ReloadError(f"{name} is at version {now}, and has had {line.highest}: prepare it again")
            holders = list(line.holders)
            with all_of(holders, HOLDER_S):
                old = line.loaded[-1].version if line.loaded else None
                states = self._moved(prepared.module, "migrate", holders, partial(_forth, prepared.module, old))
                before = weakref.WeakKeyDictionary({holder: holder.state for holder in holders})
                coming = _Loaded(prepared.version, prepared.module, before)
                self._prepared.discard(prepared)
                line.highest = prepared.version.version
                line.loaded.append(coming)
                self._use(line, holders, states)
            gone = [line.loaded.popleft() for _ in range(len(line.loaded) - self._keep)]
        for loaded in gone:
            self._give_up(loaded.version, loaded.module)
        return prepared.version

    def abort(self, prepared: Prepared) -> None:
        """It will not be used. Doing so again, or after a commit, changes nothing."""
        with self._lock:
            if prepared not in self._prepared:
                return
            self._prepared.discard(prepared)
        self._give_up(prepared.version, prepared.module, prepared.drawn)

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
            holders = list(line.holders)
            back = partial(_back, leaving, to, lossy)
            with all_of(holders, HOLDER_S):
                states = self._moved(leaving.module, "migrate_back", holders, back)
                line.loaded.pop()
                self._use(line, holders, states)
        self._give_up(leaving.version, leaving.module)
        return to

    def _moved(self, module: ModuleType, verb: str, holders: list[Held], move: Callable[[Held], Any]) -> list[Any]:
        """All states, moved within the time that new code has."""
        if not holders or verb not in vars(module):
            return [move(holder) for holder in holders]
        with time_limit(self._limit_s, f"{verb}() of {module.__name__}"):
            return [move(holder) for holder in holders]

    def _give_up(self, version: ModuleVersion, module: ModuleType, drawn: Sequence[ModuleType] = ()) -> None:
        forget(drawn)
        if "__stop__" in vars(module):
            ending = threading.Thread(target=_stop, args=(module,), name=f"stop {module.__name__}", daemon=True)
            self.leaving(version, ending.start)
            if ending.ident is not None:
                ending.join(STOP_S)

    def _use(self, line: _Line, holders: list[Held], states: list[Any]) -> None:
        coming = line.loaded[-1]
        if hasattr(coming.module, "__path__"):
            bind_children(coming.module)
        use(coming.version.module, coming.module)
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
        return tuple(loaded.version for loaded in tuple(self._known(name).loaded))

    def modules(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, line in tuple(self._lines.items()) if line.loaded))

    def pickled(self, value: object) -> bytes:
        """As `pickle.dumps`, but says so when an object is of a version that is not in use.

        Pickle stores a class by its name, and the name now means the class of the version in use; the bytes of an
        older instance are therefore refused. Bytes made before a switch load as the class in use then. Raises
        ReloadError.
        """
        return pickled(value, self)

    def version_of(self, thing: type | FunctionType) -> ModuleVersion | None:
        """Of which version a class or function is, if that is still loaded."""
        line = self._lines.get(thing.__module__)
        for loaded in tuple(line.loaded) if line else ():
            if named(loaded.module, thing.__qualname__) is thing:
                return loaded.version
        return None

    def _known(self, name: str) -> _Line:
        """Without the lock for what is loaded: a commit has it while it waits for holders, who may ask this."""
        line = self._lines.get(name)
        if line is not None and line.loaded:
            return line
        with self._lock:
            line = self._line(name) if name in self._lines or name in sys.modules else _Line()
        if not line.loaded:
            raise ReloadError(f"{name} has not been loaded: prepare and commit it, or import it first")
        return line

    def _line(self, name: str) -> _Line:
        """A module that was imported in the ordinary way is taken in as version 1."""
        line = self._lines.get(name)
        if line is None and len(self._lines) >= MAX_MODULES:
            for empty in [name for name, each in self._lines.items() if not each.loaded and not each.holders]:
                del self._lines[empty]
        if line is None and len(self._lines) >= MAX_MODULES:
            raise ReloadError(f"{MAX_MODULES} modules are loaded in versions: no more are taken")
        line = line or self._lines.setdefault(name, _Line())
        imported = sys.modules.get(name)
        if not line.loaded and imported is not None and not is_stand_in(imported):
            path = getattr(imported, "__file__", None) or ""
            line.highest += 1
            version = ModuleVersion(module=name, version=line.highest, loaded_at=self._clock.now(), path=path)
            line.loaded.append(_Loaded(version, imported))
        return line


def _in_use(line: _Line) -> ModuleType | None:
    return line.loaded[-1].module if line.loaded else None


def _forth(module: ModuleType, old: ModuleVersion | None, holder: Held) -> Any:
    return migrated(module, holder.state, old)


def _back(leaving: _Loaded, to: ModuleVersion, lossy: bool, holder: Held) -> Any:
    if lossy and holder in leaving.before:
        return leaving.before[holder]
    return moved_back(leaving.module, holder.state, to)


def _at_once(version: ModuleVersion, stop: Callable[[], None]) -> None:
    stop()


def _stop(module: ModuleType) -> None:
    try:
        vars(module)["__stop__"]()
    except BaseException:  # it is leaving, and nobody could do anything about it
        _log.warning("__stop__() of a version of %s failed", module.__name__, exc_info=True)


def _threads_of(module: ModuleType) -> str:
    names = vars(module)
    found = []
    for thread in threading.enumerate():
        target = getattr(thread, "_target", None) or getattr(thread, "function", None)  # that of a timer
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
