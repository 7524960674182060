"""Where the code is that is mended, and where what is remembered of it may be kept."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from chimera.core.errors import InputError
from chimera.healing.workspace import LEFT_OUT, snapshot

MAX_NAMES = 10_000
"""Modules that are looked through to suggest one."""


def module_file(workspace: Path, module: str) -> str:
    """The file of a module, relative to the workspace, in which `src` may hold the code. Raises InputError."""
    if not workspace.is_dir():
        raise InputError(f"{workspace} is no folder: --workspace names the one with the code and its tests")
    if not all(part.isascii() and part.isidentifier() for part in module.split(".")):
        raise InputError(f"{module!a:.100} is no dotted name of a module, such as shop.till")
    stem = module.replace(".", "/")
    for path in (f"{stem}.py", f"{stem}/__init__.py", f"src/{stem}.py", f"src/{stem}/__init__.py"):
        if (workspace / path).is_file():
            return path
    near = get_close_matches(module, _modules(workspace), n=3)
    hint = f"; there is {', '.join(near)}" if near else ""
    raise InputError(f"{module} is no module of {workspace}: there is no {stem}.py{hint}")


def held_out(workspace: Path, hidden: Path) -> Path:
    """`hidden`, if there are tests in it to judge patches by. Raises InputError, before a model is paid for any."""
    if not hidden.is_dir():
        raise InputError(
            f"{hidden} is no folder: the hidden tests are in one, with test_*.py that the model does not see"
        )
    root, inner = workspace.resolve(), hidden.resolve()
    if inner == root or inner in root.parents:
        raise InputError(f"{hidden} holds the workspace: give the hidden tests a folder of their own")
    if not any(path.endswith(".py") for path in snapshot(hidden).files):
        raise InputError(f"{hidden} holds no test_*.py: without hidden tests there is nothing to judge a patch by")
    return hidden


def outside(workspace: Path, home: Path) -> Path:
    """`home`, made if it is not there. Raises InputError where a patch could change it: within the workspace."""
    root, wanted = workspace.resolve(), home.expanduser().resolve()
    if root == wanted or root in wanted.parents:
        raise InputError(
            f"{home} lies in the workspace {workspace}, where a patch could change it: name another --home"
        )
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{home} cannot be used as --home: {error.strerror}") from None
    return wanted


def _modules(workspace: Path) -> list[str]:
    names: list[str] = []
    for folder, folders, files in os.walk(workspace):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        inner = Path(folder).relative_to(workspace).parts
        names += [".".join((*inner, name.removesuffix(".py"))) for name in files if name.endswith(".py")]
        if len(names) >= MAX_NAMES:
            break
    return names[:MAX_NAMES]
