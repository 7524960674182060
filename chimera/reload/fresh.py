"""Running source in a module object of its own, while everybody else goes on with the module of that name they have.

Code that runs at import looks itself up in `sys.modules`: dataclasses and pydantic resolve annotations there. If they
found the old version, a new model would be made of old classes; if the new one were put there at once, a function of
another thread that imports late would get half a module, or one that is refused a moment later. So a stand-in is put
there which is the new version for the thread that runs it, and the old one for all others.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, module_from_spec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from chimera.core.errors import ReloadError
from chimera.reload.source import Source

RUNNING = threading.RLock()
"""One new version runs at a time in a process."""

POINTING = threading.RLock()


class _Kept(Loader):
    """A loader that has its source in memory. `inspect` of a function and tracebacks look into the file first."""

    def __init__(self, source: Source, code: CodeType) -> None:
        self._source = source
        self._code = code

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, vars(module))

    def get_source(self, fullname: str) -> str:
        return decode_source(self._source.code)


class _StandIn(ModuleType):
    """See above. When the run is over it is, for who has kept it, the version that was in use during the run."""

    def __init__(self, name: str, fresh: ModuleType, old: ModuleType | None) -> None:
        super().__init__(name)
        object.__getattribute__(self, "__dict__").update(fresh=fresh, old=old, thread=threading.get_ident())

    def __getattribute__(self, name: str) -> Any:
        return getattr(_seen(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_seen(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_seen(self), name)


def _seen(stand_in: ModuleType) -> ModuleType:
    own = object.__getattribute__(stand_in, "__dict__")
    seen: ModuleType | None = own["fresh"] if own["thread"] == threading.get_ident() else own["old"]
    if seen is None:
        raise AttributeError(f"{own['fresh'].__name__} is being loaded for the first time: try again")
    return seen


class _Noting(MetaPathFinder):
    """Finds nothing, and notes what this thread imports for the first time."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if threading.get_ident() == self._thread:
            self.names.append(fullname)
        return None


def make_module(source: Source, code: CodeType) -> ModuleType:
    """A module object that has not run yet. A package's has the submodules that are loaded, as a package has."""
    spec = ModuleSpec(source.module, _Kept(source, code), origin=source.path or None, is_package=source.is_package)
    spec.has_location = bool(source.path)
    if spec.submodule_search_locations is not None:
        spec.submodule_search_locations.append(str(Path(source.path).parent))
    module = module_from_spec(spec)
    bind_children(module)
    return module


@contextmanager
def shown(fresh: ModuleType, in_use: Callable[[], ModuleType | None], wait_s: float) -> Iterator[list[ModuleType]]:
    """Within it, this thread sees `fresh` under its name, and all others what `in_use` gives. Hands out the modules
    that were imported on the way and keep something of `fresh`, once it has ended: they go when `fresh` is given up.

    Raises ReloadError if another version has been running for more than `wait_s`.
    """
    name = fresh.__name__
    noting = _Noting()
    drawn: list[ModuleType] = []
    if not RUNNING.acquire(timeout=wait_s):
        raise ReloadError(f"{name}: another version has been loading for {wait_s:g} s and does not end: try again")
    try:
        with POINTING:
            stand_in = _StandIn(name, fresh, in_use())
            point(name, stand_in)
        sys.meta_path.insert(0, noting)
        try:
            yield drawn
        finally:
            sys.meta_path.remove(noting)
            with POINTING:
                old = in_use()
                point(name, old)
            for module in (fresh, *(sys.modules[other] for other in noting.names if other in sys.modules)):
                names = vars(module)
                for key in [key for key, value in names.copy().items() if value is stand_in]:
                    names[key] = fresh
                if module is not fresh and _keeps(names, fresh):
                    drawn.append(module)
            object.__getattribute__(stand_in, "__dict__").update(thread=None, old=old or fresh)
    finally:
        RUNNING.release()


def is_stand_in(module: object) -> bool:
    """It has to be asked of the type: whatever else is asked, another module answers."""
    return type(module) is _StandIn


def use(name: str, module: ModuleType) -> None:
    """From now on `import name` gives `module`; in a thread that runs a newer version of it, when that has ended."""
    with POINTING:
        there = sys.modules.get(name)
        if there is not None and is_stand_in(there):
            object.__getattribute__(there, "__dict__")["old"] = module
        else:
            point(name, module)


def point(name: str, module: ModuleType | None) -> None:
    """What `import name` gives from now on; None takes the name away."""
    package, _, child = name.rpartition(".")
    parent = sys.modules.get(package)
    if module is None:
        sys.modules.pop(name, None)
        if parent is not None:
            with suppress(AttributeError):
                delattr(parent, child)
        return
    sys.modules[name] = module
    if parent is not None:
        with suppress(AttributeError):
            setattr(parent, child, module)


def bind_children(package: ModuleType) -> None:
    """Its submodules that are loaded become its attributes, as they are after an import."""
    prefix = f"{package.__name__}."
    for name, module in sys.modules.copy().items():  # in one step: other threads import meanwhile
        child = name.removeprefix(prefix)
        direct = name.startswith(prefix) and "." not in child
        if direct and isinstance(vars(package).get(child, module), ModuleType):
            setattr(package, child, module)


def forget(modules: Sequence[ModuleType]) -> None:
    for module in modules:
        if sys.modules.get(module.__name__) is module:
            point(module.__name__, None)


def _keeps(names: dict[str, Any], fresh: ModuleType) -> bool:
    own = {id(value) for value in vars(fresh).copy().values() if getattr(value, "__module__", None) == fresh.__name__}
    return any(value is fresh or id(value) in own for value in names.copy().values())
