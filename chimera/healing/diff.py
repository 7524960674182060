"""What a patch changes, as a diff that people read and `git apply` takes."""

from __future__ import annotations

import difflib
import io


def diff_of(path: str, old: bytes | None, new: bytes) -> str:
    """A unified diff. Lines end at a line feed only, and one that is not ended says so. `old` is None for no file."""
    was = "/dev/null" if old is None else f"a/{path}"
    before, after = (_lines(data.decode()) for data in (old or b"", new))
    said = difflib.unified_diff(before, after, was, f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in said)


def _lines(text: str) -> list[str]:
    return list(io.StringIO(text, newline="\n"))
