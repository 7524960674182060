"""What a patch may touch, and what powers it may bring in: decided from its text, before any of it is run.

Two rules that need no trial. A patch changes only files that it is allowed to, never those that judge it. And it does
nothing that the code before it did not do, unless that is allowed (`chimera.healing.capabilities`).
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder

from chimera.healing.capabilities import capabilities
from chimera.healing.powers import BY_MEMBER, HARMLESS, NAMES

__all__ = ["PROTECTED", "PathPolicy", "capabilities", "judge_capabilities", "local_modules"]

PROTECTED = (
    # tests judge the patch
    *("**/test_*.py", "**/*_test.py", "**/test.py", "**/tests.py", "**/conftest.py", "**/tests/**", "**/test/**"),
    # these decide how tests and Python itself run
    *("**/pytest.ini", "**/pyproject.toml", "**/setup.cfg", "**/setup.py", "**/tox.ini", "**/noxfile.py", "**/*.pth"),
    *("**/sitecustomize.py", "**/usercustomize.py", "**/__pycache__/**", "**/*.pyc", "**/*.so", "**/*.pyd"),
    # Chimera's own judgement and its secrets
    *("**/chimera/security/**", "**/chimera/healing/**"),
    # settings of tools
    *("**/.*", "**/.*/**"),
)
"""Files that no patch touches."""

_IN_PLACE = re.compile(r"files:os\.(replace|rename|fsync)\((?:[^'\"/]|'[^'/]*')*\)")

_TAKEN = frozenset(sys.stdlib_module_names) | {"pytest", "_pytest", "pluggy", "iniconfig", "packaging", "hypothesis"}


@dataclass(frozen=True, kw_only=True)
class PathPolicy:
    """Which files a patch may change: those of `allowed` that are not `protected`.

    Globs over paths with `/`: `*` and `?` stay within a folder, `**` goes through folders. Case does not matter, as
    there are file systems to which it does not. What is protected stays so whatever is allowed.
    """

    allowed: tuple[str, ...] = ("**/*.py",)
    protected: tuple[str, ...] = PROTECTED

    def refusal(self, path: str, existing: Collection[str] = ()) -> str | None:
        """Why a patch must not touch this path; None where it may. `existing` are the files that there are."""
        parts = path.split("/")
        if not path or path.startswith("/") or {"", ".", ".."} & set(parts) or re.search(r"[\\\x00-\x1f\x7f]", path):
            return f"{path!r} is no path within the workspace"
        for glob in self.protected:
            if _matches(path, glob):
                return f"{path} is protected ({glob})"
        if not any(_matches(path, glob) for glob in self.allowed):
            return f"{path} is not among the files that a patch may change ({', '.join(self.allowed)})"
        if path not in existing:
            top = parts[1] if parts[0] == "src" and len(parts) > 1 else parts[0]
            if _is_taken(top.removesuffix(".py")) and not any(_is_in(other, top) for other in existing):
                return f"{path} would stand in for the module of that name"
            if any(path.lower() == other.lower() for other in existing):
                return f"{path} differs from another file only in case"
        return None

    def refusals(self, paths: Iterable[str], existing: Collection[str] = ()) -> list[str]:
        """Why a patch that changes these files is refused, sorted; empty where it may."""
        return sorted(reason for path in paths if (reason := self.refusal(path, existing)))


def judge_capabilities(
    before: str, after: str, allowed: Collection[str] = (), local: frozenset[str] = frozenset()
) -> list[str]:
    """What the new source can do that the old one could not, and nobody allowed: sorted; empty is good.

    `before` is "" for a new file. An entry of `allowed` is a capability (`import:socket`) or a whole kind (`network`).
    Modules that are harmless may always be imported. Raises SyntaxError where `after` is no Python; a `before` that is
    none could do nothing.
    """
    try:
        had = capabilities(before, local)
    except SyntaxError:
        had = frozenset()
    new = capabilities(after, local) - had
    fine = {f"import:{name}" for name in HARMLESS | BY_MEMBER} | set(allowed)
    if "files:write a file" in had:  # to put it in its place in one step is the same power
        fine |= {found for found in new if _IN_PLACE.fullmatch(found)}
    fine |= {f"import:{name.split('.')[0]}" for name in ("urllib.parse", "http.HTTPStatus") if NAMES[name] == ""}
    return sorted(found for found in new if found not in fine and found.partition(":")[0] not in allowed)


def local_modules(paths: Iterable[str]) -> frozenset[str]:
    """The top-level names that a workspace's own modules are imported by, beside `src` where it has one."""
    tops = set()
    for path in paths:
        parts = path.removeprefix("src/").split("/")
        if path.endswith(".py") and parts[0].removesuffix(".py") not in _TAKEN:
            tops.add(parts[0].removesuffix(".py"))
    return frozenset(tops)


def _is_taken(name: str) -> bool:
    """Whether Python, or what is installed beside pytest, has a module of this name."""
    places = list({sysconfig.get_path(kind) for kind in ("purelib", "platlib")})
    return name.lower() in _TAKEN or (name.isidentifier() and PathFinder.find_spec(name, places) is not None)


def _is_in(path: str, top: str) -> bool:
    return path.removeprefix("src/").split("/")[0] == top


def _matches(path: str, glob: str) -> bool:
    return _pattern(glob).fullmatch(path) is not None


@cache
def _pattern(glob: str) -> re.Pattern[str]:
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(words.get(piece, re.escape(piece)) for piece in pieces), re.IGNORECASE | re.DOTALL)
