"""One process owns the ledger's file: what a connection may do is decided within the process, and nowhere else."""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from chimera.core.errors import LedgerError, LedgerUnavailable


@dataclass
class Owner:
    """What this process has of a ledger's file. `writing` is held by whichever of its connections writes."""

    path: Path
    lock_file: int
    users: int = 0
    writing: threading.Lock = field(default_factory=threading.Lock)


_owned: dict[Path, Owner] = {}
_owning = threading.Lock()


def own(path: Path) -> Owner:
    """Have the ledger at `path` for this process; again for each of its connections.

    Raises LedgerUnavailable if another process has it.
    """
    path = path.resolve()
    with _owning:
        owner = _owned.get(path)
        if owner is None:
            owner = _owned[path] = Owner(path, _lock(path))
        owner.users += 1
        return owner


def disown(owner: Owner) -> None:
    """One connection less; another process may have the ledger after the last."""
    with _owning:
        owner.users -= 1
        if owner.users == 0 and _owned.get(owner.path) is owner:
            del _owned[owner.path]
            os.close(owner.lock_file)


def _lock(path: Path) -> int:
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LedgerError(f"{lock} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(file)
        raise LedgerUnavailable(
            f"{path}: another process (pid {holder}) has this ledger: ask it, or stop it first."
            " For several processes there is PostgreSQL: CHIMERA_LEDGER_URL=postgresql://..."
        ) from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def _forked() -> None:
    """A child has nothing of its parent's: SQLite's connections do not survive a fork."""
    global _owning  # noqa: PLW0603 - another thread of the parent may have held it
    _owning = threading.Lock()
    for owner in _owned.values():
        os.close(owner.lock_file)
    _owned.clear()


os.register_at_fork(after_in_child=_forked)
