"""A workspace as it is read: its files at one moment, and a hash that tells whether anything has changed since."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chimera.core.errors import InputError

MAX_FILES = 20_000
MAX_BYTES = 64 << 20

LEFT_OUT = frozenset(
    ".git .hg .venv venv node_modules __pycache__ .pytest_cache .mypy_cache .ruff_cache .hypothesis".split()
)
"""Folders that are not the workspace's own work: neither read, nor hashed, nor copied."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Regular files by their relative path with `/`; `links` are paths that are anything else, which nobody follows."""

    files: Mapping[str, bytes]
    links: frozenset[str]
    digest: str

    @property
    def texts(self) -> dict[str, str]:
        """The files that are UTF-8. Others cannot be edited by a patch."""
        texts = {}
        for path, data in self.files.items():
            try:
                texts[path] = data.decode()
            except UnicodeDecodeError:
                continue
        return texts

    def below(self, folder: str) -> dict[str, bytes]:
        """The files in a folder, by their path in the workspace."""
        return {path: data for path, data in self.files.items() if path.startswith(f"{folder}/")}


def snapshot(root: Path) -> Snapshot:
    """Read a workspace. Raises InputError where it is no folder, or has more than 20,000 files or 64 MiB."""
    if not root.is_dir():
        raise InputError(f"{root} is no folder: give the one with the code and its tests")
    files: dict[str, bytes] = {}
    links: set[str] = set()
    total = 0
    seen = hashlib.sha256()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for name in sorted([*names, *folders]):
            path = Path(folder, name)
            relative = path.relative_to(root).as_posix()
            status = path.lstat()
            what = b""
            if stat.S_ISREG(status.st_mode):
                total += status.st_size
                if total > MAX_BYTES or len(files) >= MAX_FILES:
                    raise InputError(
                        f"{root} has more than {MAX_FILES:,} files or {MAX_BYTES >> 20} MiB: give a part of it"
                    )
                files[relative] = what = path.read_bytes()
            elif not stat.S_ISDIR(status.st_mode):
                links.add(relative)
                what = os.fsencode(os.readlink(path)) if path.is_symlink() else b"special"
            seen.update(b"%s\0%o\0%d\0" % (os.fsencode(relative), status.st_mode, len(what)) + what)
    return Snapshot(files=files, links=frozenset(links), digest=seen.hexdigest())
