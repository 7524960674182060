"""Which names a patch may speak of: plain files of the tree, and nothing that hides or leads out of it."""

from __future__ import annotations

import unicodedata

from chimera.core.errors import PatchInvalid

MAX_FILE_BYTES = 1_000_000
MAX_PATH_BYTES = 512
MAX_PART_BYTES = 200
MAX_DEPTH = 16


def check_path(path: str) -> str:
    """`path` itself if it is a relative POSIX path of visible names. Raises PatchInvalid that says what is wrong.

    Links are found where the file system is at hand (`chimera.healing.tree`): a name does not show them.
    """
    fault = _fault(path)
    if fault is not None:
        raise PatchInvalid(f"{path[:100]!r} is no path for a patch: {fault}")
    return path


def _fault(path: str) -> str | None:
    """What is wrong with the path; None if nothing is."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "it is no UTF-8"
    if not path or size > MAX_PATH_BYTES:
        return f"it has {size} bytes, and must have 1 to {MAX_PATH_BYTES}"
    if "\\" in path or any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") for char in path):
        return "it has a backslash or a control character; write a/b.py"
    if path.startswith("/"):
        return "it must be relative to the root of the tree"
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        return f"it is {len(parts)} names deep, and may be {MAX_DEPTH}"
    for part in parts:
        if not part or part != part.strip():
            return "a name in it is empty, or begins or ends with a space"
        if part.startswith("."):
            return f"{part!r} begins with a dot: patches touch no hidden files, and do not go up"
        if len(part.encode()) > MAX_PART_BYTES:
            return f"a name in it has more than {MAX_PART_BYTES} bytes"
    return None
