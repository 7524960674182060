"""Several files change as one: after a crash at any moment, the tree is put back to wholly old, or is wholly new.

What is there is saved in a log first. Then every new file is written beside the old one; only then are they swapped,
one rename each, and the log notes that all are. Until that note, `recover` undoes; from it on, nothing is left to do.

Who reads the tree while several files are being swapped can see some old and some new: a rename is atomic for one file
only. Load code when `apply` has returned. Extended attributes and further hard links of a file are not kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from chimera.core.errors import HealingError, PatchConflict, PatchInvalid
from chimera.healing.change_log import Change, ChangeLog, FileChange, State
from chimera.healing.paths import MAX_FILE_BYTES, check_path
from chimera.healing.tree import Seen, Tree, sha256

MAX_FILES = 128
MAX_BYTES = 16_000_000
NEW_FILE_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Applied:
    """A change that was made: what `roll_back` needs, also in a later process."""

    root: Path
    log: Path
    id: int
    paths: tuple[str, ...]


def apply(
    root: Path, changes: Mapping[str, bytes | None], *, log: Path, before: Mapping[str, bytes | None] | None = None
) -> Applied:
    """Make the files of the tree at `root` what `changes` says (None: no file), all or none. Files keep their modes.

    `log` is the SQLite file of all changes of this tree; it is not where a patch can reach it. `before` is what the
    caller believes to be there. What an earlier crash left is undone first.

    Raises PatchInvalid for a path that may not be changed (a link, read-only, outside), PatchConflict if the tree is
    not as `before` says, TreeBusy if another applies, HealingError and StorageError if it cannot be done. Nothing has
    changed then, unless the message says that `recover` is needed.
    """
    _check(root, changes, log)
    with Tree(root) as tree, closing(ChangeLog(log)) as kept:
        _undo_unsettled(tree, kept)
        files = _planned(tree, changes, before or {})
        folders = dict.fromkeys(f for file in files if file.new_sha256 for f in tree.missing_folders(file.path))
        change = kept.begin(tree.root, files, list(folders))
        try:
            _carry_out(tree, change, changes)
            kept.settle(change.id, State.APPLIED)
        except BaseException as error:
            _undo_after(error, tree, kept, change)
            if isinstance(error, OSError):
                raise HealingError(f"the patch cannot be applied, and nothing was changed: {error}") from error
            raise
    return Applied(Path(tree.root), log, change.id, tuple(file.path for file in files))


def recover(root: Path, *, log: Path) -> int:
    """Undo what a crash left half done in the tree; the number of changes undone. Safe to be killed and called again.

    Raises PatchConflict, and does nothing, if somebody changed these files since.
    """
    with Tree(root) as tree, closing(ChangeLog(log)) as kept:
        return _undo_unsettled(tree, kept)


def roll_back(applied: Applied) -> None:
    """Give the tree back byte for byte what the change took. To do it twice does nothing the second time.

    Raises PatchConflict, and does nothing, if somebody changed these files since; HealingError if the log has
    forgotten the change.
    """
    with Tree(applied.root) as tree, closing(ChangeLog(applied.log)) as kept:
        _undo_unsettled(tree, kept)
        change = kept.find(tree.root, applied.id)
        if change is None:
            raise HealingError(f"{applied.log} no longer has change {applied.id}: restore the files by hand")
        if change.state is not State.UNDONE:
            _undo(tree, kept, change)


def _check(root: Path, changes: Mapping[str, bytes | None], log: Path) -> None:
    if not 1 <= len(changes) <= MAX_FILES:
        raise PatchInvalid(f"{len(changes)} files are to be changed: 1 to {MAX_FILES} can be at once")
    for path, data in changes.items():
        check_path(path)
        if data is not None and len(data) > MAX_FILE_BYTES:
            raise PatchInvalid(f"{path} becomes too large: a patch handles files up to {MAX_FILE_BYTES:,} bytes")
    if sum(len(data or b"") for data in changes.values()) > MAX_BYTES:
        raise PatchInvalid(f"the changed files are too large: they may have {MAX_BYTES:,} bytes together")
    inside = os.path.relpath(os.path.realpath(log), os.path.realpath(root))
    if not any(part.startswith(".") for part in inside.split("/")):
        raise PatchInvalid(f"{log} lies where a patch can change it: put it outside the tree or in a hidden folder")


def _planned(
    tree: Tree, changes: Mapping[str, bytes | None], before: Mapping[str, bytes | None]
) -> tuple[FileChange, ...]:
    """The files that will differ. Everything that can be refused is refused here, before anything is done."""
    files, foreign = [], []
    for path, data in sorted(changes.items()):
        seen = tree.read(path)
        if path in before and before[path] != seen.data:
            foreign.append(path)
        if data != seen.data:
            tree.check_writable(path, seen)
            files.append(FileChange(path, seen, sha256(data)))
    if foreign:
        raise _conflict(foreign)
    if not files:
        raise PatchInvalid("the files are the same after the patch as before")
    return tuple(files)


def _carry_out(tree: Tree, change: Change, changes: Mapping[str, bytes | None]) -> None:
    for folder in change.folders:
        tree.make_folder(folder)
    for number, file in enumerate(change.files):
        data = changes[file.path]
        if data is not None:
            like = file.old if file.old.data is not None else Seen(None, NEW_FILE_MODE)
            tree.stage(file.path, _temp(change, number, "new"), data, like)
    for number, file in enumerate(change.files):
        if file.new_sha256:
            tree.swap(file.path, _temp(change, number, "new"))
        else:
            tree.remove(file.path)
    tree.sync()


def _temp(change: Change, number: int, what: str) -> str:
    """The name of a file that is only there while the change is under way: known beforehand, to be found after."""
    return f".chimera-{change.id}-{number}.{what}"


def _undo_unsettled(tree: Tree, kept: ChangeLog) -> int:
    unsettled = kept.unsettled(tree.root)
    for change in unsettled:
        _undo(tree, kept, change)
    return len(unsettled)


def _undo_after(error: BaseException, tree: Tree, kept: ChangeLog, change: Change) -> None:
    try:
        _undo(tree, kept, change)
    except Exception as failed:
        raise HealingError(
            f"the patch cannot be applied ({error}), nor undone now ({failed}): call recover when that is mended"
        ) from error


def _undo(tree: Tree, kept: ChangeLog, change: Change) -> None:
    """Put every file of the change back, from whatever mixture of old and new a crash left."""
    back = _to_put_back(tree, change)
    if change.state is State.APPLIED:
        kept.settle(change.id, State.UNDOING)
    _remove_temps(tree, change)
    for number, file in back:
        if file.old.data is not None:
            # What is there now may be later than the old file: what comes back must be later still.
            latest = max(tree.read(file.path).mtime_ns, file.old.mtime_ns)
            like = Seen(file.old.data, file.old.mode, file.old.uid, file.old.gid, latest)
            for folder in tree.missing_folders(file.path):
                tree.make_folder(folder)
            tree.stage(file.path, _temp(change, number, "old"), file.old.data, like)
    for number, file in back:
        if file.old.data is not None:
            tree.swap(file.path, _temp(change, number, "old"))
        else:
            tree.remove(file.path)
    for folder in reversed(change.folders):
        tree.remove_folder(folder)
    tree.sync()
    kept.settle(change.id, State.UNDONE)


def _to_put_back(tree: Tree, change: Change) -> list[tuple[int, FileChange]]:
    """The files that are new, with their numbers. Raises PatchConflict for any that is neither new nor old."""
    back, foreign = [], []
    for number, file in enumerate(change.files):
        seen = tree.read(file.path)
        new_mode = file.old.mode if file.old.data is not None else NEW_FILE_MODE
        if seen.sha256 == file.new_sha256 and seen.mode == (new_mode if file.new_sha256 else 0):
            back.append((number, file))
        elif change.state is State.APPLIED or (seen.sha256, seen.mode) != (file.old.sha256, file.old.mode):
            foreign.append(file.path)
    if foreign:
        raise _conflict(foreign)
    return back


def _remove_temps(tree: Tree, change: Change) -> None:
    for number, file in enumerate(change.files):
        folder, slash, _ = file.path.rpartition("/")
        for what in ("new", "old"):
            tree.remove(folder + slash + _temp(change, number, what))


def _conflict(paths: list[str]) -> PatchConflict:
    names = ", ".join(paths[:8]) + (" ..." if len(paths) > 8 else "")
    return PatchConflict(f"somebody else changed {names}, and nothing was done: look at them first", tuple(paths))
