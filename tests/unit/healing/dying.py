"""Applies, rolls back and recovers in children that are killed (SIGKILL), and says what the tree was like after each.

A child dies at its `k`th system call: at the `k`th call of a built-in function of `posix`, `fcntl` or `_sqlite3`, of
which some are before and some after the call that changes something; or whenever its parent's timer says.

    python dying.py steps|nested|times FOLDER   ->   JSON: what happened how often
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from chimera.healing.apply import Applied, apply, recover, roll_back
from chimera.healing.change_log import ChangeLog

OLD = {"a.py": b"a = 1\n", "pkg/b.py": b"b = 1\n" * 5_000, "pkg/gone.py": b"x\n", "same.py": b"s\n"}
CHANGES: dict[str, bytes | None] = {
    "a.py": b"a = 2\n",
    "pkg/b.py": b"b = 2\n" * 5_000,
    "pkg/gone.py": None,
    "new/deep/c.py": b"c\n",
    "pkg/d.py": b"d\n",
}
NEW = {path: data for path, data in (OLD | CHANGES).items() if data is not None}
MODES = {"a.py": 0o755, "pkg/b.py": 0o640}
TIMES = 50
MOST_S = 0.01


def lay(folder: Path) -> tuple[Path, Path]:
    """A new tree and the path of its log."""
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "tree"
    for path, data in OLD.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        (root / path).chmod(MODES.get(path, 0o644))
    return root, folder / "log.db"


def look(root: Path) -> str:
    """`old`, `new` or `mixed`: every file, every mode and every folder counts, and so does anything left over."""
    there = {str(path.relative_to(root)): path for path in root.rglob("*")}
    files = {name: path.read_bytes() for name, path in there.items() if path.is_file()}
    folders = {name for name, path in there.items() if path.is_dir()}
    modes = all(there[name].stat().st_mode & 0o7777 == MODES.get(name, 0o644) for name in files)
    if modes and files == OLD and folders == {"pkg"}:
        return "old"
    return "new" if modes and files == NEW and folders == {"pkg", "new", "new/deep"} else "mixed"


def in_child(work: Callable[[], Any], step: int | None = None, after_s: float | None = None) -> bool:
    """Do the work in a child that dies at a step, or a time after its start; whether it died before it was done."""
    begun, begin = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(begin, b".")
            if step is not None:
                die_at(step)
            work()
            sys.setprofile(None)
            os._exit(0)
        except BaseException as error:
            sys.setprofile(None)
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    os.read(begun, 1)
    os.close(begun)
    os.close(begin)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("a child failed, and was not killed")
    return os.WIFSIGNALED(status)


def die_at(step: int) -> None:
    left = step

    def count(frame: FrameType, event: str, called: Any) -> None:
        nonlocal left
        if event != "c_call":
            return
        owner = getattr(called, "__module__", None) or type(getattr(called, "__self__", None)).__module__
        if owner in ("posix", "fcntl", "sqlite3", "_sqlite3", "_io"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def begin(folder: Path, undoing: bool) -> tuple[Path, Path, Callable[[], Any], str]:
    """A tree, its log, the work to be killed at, and what the tree is when the work is done."""
    root, log = lay(folder)
    if not undoing:
        return root, log, lambda: apply(root, CHANGES, log=log), "new"
    applied: Applied = apply(root, CHANGES, log=log)
    return root, log, lambda: roll_back(applied), "old"


def check(root: Path, log: Path, counts: Counter[str], what: str) -> None:
    """Recover, look, and see that the tree can be used on."""
    counts[f"{what} {look(root)} before"] += 1
    recover(root, log=log)
    after = look(root)
    counts[f"{what} {after}"] += 1
    kept = ChangeLog(log)
    counts["unsettled"] += len(kept.unsettled(str(root)))
    kept.close()


def steps(folder: Path, counts: Counter[str]) -> None:
    """Die at every step of an apply and of a roll-back."""
    for undoing in (False, True):
        step, killed = 0, True
        while killed:
            step += 1
            root, log, work, done = begin(folder, undoing)
            killed = in_child(work, step=step)
            what = "undo" if undoing else "apply"
            check(root, log, counts, what)
            if not killed and look(root) != done:
                counts["undone though done"] += 1
        counts[f"steps of {what}"] = step - 1


def nested(folder: Path, counts: Counter[str]) -> None:
    """Die where the tree is mixed, then at step after step of the recovery, which goes on where the last one died."""
    rng = random.Random(7)
    step, killed = 50, True
    while killed:
        step += rng.randint(1, 5)
        root, log, work, _ = begin(folder, undoing=False)
        killed = in_child(work, step=step)
        if look(root) != "mixed":
            continue
        counts["mixed"] += 1
        at = 1
        while in_child(lambda root=root, log=log: recover(root, log=log), step=at):  # type: ignore[misc]
            at += rng.randint(1, 6)
            counts["recoveries killed"] += 1
        check(root, log, counts, "nested")


def times(folder: Path, counts: Counter[str]) -> None:
    """Die at random moments, also within a call."""
    rng = random.Random(11)
    for number in range(20 * TIMES):
        root, log, work, _ = begin(folder, undoing=number % 4 == 3)
        counts["killed"] += in_child(work, after_s=rng.uniform(0.0, MOST_S))
        check(root, log, counts, "timed")
        if counts["killed"] == TIMES:
            break


if __name__ == "__main__":
    seen: Counter[str] = Counter()
    {"steps": steps, "nested": nested, "times": times}[sys.argv[1]](Path(sys.argv[2]), seen)
    sys.stdout.write(json.dumps(seen))
