"""State that outlives the code that works on it."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

from chimera.core.errors import ReloadError
from chimera.reload.deadline import OutOfTime, ends_us, said
from chimera.reload.versions import ModuleVersion


class Held:
    """One holder's state. Take it with `with held as state:`, and take the module there too.

    State and code change together and never within the block, so what is called there is of the version that the
    state is of. Nothing may be awaited in the block, and nothing of the state kept after it.
    """

    def __init__(self, state: Any) -> None:
        self.state = state
        self._lock = threading.RLock()

    def __enter__(self) -> Any:
        self._lock.acquire()
        return self.state

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def acquire(self, timeout_s: float) -> bool:
        return self._lock.acquire(timeout=timeout_s)


@contextmanager
def all_of(holders: Iterable[Held], timeout_s: float) -> Iterator[None]:
    """Raises ReloadError if they are in use for longer than `timeout_s` together: then none is kept."""
    until = time.monotonic() + timeout_s
    with ExitStack() as stack:
        for holder in holders:
            if not holder.acquire(max(0.0, until - time.monotonic())):
                raise ReloadError(f"a holder's state has been in use for {timeout_s:g} s: try again")
            stack.push(holder)
        yield


def migrated(module: ModuleType, state: Any, old: ModuleVersion | None) -> Any:
    """`migrate(state, old_version)` of `module`, on a deep copy: the new state is what it gives.

    Without a `migrate` the state is used as it is, and is not copied. Raises ReloadError, whatever went wrong.
    """
    return _through(vars(module).get("migrate"), "migrate", module, state, old)


def moved_back(module: ModuleType, state: Any, to: ModuleVersion) -> Any:
    """`migrate_back(state, older_version)` of the newer `module`, on a deep copy.

    Without one, and without a `migrate`, the state is used as it is. Raises ReloadError if it migrates one way only.
    """
    back = vars(module).get("migrate_back")
    if back is None and "migrate" in vars(module):
        raise ReloadError(
            f"{to.module} has migrate() and no migrate_back(state, version): add it, or roll back with lossy=True to "
            f"the state that version {to.version} left"
        )
    return _through(back, "migrate_back", module, state, to)


def _through(function: Callable[[Any, int], Any] | None, verb: str, module: ModuleType, state: Any, of: Any) -> Any:
    if function is None or of is None:
        return state
    try:
        return function(copy.deepcopy(state), of.version)
    except OutOfTime:
        raise
    except BaseException as error:
        if ends_us(error):
            raise
        raise ReloadError(f"{verb}() of {module.__name__} raised {said(error)}") from error
