"""Many files change as one or not at all: killed at every step, refused at every trap, given back byte for byte."""

from __future__ import annotations

import fcntl
import json
import os
import py_compile
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import HealingError, InputError, PatchConflict, PatchInvalid, StorageError, TreeBusy
from chimera.healing import apply as apply_module
from chimera.healing import change_log
from chimera.healing.apply import Applied, apply, recover, roll_back
from chimera.healing.change_log import ChangeLog
from chimera.healing.tree import Tree

DYING = Path(__file__).with_name("dying.py")
PROJECT = Path(__file__).parents[3]
DISK_LIKE = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "pkg").mkdir(parents=True)
    (root / "a.py").write_bytes(b"a = 1\n")
    (root / "a.py").chmod(0o751)
    (root / "pkg" / "b.py").write_bytes(b"b = 1\r\n")
    return root


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.db"


def photo(root: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Everything that is there: modes, bytes, where links lead."""
    seen: dict[str, tuple[int, bytes | str | None]] = {}
    for path in root.rglob("*"):
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        seen[str(path.relative_to(root))] = (path.lstat().st_mode, content)
    return seen


CHANGES: dict[str, bytes | None] = {"a.py": b"a = 2\n", "pkg/b.py": None, "new/deep/c.py": b"\x00\xff", "pkg/d.py": b""}


# -- killed


def dies(how: str, folder: Path) -> dict[str, int]:
    ran = subprocess.run(
        [sys.executable, str(DYING), how, str(folder)],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    counts: dict[str, int] = json.loads(ran.stdout)
    assert counts.pop("unsettled") == 0
    return counts


def test_killed_at_every_step_the_tree_is_old_or_new() -> None:
    with tempfile.TemporaryDirectory(dir=DISK_LIKE) as folder:
        seen = dies("steps", Path(folder))
    assert not {"apply mixed", "undo mixed", "undone though done"} & seen.keys()
    assert all(seen[each] for each in ("apply old", "apply new", "undo old", "undo new"))
    # The kills did hit the moments that matter: what they left was mixed before it was recovered.
    assert seen["apply mixed before"] > 10 and seen["undo mixed before"] > 10


def test_killed_at_every_step_of_recovery_the_tree_is_old_in_the_end() -> None:
    with tempfile.TemporaryDirectory(dir=DISK_LIKE) as folder:
        seen = dies("nested", Path(folder))
    assert seen["recoveries killed"] > 50 and seen["nested old"] == seen["mixed"] > 5
    assert not {"nested new", "nested mixed"} & seen.keys()


def test_killed_at_fifty_random_moments_the_tree_is_old_or_new(tmp_path: Path) -> None:
    seen = dies("times", tmp_path / "dying")
    assert seen["killed"] == 50 and "timed mixed" not in seen


# -- applied and given back


def test_a_change_is_made_and_given_back_byte_for_byte(root: Path, log: Path) -> None:
    before = photo(root)
    applied = apply(root, CHANGES, log=log)
    assert applied.paths == tuple(sorted(CHANGES))
    after = photo(root)
    assert {name: content for name, (_, content) in after.items() if content is not None} == {
        name: data for name, data in CHANGES.items() if data is not None
    }
    assert after["a.py"][0] & 0o7777 == 0o751 and after["pkg/d.py"][0] & 0o7777 == 0o644
    roll_back(applied)
    assert photo(root) == before
    roll_back(applied)
    assert photo(root) == before


names = st.sampled_from(["a.py", "b.py", "p/a.py", "p/q/a.py", "r/a.py"])
contents = st.none() | st.binary(max_size=8)
trees = st.dictionaries(names, st.binary(max_size=8))


@given(trees, st.lists(st.dictionaries(names, contents, min_size=1), min_size=1, max_size=3))
def test_changes_are_given_back_in_reverse(start: dict[str, bytes], steps: list[dict[str, bytes | None]]) -> None:
    with tempfile.TemporaryDirectory(dir=DISK_LIKE) as folder:
        root, log = Path(folder, "tree"), Path(folder, "log.db")
        root.mkdir()
        for path, data in start.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        done: list[tuple[dict[str, tuple[int, bytes | str | None]], Applied]] = []
        for changes in steps:
            before = photo(root)
            try:
                done.append((before, apply(root, changes, log=log)))
            except PatchInvalid:
                assert all(before.get(path, (0, None))[1] == data for path, data in changes.items())
                assert photo(root) == before
                continue
            assert {path: photo(root).get(path, (0, None))[1] for path in changes} == changes
        for before, applied in reversed(done):
            roll_back(applied)
            assert photo(root) == before


def test_it_can_be_given_back_in_a_later_process_by_what_applied_says(root: Path, log: Path) -> None:
    before = photo(root)
    applied = apply(root, CHANGES, log=log)
    roll_back(Applied(Path(str(applied.root)), Path(str(applied.log)), int(applied.id), ()))
    assert photo(root) == before


@pytest.mark.parametrize(
    "meddle",
    [
        lambda root: (root / "a.py").write_bytes(b"mine"),
        lambda root: (root / "a.py").chmod(0o600),
        lambda root: (root / "new/deep/c.py").unlink(),
        lambda root: (root / "pkg/b.py").write_bytes(b"b = 1\r\n"),
    ],
)
def test_what_somebody_else_changed_since_is_not_given_back(
    root: Path, log: Path, meddle: Callable[[Path], object]
) -> None:
    applied = apply(root, CHANGES, log=log)
    meddle(root)
    before = photo(root)
    with pytest.raises(PatchConflict) as refused:
        roll_back(applied)
    assert len(refused.value.paths) == 1 and photo(root) == before


def test_a_change_below_a_later_one_is_not_given_back(root: Path, log: Path) -> None:
    first = apply(root, {"a.py": b"2"}, log=log)
    apply(root, {"a.py": b"3"}, log=log)
    with pytest.raises(PatchConflict, match=r"a\.py"):
        roll_back(first)


def test_a_recovery_that_meets_foreign_work_does_nothing_and_says_so(root: Path, log: Path) -> None:
    with Tree(root) as tree, closing(ChangeLog(log)) as kept:
        files = [change_log.FileChange(name, tree.read(name), "0" * 64) for name in ("a.py", "pkg/b.py")]
        kept.begin(tree.root, files, [])
    (root / "a.py").write_bytes(b"mine")
    for _ in range(2):
        with pytest.raises(PatchConflict, match=r"changed a\.py,"):
            recover(root, log=log)
    with pytest.raises(PatchConflict):
        apply(root, {"pkg/b.py": b"new"}, log=log)
    assert (root / "a.py").read_bytes() == b"mine" and (root / "pkg/b.py").read_bytes() == b"b = 1\r\n"


def test_folders_that_were_made_go_with_their_compiled_code_but_not_with_others_files(root: Path, log: Path) -> None:
    applied = apply(root, {"one/a.py": b"", "two/a.py": b""}, log=log)
    py_compile.compile(str(root / "one/a.py"))
    (root / "two/notes.txt").write_text("mine")
    roll_back(applied)
    assert not (root / "one").exists()
    assert [path.name for path in (root / "two").iterdir()] == ["notes.txt"]


def test_python_never_takes_compiled_code_of_another_version(root: Path, log: Path) -> None:
    """All are of one size and written within a second, which is all that Python looks at."""
    values = [imported(root)]
    applied = apply(root, {"a.py": b"a = 2\n"}, log=log)
    values.append(imported(root))
    roll_back(applied)
    values.append(imported(root))
    apply(root, {"a.py": b"a = 3\n"}, log=log)
    values.append(imported(root))
    assert values == ["1", "2", "1", "3"]


def imported(root: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", "import a; print(a.a)"],
        cwd=root,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.strip()


# -- refused


def link_file(root: Path) -> None:
    (root / "pkg/b.py").unlink()
    (root / "pkg/b.py").symlink_to(root / "a.py")


def link_folder(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "b.py").write_bytes(b"secret")
    (root / "pkg").rename(root / "was")
    (root / "pkg").symlink_to(outside)


def pipe(root: Path) -> None:
    (root / "pkg/b.py").unlink()
    os.mkfifo(root / "pkg/b.py")


def folder(root: Path) -> None:
    (root / "pkg/b.py").unlink()
    (root / "pkg/b.py").mkdir()


def file_for_folder(root: Path) -> None:
    (root / "pkg/b.py").unlink()
    (root / "pkg").rmdir()
    (root / "pkg").write_bytes(b"")


def large(root: Path) -> None:
    os.truncate(root / "pkg/b.py", 1_000_001)


@pytest.mark.parametrize(
    "trap",
    [link_file, link_folder, pipe, folder, file_for_folder, large, lambda root: (root / "pkg/b.py").chmod(0o444)],
)
@pytest.mark.parametrize("data", [b"new", None])
def test_traps_are_refused_and_nothing_is_changed(
    root: Path, log: Path, trap: Callable[[Path], None], data: bytes | None
) -> None:
    trap(root)
    before = photo(root.parent)
    with pytest.raises(PatchInvalid, match="pkg"):
        apply(root, {"a.py": b"a = 2\n", "pkg/b.py": data, "zz.py": b"z"}, log=log)
    assert {name: was for name, was in photo(root.parent).items() if not name.startswith("log.db")} == before
    assert recover(root, log=log) == 0


@pytest.mark.parametrize("path", ["../a.py", "/tmp/a.py", ".git/config", "pkg/../../x.py", "a\\b.py", ""])
def test_paths_that_lead_out_are_refused(root: Path, log: Path, path: str) -> None:
    with pytest.raises(PatchInvalid, match="no path for a patch"):
        apply(root, {"a.py": b"x", path: b"x"}, log=log)
    assert (root / "a.py").read_bytes() == b"a = 1\n"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "0 files"),
        ({f"f{n}.py": b"" for n in range(129)}, "129 files"),
        ({"a.py": b"x" * 1_000_001}, "becomes too large"),
        ({f"f{n}.py": b"x" * 1_000_000 for n in range(17)}, "together"),
        ({"a.py": b"a = 1\n", "gone.py": None}, "same after"),
    ],
)
def test_what_is_too_much_or_nothing_is_refused(
    root: Path, log: Path, changes: dict[str, bytes | None], why: str
) -> None:
    before = photo(root)
    with pytest.raises(PatchInvalid, match=why):
        apply(root, changes, log=log)
    assert photo(root) == before


def test_a_tree_that_is_not_as_believed_is_left_alone(root: Path, log: Path) -> None:
    with pytest.raises(PatchConflict) as refused:
        apply(root, {"a.py": b"3", "x.py": b""}, log=log, before={"a.py": b"a = 0\n", "x.py": None})
    assert refused.value.paths == ("a.py",) and (root / "a.py").read_bytes() == b"a = 1\n"
    assert apply(root, {"a.py": b"3", "x.py": b""}, log=log, before={"a.py": b"a = 1\n", "x.py": None}).id == 1


def test_a_tree_that_another_changes_is_busy_whichever_log_it_uses(root: Path, log: Path) -> None:
    handle = os.open(root, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        for use in (
            lambda: apply(root, CHANGES, log=log),
            lambda: apply(root, CHANGES, log=log.with_name("other.db")),
            lambda: recover(root, log=log),
        ):
            with pytest.raises(TreeBusy):
                use()
    finally:
        os.close(handle)
    apply(root, CHANGES, log=log)


def test_a_disk_that_fails_half_way_leaves_the_tree_as_it_was(
    root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, swapped, swap = photo(root), [], Tree.swap

    def fail_at_third(tree: Tree, path: str, temp: str) -> None:
        swapped.append(path)
        if len(swapped) == 3:
            raise OSError(28, "No space left on device")
        swap(tree, path, temp)

    monkeypatch.setattr(Tree, "swap", fail_at_third)
    with pytest.raises(HealingError, match=r"nothing was changed: .*No space"):
        apply(root, CHANGES, log=log)
    assert swapped[:3] == ["a.py", "new/deep/c.py", "pkg/d.py"]
    assert photo(root) == before and recover(root, log=log) == 0


def test_a_disk_that_fails_while_undoing_too_says_to_recover(
    root: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = photo(root)
    applied = apply(root, CHANGES, log=log)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Tree, "swap", fail)
        with pytest.raises(HealingError, match="then call recover"):
            roll_back(applied)
        with pytest.raises(HealingError, match="then call recover"):
            recover(root, log=log)
    assert photo(root) != before and recover(root, log=log) == 1 and photo(root) == before
    with monkeypatch.context() as broken:
        broken.setattr(Tree, "swap", fail)
        broken.setattr(Tree, "sync", fail)
        with pytest.raises(HealingError, match=r"nor undone now .*call recover"):
            apply(root, CHANGES, log=log)
    assert recover(root, log=log) == 1 and photo(root) == before


def test_a_log_where_patches_reach_it_and_a_root_that_is_not_there_are_refused(root: Path, log: Path) -> None:
    with pytest.raises(PatchInvalid, match="hidden folder"):
        apply(root, CHANGES, log=root / "log.db")
    with pytest.raises(HealingError, match="opened as a folder"):
        apply(root / "none", CHANGES, log=log)
    apply(root, CHANGES, log=root / ".chimera" / "log.db")


def test_a_log_whose_saved_bytes_are_damaged_is_not_believed(root: Path, log: Path) -> None:
    applied = apply(root, CHANGES, log=log)
    kept = ChangeLog(log)
    kept._connection.execute("UPDATE files SET old = x'00' WHERE path = 'a.py'")
    kept.close()
    before = photo(root)
    with pytest.raises(HealingError, match="damaged"):
        roll_back(applied)
    assert photo(root) == before
    log.write_bytes(b"no database at all, but long enough to be taken for one")
    with pytest.raises(StorageError, match="damaged"):
        apply(root, {"a.py": b""}, log=log)


def test_the_log_forgets_the_oldest(root: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_log, "MAX_SETTLED", 2)
    first, second, third = (apply(root, {"a.py": data}, log=log) for data in (b"2", b"3", b"4"))
    roll_back(third)
    roll_back(second)
    with pytest.raises(HealingError, match="no longer has change 1"):
        roll_back(first)
    monkeypatch.setattr(change_log, "MAX_SETTLED_BYTES", 0)
    kept = apply(root, {"a.py": b"5"}, log=log)
    roll_back(kept)
    assert (root / "a.py").read_bytes() == b"2"


def test_refusals_of_paths_are_the_callers_to_change_and_conflicts_are_not() -> None:
    assert issubclass(PatchInvalid, InputError) and not issubclass(PatchConflict, InputError)
    assert apply_module.MAX_FILES >= 64
