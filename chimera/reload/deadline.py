"""A limit on how long code of a new version may run in this process before it has been accepted.

A thread cannot be ended from outside, but an exception can be raised in it at its next bytecode (CPython's
`PyThreadState_SetAsyncExc`). That stops a loop in Python. It does not stop native code that never comes back: what is
not trusted is tried in a sandbox before it comes here.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chimera.core.errors import ReloadError

AGAIN_S = 0.1
"""How soon it is raised again in code that has caught it."""


class OutOfTime(BaseException):
    """Not an Exception, so that an `except Exception` in a loop does not keep the loop going."""


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Raises ReloadError that begins with `what` in the thread that entered, once `seconds` have passed.

    Code that catches what ends it, and comes to its end late all the same, has taken too long too.
    """
    thread, lock = threading.get_ident(), threading.Lock()
    done, late = threading.Event(), threading.Event()

    def watch() -> None:
        pause = seconds
        while not done.wait(pause):
            with lock:
                if not done.is_set():
                    late.set()
                    _raise_in(thread, OutOfTime)
            pause = AGAIN_S

    def end() -> None:
        with lock:
            done.set()
        if late.is_set():
            _let_come(thread)

    threading.Thread(target=watch, name="reload time limit", daemon=True).start()
    try:
        try:
            yield
        finally:
            end()
    except OutOfTime:
        late.set()
    finally:
        end()  # once more: what it raises may have come just before the first was through
    if late.is_set():
        raise ReloadError(f"{what} took more than {seconds:g} s: it was stopped")


def ends_us(error: BaseException) -> bool:
    """The user's Ctrl-C, which comes to the main thread alone: anywhere else it is new code that raises it."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def said(error: BaseException) -> str:
    """The type and the message of what new code raised. Making the message is new code too, and may raise."""
    try:
        return f"{type(error).__name__}: {error!s:.500}"
    except Exception:
        return f"{type(error).__name__}, which cannot be shown"


def _let_come(thread: int) -> None:
    """What was raised in this thread, and may not have come yet, comes now.

    Taking it back with NULL would leave CPython 3.11's flag for it set for good: every check of the interpreter would
    then be slow, and a traced function would never begin.
    """
    try:
        _raise_in(thread, OutOfTime)
        while True:
            pass
    except OutOfTime:
        return


def _raise_in(thread: int, error: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
