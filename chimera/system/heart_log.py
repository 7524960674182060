"""What a node that mends itself did: a line for each step in its own file, and an event in a journal if it has one.

The file is the node's memory for people, and a node whose disk is full goes on watching without it. The journal is the
record that others rely on: before code is changed, what led to it must be there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from pathlib import Path
from typing import Any, Literal

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.core.types import Frozen
from chimera.storage.journal import SWARM_PREFIX, Journal, open_journal

_log = logging.getLogger(__name__)

MAX_DETAIL_CHARS = 2_000
MAX_FILE_BYTES = 64_000_000
"""Then the file becomes `heart.1.jsonl`, in the place of an earlier one, and a new one begins."""

MAX_PENDING = 1_000
"""Steps that wait for a journal that is out of reach; the oldest are left out of it then."""

Step = Literal["noticed", "decided", "asked", "agreed", "rejected", "applied", "kept", "rolled_back", "failed"]


class HeartEvent(Frozen):
    """One step of the node. `at_s` is wall-clock seconds since the epoch; `patch` is the id of the patch."""

    at_s: float
    step: Step
    subject: str
    detail: str = ""
    patch: str = ""


class HeartLog:
    """`heart.jsonl` in `home`, and the stream `swarm-NAME` of the journal at `journal_url`, if that is not None."""

    def __init__(self, home: Path, name: str, journal_url: str | None) -> None:
        self.path = home / "heart.jsonl"
        self.stream = f"{SWARM_PREFIX}{name}"
        self._url = journal_url
        self._journal: Journal | None = None
        self._pending: deque[HeartEvent] = deque(maxlen=MAX_PENDING)
        self._seq = 0
        self._in_doubt = True
        self._one_at_a_time = asyncio.Lock()

    def tell(self, event: HeartEvent) -> None:
        """On disk when this returns, or else a warning: the step has been taken, whether it can be written or not."""
        if self._url is not None:
            if len(self._pending) == MAX_PENDING:
                _log.warning("a step of %s is left out of the journal: it has been out of reach for long", self.stream)
            self._pending.append(event)
        try:
            self._write(json.dumps(event.model_dump()).encode() + b"\n")
        except OSError as error:
            _log.warning("%s cannot be written (%s): %s of %s", self.path, error, event.step, event.subject)

    def _write(self, line: bytes) -> None:
        """A whole line or nothing, on a line of its own whatever was left there before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                line = line if file.read(1) == b"\n" else b"\n" + line
            try:
                written = file.write(line)
                if written != len(line):
                    raise OSError(f"only {written} of {len(line)} bytes could be written")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
        if size + len(line) > MAX_FILE_BYTES:
            os.replace(self.path, self.path.with_name("heart.1.jsonl"))

    async def open(self) -> None:
        """Raises StorageError where the journal is out of reach, InputError where its address is none."""
        if self._url is not None:
            self._journal = open_journal(self._url)
            await self._catch_up(self._journal)

    async def flush(self) -> None:
        """What has been told is in the journal when this returns. Raises StorageError: then it waits for the next."""
        async with self._one_at_a_time:
            if self._journal is None or not self._pending:
                return
            if self._in_doubt:
                await self._catch_up(self._journal)
            told = list(self._pending)
            events = [self._as_event(self._seq + number, each) for number, each in enumerate(told, 1)]
            self._in_doubt = True  # an append that fails, or is cancelled, may have been stored or not
            if events:
                await self._journal.append(events)
            self._in_doubt = False
            self._seq += len(events)
            self._forget(told)

    async def flush_if_it_can(self) -> None:
        try:
            await self.flush()
        except StorageError as error:
            _log.warning("%d steps of %s wait for the journal: %s", len(self._pending), self.stream, error)

    async def close(self) -> None:
        if self._journal is not None:
            await self.flush_if_it_can()
            journal, self._journal = self._journal, None
            await journal.close()

    async def _catch_up(self, journal: Journal) -> None:
        """Go on from the stream's last event. What is found there of what waits has been stored, and waits no more."""
        while stored := await journal.read(self.stream, after=self._seq):
            self._seq = stored[-1].seq
            found = [(event.at_s, event.data) for event in stored]
            self._forget([each for each in self._pending if (each.at_s, self._data(each)) in found])
        self._in_doubt = False

    def _forget(self, told: list[HeartEvent]) -> None:
        gone = {id(each) for each in told}
        left = [each for each in self._pending if id(each) not in gone]
        self._pending.clear()
        self._pending.extend(left)

    def _as_event(self, seq: int, event: HeartEvent) -> Event:
        return Event(
            mission_id=self.stream,
            seq=seq,
            kind=EventKind.HEART_STEP_TAKEN,
            at_s=event.at_s,
            swarm=self.stream,
            data=self._data(event),
        )

    def _data(self, event: HeartEvent) -> dict[str, Any]:
        return event.model_dump(exclude={"at_s"})


def plain(text: str) -> str:
    """`text` as far as it is kept, and without what is no character: no journal takes that."""
    return text[:MAX_DETAIL_CHARS].encode(errors="replace").decode()
