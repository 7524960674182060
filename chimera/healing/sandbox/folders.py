"""What a run may see of the disk: the system's programs, Python's own, what it is given, and one folder to write in."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from chimera.core.errors import InputError

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
CONFIGURATION = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")

FORBIDDEN = tuple(map(Path, ("/etc", "/proc", "/sys", "/dev")))

PATH = "/usr/local/bin:/usr/bin:/bin"


def python_paths() -> list[Path]:
    """The prefix of the running Python, and of the one that its virtual environment was made from."""
    prefixes = map(Path, dict.fromkeys((sys.prefix, sys.base_prefix)))
    return [prefix for prefix in prefixes if not prefix.is_relative_to("/usr")]


def writable(folder: Path) -> Path:
    """The folder, as it is really called. Raises InputError if it is none, or holds what must stay out of reach."""
    real = folder.resolve()
    if not real.is_dir():
        raise InputError(f"{folder} is not a folder: make it before the run")
    return _narrow(real)


def readable_paths(readable: Sequence[Path]) -> list[Path]:
    """Python's paths and those given, under the names given and under their real ones."""
    found: dict[Path, None] = {}
    for path in (*python_paths(), *readable):
        path = path.absolute()
        if not path.exists():
            raise InputError(f"{path} cannot be made readable: it is not there")
        found[path] = found[_narrow(path.resolve())] = None
    return list(found)


def environment(given: Mapping[str, str], scratch: str) -> dict[str, str]:
    """All that the run has of an environment."""
    for name, value in given.items():
        if not name or "=" in name or "\0" in name + value:
            raise InputError(f"{name!r} cannot be in an environment: neither '=' in the name nor zeros anywhere")
    own = {"PATH": PATH, "HOME": scratch, "TMPDIR": scratch, "USER": "sandbox", "LANG": "C.UTF-8"}
    return own | dict(given)


def _narrow(path: Path) -> Path:
    home = Path.home().resolve()
    holds = any(kept.is_relative_to(path) for kept in (home, *FORBIDDEN))
    if holds or any(path.is_relative_to(kept) for kept in FORBIDDEN):
        raise InputError(
            f"{path} holds what a run must not reach: give a narrower folder, outside of /etc and the like"
        )
    return path
