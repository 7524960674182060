"""What was tried before: patches by the failure that they were for, and how often each provider's are accepted.

Rejected patches are remembered too: whoever generates the next one is shown what did not work.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import threading
from pathlib import Path

from chimera.core.clock import Clock
from chimera.core.errors import HealingError
from chimera.core.stats import wilson_interval
from chimera.core.types import Frozen
from chimera.healing.patch import CodePatch
from chimera.storage.sqlite_file import Layout, boundary, open_file, transaction

MAX_REASON_CHARS = 20_000
MAX_RECALLED = 100
MAX_MODELS = 1_000
MAX_FRAMES = 16
MAX_READ_CHARS = 200_000

_FRAME = re.compile(r'^\s*File "([^"\n]+)", line \d+, in (\S+)', re.MULTILINE)
_PYTEST_FRAME = re.compile(r"^(\S+\.py):\d+: (?:in (\S+)|\w)", re.MULTILINE)
_RAISED = re.compile(r"^(?:E +)?(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Warning|Exit|Interrupt|Iteration))\b")
_VARYING = ((r"0x[0-9a-fA-F]+", "@"), (r"[\w.~-]*(?:/[\w.~-]+)+", "/"), (r"[0-9][\w.]*", "#"), (r"\s+", " "))

TABLES = (
    """CREATE TABLE patches (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        signature TEXT NOT NULL,
        patch_id TEXT NOT NULL,
        accepted INTEGER NOT NULL,
        at_s REAL NOT NULL,
        reason TEXT NOT NULL,
        patch TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        UNIQUE (signature, patch_id)
    )""",
    "CREATE INDEX patches_by_worth ON patches (accepted, n, bytes)",
    """CREATE TABLE rates (
        provider TEXT NOT NULL,
        model TEXT NOT NULL,
        accepted INTEGER NOT NULL,
        tried INTEGER NOT NULL,
        last_at_s REAL NOT NULL,
        PRIMARY KEY (provider, model)
    )""",
)


def _to_1(connection: sqlite3.Connection) -> None:
    for statement in TABLES:
        connection.execute(statement)


MEMORY = Layout(what="memory of patches", application_id=0x4348504D, upgrades=(_to_1,))  # "CHPM"


class Remembered(Frozen):
    """A patch that was tried for a failure, the verdict on it and the reason. `at_s` is seconds since the epoch."""

    signature: str
    patch: CodePatch
    accepted: bool
    reason: str
    at_s: float


class SuccessRate(Frozen):
    """How many of a model's patches were accepted. `at_least` is the low end of the rate's 95 % Wilson interval."""

    provider: str
    model: str
    accepted: int
    tried: int

    @property
    def at_least(self) -> float:
        return wilson_interval(self.accepted, self.tried)[0]


def signature(failure: str) -> str:
    """What two texts of the same failure share: the exception's type, and a digest of its frames.

    A frame is the name of a file and of a function: no folders, line numbers, addresses or other numbers, so that it
    survives another checkout and an edit above it. Text without frames is taken itself, without what varies.
    """
    text = failure[-MAX_READ_CHARS:]
    text = text.rpartition("Traceback (most recent call last)")[2]  # of chained exceptions, the one that got out
    raised = [match[1] for line in text.splitlines() if (match := _RAISED.match(line))]
    kind = raised[-1] if raised else "failure"
    found = [*_FRAME.findall(text), *_PYTEST_FRAME.findall(text)]
    frames = [_without_varying(re.split(r"[/\\]", path)[-1]) + ":" + _without_varying(name) for path, name in found]
    once = [frame for frame, before in zip(frames, [None, *frames], strict=False) if frame != before]
    told = "\n".join(once[-MAX_FRAMES:]) if once else _without_varying(text)
    return f"{kind}-{hashlib.sha256(told.encode(errors='replace')).hexdigest()[:24]}"


def _without_varying(text: str) -> str:
    for pattern, instead in _VARYING:
        text = re.sub(pattern, instead, text)
    return text.strip()


class PatchMemory:
    """The memory in the SQLite file at `path`. Threads and processes may share it.

    It holds at most `max_rows` patches of `max_bytes` together: the oldest rejected are forgotten first, then the
    oldest accepted. Success rates outlive the patches. Raises StorageError if the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        max_rows: int = 10_000,
        max_bytes: int = 64_000_000,
        busy_timeout_s: float = 10.0,
    ) -> None:
        if max_rows < 1 or max_bytes < 1:
            raise HealingError("a memory of patches needs room: max_rows and max_bytes must be at least 1")
        self.path = path
        self._clock = clock
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection = open_file(path, MEMORY, busy_timeout_s)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def remember(self, signature: str, patch: CodePatch, *, accepted: bool, reason: str = "") -> None:
        """Keep the verdict on a patch. A later one on the same patch takes its place, as when it is rolled back."""
        text, at_s = patch.model_dump_json(), self._clock.now()
        reason = reason[-MAX_REASON_CHARS:]
        size = len(text.encode()) + len(reason.encode(errors="replace"))
        row = (signature, patch.id, accepted, at_s, reason.encode(errors="replace").decode(), text, size)
        with self._lock, boundary(self.path, MEMORY.what), transaction(self._connection):
            before = self._connection.execute(
                "SELECT accepted, patch FROM patches WHERE signature = ? AND patch_id = ?", (signature, patch.id)
            ).fetchone()
            self._connection.execute(
                "INSERT OR REPLACE INTO patches (signature, patch_id, accepted, at_s, reason, patch, bytes)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            self._count(patch, accepted, at_s, None if before is None else (bool(before[0]), before[1]))
            self._forget()

    def recall(self, signature: str, n: int = 5) -> tuple[Remembered, ...]:
        """The patches tried for a failure: the accepted before the rejected, of each the latest first."""
        if not 1 <= n <= MAX_RECALLED:
            raise HealingError(f"1 to {MAX_RECALLED} patches can be recalled, not {n}")
        with self._lock, boundary(self.path, MEMORY.what):
            rows = self._connection.execute(
                "SELECT patch, accepted, reason, at_s FROM patches WHERE signature = ?"
                " ORDER BY accepted DESC, n DESC LIMIT ?",
                (signature, n),
            ).fetchall()
        return tuple(
            Remembered(
                signature=signature,
                patch=CodePatch.model_validate_json(patch),
                accepted=bool(accepted),
                reason=reason,
                at_s=at_s,
            )
            for patch, accepted, reason, at_s in rows
        )

    def success_rates(self) -> tuple[SuccessRate, ...]:
        """Of every provider and model that was tried, those that can be relied on most first."""
        with self._lock, boundary(self.path, MEMORY.what):
            rows = self._connection.execute("SELECT provider, model, accepted, tried FROM rates").fetchall()
        rates = (SuccessRate(provider=p, model=m, accepted=accepted, tried=tried) for p, m, accepted, tried in rows)
        return tuple(sorted(rates, key=lambda rate: (-rate.at_least, rate.provider, rate.model)))

    def _count(self, patch: CodePatch, accepted: bool, at_s: float, before: tuple[bool, str] | None) -> None:
        """One more try of its model; but a verdict that is turned round on its own patch is the same try."""
        if before is not None and before[0] is not accepted:
            earlier = CodePatch.model_validate_json(before[1])
            if (earlier.provider, earlier.model) == (patch.provider, patch.model):
                self._connection.execute(
                    "UPDATE rates SET accepted = accepted + ?, last_at_s = ? WHERE provider = ? AND model = ?"
                    " AND accepted + ? BETWEEN 0 AND tried",
                    (turn := 1 if accepted else -1, at_s, patch.provider, patch.model, turn),
                )
                return
        self._connection.execute(
            "INSERT INTO rates VALUES (?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET"
            " accepted = accepted + excluded.accepted, tried = tried + 1, last_at_s = excluded.last_at_s",
            (patch.provider, patch.model, accepted, at_s),
        )
        self._connection.execute(
            "DELETE FROM rates WHERE rowid IN (SELECT rowid FROM rates ORDER BY last_at_s DESC, rowid DESC"
            " LIMIT -1 OFFSET ?)",
            (MAX_MODELS,),
        )

    def _forget(self) -> None:
        """Keep, from the most worth on, as many patches as there is room for."""
        rows, total = self._connection.execute("SELECT count(*), sum(bytes) FROM patches").fetchone()
        while rows > self._max_rows or total > self._max_bytes:
            size = self._connection.execute(
                "DELETE FROM patches WHERE n = (SELECT n FROM patches ORDER BY accepted, n LIMIT 1) RETURNING bytes"
            ).fetchone()[0]
            rows, total = rows - 1, total - size
