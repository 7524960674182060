"""What `chimera heal` prints is a diff that git takes, whatever the lines of the file end with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from chimera.healing.diff import diff_of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a\nb\nc\n", "a\nB\nc\n"),
        ("a\nb", "a\nb\n"),
        ("a\nb\n", "a\nb"),
        ("a\nb", "a\nc"),
        (None, "a\nb\n"),
        (None, "a"),
        ("a\x0cb\u2028c\nd\n", "a\x0cb\u2028c\nD\n"),
        ("a\r\nb\r\n", "a\r\nB\r\n"),
        ("tab\there\n", "tab\tthere\n"),
    ],
)
def test_git_makes_the_new_file_of_it(tmp_path: Path, old: str | None, new: str) -> None:
    path = tmp_path / "shop" / "till.py"
    path.parent.mkdir()
    if old is not None:
        path.write_bytes(old.encode())
    diff = diff_of("shop/till.py", None if old is None else old.encode(), new.encode())
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    subprocess.run(command, cwd=tmp_path, input=diff.encode(), check=True, capture_output=True, timeout=30)
    assert path.read_bytes() == new.encode()
