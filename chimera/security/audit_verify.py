"""Whether an audit log is whole: every line reached from the one before, and the signed heads among them.

The chain alone finds what was changed by hand; the anchors find what was cut off or written anew with its hashes.
What came after the last anchor (a writer that was killed leaves that much) rests on the chain alone: it can be cut off
unseen until the log is opened again. Whoever holds the key, or can write the log and all places of its anchors, can
put the clock back; `at_least` is for a number that was noted somewhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from pydantic import ValidationError

from chimera.core.errors import AuditError
from chimera.core.types import Frozen
from chimera.security.audit_anchors import FileAnchors
from chimera.security.audit_entry import (
    GENESIS,
    MAX_LINE_BYTES,
    Anchor,
    AuditEntry,
    hash_of,
    read_anchors,
    removed_path,
    segments,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Kind = Literal["changed", "missing", "order", "truncated", "rewritten", "unreadable", "anchor", "unanchored"]


class Problem(Frozen):
    """The first thing that is wrong: what, and where. `line` counts from 1; 0 is no line of a file."""

    kind: Kind
    what: str
    file: str = ""
    line: int = 0
    seq: int = 0


class AuditReport(Frozen):
    """What `verify` found. `entries` are those that were looked at, up to the first problem.

    `anchored_seq` is the last entry that a signed head stands for, made at `anchored_at_s`; those after it are
    `unanchored`. `torn`: the last line is half a line, as a writer that is killed leaves it, which is no problem.
    `removed_seq` is the last entry that retention took, as a signed statement says.
    """

    ok: bool
    entries: int
    first_seq: int
    last_seq: int
    anchors: int
    anchored_seq: int
    anchored_at_s: float
    unanchored: int
    torn: bool
    removed_seq: int
    first_problem: Problem | None


class _Wrong(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


@dataclass
class Walk:
    """Goes through lines, and knows what the next one must hold. `seq` and `hash` are those of the last one."""

    seq: int = 0
    hash: str = GENESIS
    heads: dict[int, Anchor] = field(default_factory=dict)
    entries: int = 0
    torn: bool = False

    def segment(self, first_seq: int, path: Path, *, is_last: bool) -> Iterator[AuditEntry]:
        """The entries of a file, each checked. Raises `_Wrong`."""
        if first_seq != self.seq + 1:
            kind: Kind = "missing" if first_seq > self.seq + 1 else "order"
            raise _wrong(kind, f"the file begins with entry {first_seq}, after {self.seq}", path, 0, first_seq)
        with _opened(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
                if not line.endswith(b"\n"):
                    if is_last and len(line) < MAX_LINE_BYTES:
                        self.torn = True
                        return
                    raise _wrong("changed", "a line has no end", path, number, self.seq + 1)
                yield self._line(line[:-1], path, number)
        if self.seq < first_seq and not is_last:
            raise _wrong("missing", "the file is empty", path, 0, first_seq)

    def _line(self, line: bytes, path: Path, number: int) -> AuditEntry:
        try:
            entry = AuditEntry.model_validate_json(line)
        except ValidationError:
            raise _wrong("unreadable", "this is no entry", path, number, self.seq + 1) from None
        if entry.seq != self.seq + 1:
            kind: Kind = "missing" if entry.seq > self.seq + 1 else "order"
            raise _wrong(kind, f"entry {entry.seq} comes after {self.seq}", path, number, entry.seq)
        if entry.prev != self.hash:
            raise _wrong("changed", f"entry {self.seq} is not what it was, or this one", path, number, entry.seq)
        self.seq, self.hash = entry.seq, hash_of(line)
        self.entries += 1
        self.check_head(path, number)
        return entry

    def check_head(self, path: Path, number: int) -> None:
        head = self.heads.get(self.seq)
        if head is not None and head.hash != self.hash:
            raise _wrong("rewritten", f"entry {self.seq} is not the one that was signed", path, number, self.seq)


def verify(
    folder: Path, anchors: Path | Iterable[Anchor], public_key: Ed25519PublicKey, *, at_least: int = 0
) -> AuditReport:
    """Read a log, which may be being written, and say whether it is whole. `anchors` are those of a folder, or given.

    It needs time in proportion to the log, and memory for the anchors. Raises AuditError if `folder` cannot be read.
    """
    walk = Walk()
    first_seq = removed_seq = anchored_seq = count = 0
    problem = None
    try:
        found = _anchors(anchors, public_key)  # before the log, which is ahead of them
        count = len(found)
        removed = [anchor for anchor in found if anchor.kind == "removed"] + _statements(folder, public_key)
        walk.heads = _heads(found)
        anchored_seq = max(walk.heads, default=0)
        files = segments(folder)
        if files:
            first_seq = files[0][0]
            removed_seq = _begin(walk, files[0], removed)
        for number, (first, path) in enumerate(files, 1):
            for _ in walk.segment(first, path, is_last=number == len(files)):
                pass
        _check_end(walk, anchored_seq, at_least)
    except _Wrong as wrong:
        problem = wrong.problem
    return AuditReport(
        ok=problem is None,
        entries=walk.entries,
        first_seq=first_seq,
        last_seq=walk.seq,
        anchors=count,
        anchored_seq=anchored_seq,
        anchored_at_s=walk.heads[anchored_seq].at_s if walk.heads else 0.0,
        unanchored=max(0, walk.seq - anchored_seq),
        torn=walk.torn,
        removed_seq=removed_seq,
        first_problem=problem,
    )


def entries(folder: Path) -> Iterator[AuditEntry]:
    """The entries of a log, the oldest first, as far as they can be read: whether they are true is `verify`'s to say.

    Raises AuditError at a line that is no entry.
    """
    for _, path in segments(folder):
        with _opened(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), 1):
                if line.endswith(b"\n"):
                    try:
                        entry = AuditEntry.model_validate_json(line)
                    except ValidationError:
                        raise AuditError(f"{path}, line {number} is no entry: run `chimera audit verify`") from None
                    yield entry


def tail(folder: Path, n: int) -> list[AuditEntry]:
    """The last `n` entries of a log or more, checked among themselves. Raises AuditError if they are not whole."""
    files = segments(folder)
    begin = len(files)
    while begin and (begin == len(files) or files[-1][0] - files[begin][0] < n):
        begin -= 1
    found: list[AuditEntry] = []
    try:
        for number, (first_seq, path) in enumerate(files[begin:], begin + 1):
            if number == begin + 1:
                walk = Walk(seq=first_seq - 1, hash=GENESIS if first_seq == 1 else first_prev(path))
            found += walk.segment(first_seq, path, is_last=number == len(files))
    except _Wrong as wrong:
        problem = wrong.problem
        raise AuditError(
            f"{folder / problem.file}, line {problem.line}: {problem.what}. Move the folder away as evidence, and run"
            " `chimera audit verify` on it"
        ) from None
    return found


@dataclass(frozen=True, slots=True)
class Last:
    """The last entry of a file."""

    seq: int
    hash: str


def outdated(folder: Path, before_s: float) -> Iterator[tuple[Last, Path]]:
    """The files, from the oldest on, of which the last entry is of before then; never the newest file.

    One that is not whole ends it: what somebody did to it is not to be removed with it.
    """
    files = segments(folder)
    for (first_seq, path), (_, following) in pairwise(files):
        last_line = _last_line(path)
        if last_line is None or last_line.at_s >= before_s:
            return
        walk = Walk(seq=first_seq - 1, hash=first_prev(path))
        try:
            for _ in walk.segment(first_seq, path, is_last=False):
                pass
        except _Wrong:
            return
        if first_prev(following) != walk.hash:
            return
        yield Last(walk.seq, walk.hash), path


def _last_line(path: Path) -> AuditEntry | None:
    with _opened(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - MAX_LINE_BYTES))
        lines = file.read().splitlines()
    try:
        return AuditEntry.model_validate_json(lines[-1]) if lines else None
    except ValidationError:
        return None


def first_prev(path: Path) -> str:
    """The hash that the first entry of a file holds; none of an entry if there is no entry."""
    with _opened(path) as file:
        try:
            return AuditEntry.model_validate_json(file.readline(MAX_LINE_BYTES)).prev
        except ValidationError:
            return ""


def _begin(walk: Walk, first: tuple[int, Path], removed: list[Anchor]) -> int:
    """Set out from the first entry, or from one of which a signed statement says that it was removed."""
    first_seq, path = first
    if first_seq == 1:
        return 0
    prev = first_prev(path)
    if not any(anchor.seq == first_seq - 1 and anchor.hash == prev for anchor in removed):
        raise _wrong("missing", f"the entries before {first_seq} are gone, unsigned", path, 1, first_seq)
    walk.seq, walk.hash = first_seq - 1, prev
    walk.check_head(path, 1)
    return walk.seq


def _check_end(walk: Walk, anchored_seq: int, at_least: int) -> None:
    if not walk.heads:
        raise _Wrong(Problem(kind="unanchored", what="no signed head stands for this log: are these its anchors?"))
    if walk.seq < max(anchored_seq, at_least):
        what = f"the log ends with entry {walk.seq}; there was an entry {max(anchored_seq, at_least)}"
        raise _Wrong(Problem(kind="truncated", what=what, seq=walk.seq))


def _heads(anchors: Iterable[Anchor]) -> dict[int, Anchor]:
    """The heads by their entry. Raises `_Wrong` if two that were signed contradict each other."""
    heads: dict[int, Anchor] = {}
    for anchor in anchors:
        if anchor.kind == "head":
            other = heads.setdefault(anchor.seq, anchor)
            if other.hash != anchor.hash:
                what = f"two entries {anchor.seq} were signed: the log was put back, and went on"
                raise _Wrong(Problem(kind="rewritten", what=what, seq=anchor.seq))
    return heads


def _anchors(anchors: Path | Iterable[Anchor], key: Ed25519PublicKey) -> list[Anchor]:
    try:
        found = list(FileAnchors(anchors).read() if isinstance(anchors, Path) else anchors)
    except AuditError as error:
        raise _Wrong(Problem(kind="anchor", what=str(error))) from None
    return _signed(found, key, "an anchor")


def _statements(folder: Path, key: Ed25519PublicKey) -> list[Anchor]:
    path = removed_path(folder)
    try:
        found = list(read_anchors(path)) if path.exists() else []
    except AuditError as error:
        raise _Wrong(Problem(kind="anchor", what=str(error))) from None
    return _signed([anchor for anchor in found if anchor.kind == "removed"], key, "a statement on removed entries")


def _signed(anchors: list[Anchor], key: Ed25519PublicKey, what: str) -> list[Anchor]:
    for anchor in anchors:
        if not anchor.is_signed_by(key):
            told = f"{what} for entry {anchor.seq} is not signed with this key"
            raise _Wrong(Problem(kind="anchor", what=told, seq=anchor.seq))
    return anchors


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error.strerror}") from None


def _wrong(kind: Kind, what: str, path: Path, line: int, seq: int) -> _Wrong:
    return _Wrong(Problem(kind=kind, what=what, file=path.name, line=line, seq=seq))
