"""The duels that were held on this machine, on record: one JSON file each, `HOME/arena/duels/ID.json`.

Whoever holds a duel keeps it here, and a node reads it. The arena is an extra, and nothing of it is needed to read.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from chimera.core.errors import InputError, NotThere, StorageError, StorageUnavailable
from chimera.core.types import Frozen, Share
from chimera.storage.whole_file import write_whole

log = logging.getLogger(__name__)

MAX_KEPT = 1_000
"""Duels on record; the oldest go first."""

MAX_POINTS = 200
"""Of one duel's course."""

MAX_BYTES = 100_000
"""Of one file."""

ID = r"^[0-9]{13}-[0-9a-f]{8}$"
"""When the duel began, in milliseconds since the epoch, and a part that is its own: ids are in the order of time."""

ENV_ID = r"^[a-z][a-z0-9_]{0,47}-v[0-9]{1,4}$"

_ID = re.compile(ID.removesuffix("$") + r"\Z")
_FILE = re.compile(ID.removesuffix("$") + r"\.json\Z")

Miner = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/=@,\-]{0,255}$")]
Count = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Time = Annotated[float, Field(ge=0.0, lt=1e10, allow_inf_nan=False)]


class Rule(Frozen):
    """The rule that stopped a duel: `p0` is the ratio to beat. See docs/duels.md."""

    name: Annotated[str, Field(pattern=r"^[a-z]{1,32}$")]
    z: Annotated[float, Field(ge=0.0, le=1_000.0, allow_inf_nan=False)] | None
    p0: Share
    alpha: Share
    budget: Count
    error_contender: Share
    error_champion: Share


class Point(Frozen):
    """How a duel stood after so many samples: `low` and `high` bound the contender's win rate among decisive ones."""

    samples: Count
    wins: Count
    losses: Count
    low: Share
    high: Share


class Whole(Frozen):
    """The duel over several environments that this one was a part of: the contender has won `won` of `of`."""

    won: Count
    needed: Count
    of: Count


class DuelRecord(Frozen):
    """One duel in one environment. Counts are the contender's; times are in seconds since the epoch.

    `given_up`: the whole was decided before this one was. `seed` deals its challenges again (`af duel --seed`). A duel
    that a validator ruled on has its hotkey, and `block`, the hash of its own last block that counted.
    """

    id: Annotated[str, Field(pattern=ID)]
    env_id: Annotated[str, Field(pattern=ENV_ID)]
    champion: Miner
    contender: Miner
    decision: Literal["contender", "champion", "inconclusive", "given_up"]
    wins: Count
    losses: Count
    ties: Count
    low: Share
    high: Share
    rule: Rule
    began_s: Time
    ended_s: Time
    seed: Annotated[str, Field(max_length=64)] | None = None
    whole: Whole | None = None
    validator: Annotated[str, Field(max_length=64)] | None = None
    block: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    course: Annotated[tuple[Point, ...], Field(max_length=MAX_POINTS)] = ()


def new_id(began_s: float, own: str) -> str:
    """The id of a duel that began then; `own` is eight hexadecimal digits."""
    return f"{max(0, int(began_s * 1_000)):013d}-{own}"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the list, the last duel first; `more` says whether it goes on. `damaged` are ids that were skipped."""

    found: tuple[DuelRecord, ...]
    damaged: tuple[str, ...]
    more: bool


class Duels:
    """The record in one folder, which is made when the first duel is kept. Several processes may share it. Blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def kept_in(cls, home: Path) -> Duels:
        """That of a machine, by its CHIMERA_HOME."""
        return cls(home / "arena" / "duels")

    def keep(self, *records: DuelRecord) -> None:
        """Put duels on record, each whole or not at all, and drop the oldest over MAX_KEPT. Raises StorageError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for record in records:
                write_whole(self._path(record.id), record.model_dump_json().encode())
            for old in self._ids()[MAX_KEPT:]:
                self._path(old).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"duels cannot be recorded in {self.folder}: {error.strerror}; see CHIMERA_HOME"
            ) from error

    def part(self, limit: int, *, after: str | None = None, env_id: str | None = None) -> Part:
        """At most `limit` duels that began before the one called `after`, of one environment if it is named.

        What is damaged is skipped, told of, and logged. Raises StorageUnavailable where the folder cannot be read.
        """
        found: list[DuelRecord] = []
        damaged: list[str] = []
        for duel_id in self._ids_after(after):
            try:
                record = self._read(duel_id)
            except InputError as error:
                log.warning("%s", error)
                damaged.append(duel_id)
                continue
            if record is None or env_id not in (None, record.env_id):
                continue
            if len(found) == limit:
                return Part(tuple(found), tuple(damaged), True)
            found.append(record)
        return Part(tuple(found), tuple(damaged), False)

    def get(self, duel_id: str) -> DuelRecord:
        """One duel. Raises NotThere, also for a record that is damaged, saying so."""
        try:
            record = self._read(duel_id) if _ID.match(duel_id) else None
        except InputError as error:
            raise NotThere(str(error)) from error
        if record is None:
            raise NotThere(f"no duel {duel_id[:64]!r} is on record here")
        return record

    def _ids_after(self, after: str | None) -> Iterator[str]:
        return (duel_id for duel_id in self._ids()[:MAX_KEPT] if after is None or duel_id < after)

    def _ids(self) -> list[str]:
        """The last first."""
        try:
            with os.scandir(self.folder) as entries:
                return sorted((each.name[:-5] for each in entries if _FILE.match(each.name)), reverse=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageUnavailable(f"{self.folder} cannot be read: {error.strerror}") from error

    def _read(self, duel_id: str) -> DuelRecord | None:
        """None if it is not there. Raises InputError for what is no record of this duel."""
        path = self._path(duel_id)
        try:
            record = DuelRecord.model_validate_json(_bytes(path))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise InputError(f"the record of duel {duel_id} is damaged: remove arena/duels/{path.name}") from error
        if record.id != duel_id:
            raise InputError(f"arena/duels/{path.name} is the record of another duel: remove it")
        return record

    def _path(self, duel_id: str) -> Path:
        return self.folder / f"{duel_id}.json"


def _bytes(path: Path) -> bytes:
    """A file's bytes; none of what is no plain file, which may be a pipe to wait for, or is larger than any record."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        data = file.read(MAX_BYTES + 1) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    return data if len(data) <= MAX_BYTES else b""
