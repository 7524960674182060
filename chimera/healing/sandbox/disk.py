"""How much a folder holds, and its end: both without trust in what a stranger made there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

ENTRY = 4096
"""The least that an entry counts, so that a million empty files are not free."""

DEEPEST = 3000
"""Characters in the longest path that is looked into. What lies deeper is taken for an attack."""


def held(folder: Path, enough: float = float("inf")) -> float:
    """Bytes on disk under `folder`; infinite if it is too deep to look through. Ends early at `enough`."""
    total = 0.0
    look = [str(folder)]
    while look and total <= enough:
        path = look.pop()
        if len(path) > DEEPEST:
            return float("inf")
        with suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    total += max(ENTRY, found.st_blocks * 512)
                    if stat.S_ISDIR(found.st_mode):
                        look.append(entry.path)
                if total > enough:
                    break
    return total


def held_without_name(pids: Iterable[int]) -> int:
    """Bytes of files that have no name any more, or never had one, which these processes keep open."""
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    file = os.stat(f"/proc/{pid}/fd/{fd}")
                    if stat.S_ISREG(file.st_mode) and file.st_nlink == 0:
                        found[file.st_dev, file.st_ino] = file.st_blocks * 512
    return sum(found.values())


def remove_tree(folder: Path) -> None:
    """Delete `folder` and all in it, however deep and whatever its modes; links are not followed.

    Folders within are moved up before they are emptied, so that no path grows long. Nobody may be writing in it.
    """
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        serial = 0
        look = ["."]
        while look:
            name = look.pop()
            os.chmod(name, 0o700, dir_fd=top)
            here = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            try:
                with os.scandir(here) as entries:
                    inside = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
                for child, is_folder in inside:
                    if not is_folder:
                        os.unlink(child, dir_fd=here)
                        continue
                    serial += 1
                    moved = f".{serial}.{os.urandom(8).hex()}"
                    os.chmod(child, 0o700, dir_fd=here)
                    os.rename(child, moved, src_dir_fd=here, dst_dir_fd=top)
                    look.append(moved)
            finally:
                os.close(here)
            if name != ".":
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(folder)
