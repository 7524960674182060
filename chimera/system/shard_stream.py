"""The mail of one detector shard: batches in order, each told once, whatever becomes of the shard's process.

Whoever watches outlives the shards, so what they must not lose is kept here: the last snapshot in a file, and in memory
the batches since. A shard that died is begun with the one and sent the others again; what those showed has been told.
Nothing is asked of the shards' nodes, no common disk and no server, so it works the same on one node and on many.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chimera.actors import cluster
from chimera.actors.detector import Columns, Kept, Pushed
from chimera.core.errors import ChimeraError, ClusterError, NotBegun, StorageError
from chimera.core.watching import Alert

log = logging.getLogger(__name__)

MAX_KEPT = 500_000
"""Readings since the last snapshot: 24 bytes each, and their names once. Whoever has more waits for the next one."""

MAX_WAITING = 8
"""Batches on their way to one shard."""

SHARE = 10.0
"""A snapshot that takes a second is made every 10 at most, as long as there is room."""

MAX_DEATHS = 8
"""Processes that one call may cost; then it is given up."""

PAUSE_S = 0.5

ANSWER_S = 60.0
READING_S = 0.02
"""A shard that is silent for so long, and for so long for each reading it is sent, is started again. A reading costs
4 ms at most, where all detectors are asked and each is followed by a forecast."""

CLOSE_S = 60.0
"""How long the end of a watch waits for the batch that is being judged."""

LOST: tuple[type[BaseException], ...] = (NotBegun, TimeoutError, *cluster.ACTOR_GONE)

Call = Callable[..., Awaitable[Any]]


class SnapshotFile:
    """The last snapshot of a shard: all of one or all of another, also after a power cut."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one_by_one = threading.Lock()

    async def read(self) -> bytes:
        """Nothing where there is none. Raises StorageError."""
        try:
            return await asyncio.to_thread(self._path.read_bytes)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StorageError(f"{self._path} cannot be read: {error.strerror}") from error

    async def write(self, data: bytes) -> None:
        """Raises StorageError."""
        try:
            await asyncio.to_thread(self._replace, data)
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror}") from error

    def _replace(self, data: bytes) -> None:
        with self._one_by_one:  # a write whose waiter was cancelled goes on
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_suffix(".draft")
            with draft.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


@dataclass(frozen=True, slots=True)
class _Batch:
    number: int
    columns: Columns
    answered: asyncio.Future[tuple[Alert, ...]]


@dataclass(slots=True)
class Counts:
    """What has happened to a shard. `lost` readings were no longer known when its process died: no snapshot of them
    could be written in time."""

    deaths: int = 0
    snapshots: int = 0
    snapshots_failed: int = 0
    lost: int = 0


class ShardStream:
    """Sends batches to one shard, one at a time. `call` reaches it, `revive` ends a process that does not answer."""

    def __init__(
        self,
        named: str,
        call: Call,
        revive: Callable[[], None],
        file: SnapshotFile,
        *,
        snapshot_s: float,
        max_kept: int = MAX_KEPT,
    ) -> None:
        self.counts = Counts()
        self._named = named
        self._ask = call
        self._revive = revive
        self._file = file
        self._snapshot_s = snapshot_s
        self._max_kept = max_kept
        self._kept: deque[_Batch] = deque()
        """The batches since the snapshot, those that wait to be sent at the end."""
        self._readings = 0
        self._put = self._taken = self._snapped = 0
        self._at_risk = 0
        """Readings that are neither in the snapshot nor kept."""
        self._whole = self._failing = self._closing = False
        self._snapped_at = self._cost_s = 0.0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._working: asyncio.Task[None] | None = None
        self._failure: ChimeraError | None = None

    @property
    def waiting(self) -> int:
        """Batches that the shard has not taken in yet."""
        return self._put - self._taken

    async def open(self) -> None:
        """Begin the shard, where an earlier watch of this name left off. Raises what the shard's options raise."""
        self._snapped_at = asyncio.get_running_loop().time()
        await self.call("status")
        self._working = asyncio.create_task(self._work())

    async def put(self, columns: Columns) -> asyncio.Future[tuple[Alert, ...]]:
        """Send a batch; what it shows comes with the future. Waits while too much is kept. Raises what ended it all."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure or self._has_room())
            if self._failure:
                raise self._failure
            answered: asyncio.Future[tuple[Alert, ...]] = asyncio.get_running_loop().create_future()
            self._put += 1
            self._kept.append(_Batch(self._put, columns, answered))
            self._readings += len(columns.metrics)
            self._changed.notify_all()
        return answered

    async def call(self, method: str, *arguments: Any) -> Any:
        """Ask the shard something between two batches, when it knows all that it should."""
        async with self._turn:
            return await self._surely(method, *arguments)

    def _has_room(self) -> bool:
        return self.waiting < MAX_WAITING and self._readings < self._max_kept

    async def close(self, *, keep: bool) -> None:
        """Send no more; with `keep` what the shard knows is written down for the next watch of this name.

        What it knows has been told: the batch that it judges is waited for, and else nothing is written.
        """
        self._closing = True
        try:
            if self._working:
                await self._notify()
                await asyncio.wait({self._working}, timeout=CLOSE_S if keep else 0.0)
                if keep and not self._working.done():
                    log.warning("%s: no last snapshot, for it judged a batch too long", self._named)
                    keep = False
                self._working.cancel()
                await asyncio.gather(self._working, return_exceptions=True)
            if keep and self._taken > self._snapped and not self._failure:
                await self._snapshot()
        finally:
            self._fail(ClusterError(f"the watch has ended: {self._named} takes no more"))
            await self._notify()

    async def _work(self) -> None:
        try:
            while not self._closing:
                if self._due_in_s() <= 0.0:
                    await self._snapshot()
                elif batch := await self._next():
                    pushed: Pushed = await self.call("push", batch.number, batch.columns)
                    self._taken = batch.number
                    if not batch.answered.done():
                        batch.answered.set_result(pushed.alerts)
                    await self._notify()
        except ChimeraError as error:
            self._fail(error)
        except Exception as error:
            log.exception("%s: its stream ends", self._named)
            self._fail(ClusterError(f"{self._named}: {type(error).__name__}: {error}"))
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _next(self) -> _Batch | None:
        """The batch to send next, or None when it is time for a snapshot, or for the end."""
        try:
            async with asyncio.timeout(min(self._due_in_s(), 3_600.0)), self._changed:
                await self._changed.wait_for(lambda: self._closing or self._put > self._taken)
        except TimeoutError:
            return None
        return None if self._closing else self._kept[self._taken - self._put]

    def _due_in_s(self) -> float:
        """Seconds until a snapshot is to be made, unless batches come before."""
        if self._taken == self._snapped:
            return float("inf")
        if self._readings >= self._max_kept:
            return 0.0
        soon = self._readings >= self._max_kept // 2 and not self._failing
        pause_s = 0.0 if soon else self._snapshot_s
        return self._snapped_at + max(pause_s, SHARE * self._cost_s) - asyncio.get_running_loop().time()

    async def _snapshot(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            kept: Kept = await self.call("snapshot")
            await self._file.write(kept.state)
            self._snapped, self._at_risk, self._failing = kept.taken, 0, False
            self.counts.snapshots += 1
        except StorageError as error:
            self.counts.snapshots_failed += 1
            if not self._failing:
                log.warning("%s: no snapshot: %s", self._named, error)
            self._failing = True
        self._snapped_at, self._cost_s = loop.time(), loop.time() - began
        await self._forget()

    async def _forget(self) -> None:
        """Let go of the batches that are in the snapshot; and of older ones, where none can be written."""
        async with self._changed:
            most = self._max_kept // 2 if self._readings >= self._max_kept else self._max_kept
            while self._kept and self._kept[0].number <= self._taken:
                if self._kept[0].number > self._snapped:
                    if self._readings < most:
                        break
                    self._at_risk += len(self._kept[0].columns.metrics)
                self._readings -= len(self._kept.popleft().columns.metrics)
            self._changed.notify_all()

    async def _surely(self, method: str, *arguments: Any) -> Any:
        """The answer of a shard that knows all it should. Raises what that raised, and ClusterError."""
        deaths = 0
        while True:
            try:
                if not self._whole:
                    await self._resume()
                return await self._answer(method, *arguments)
            except LOST as error:
                deaths, self._whole = deaths + 1, False
                self.counts.deaths += not isinstance(error, NotBegun)
                if deaths > MAX_DEATHS:
                    why = "it did not answer in time" if isinstance(error, TimeoutError) else cluster.unwrap(error)
                    raise ClusterError(f"{self._named} was lost {deaths} times over one {method}: {why}") from None
                if isinstance(error, TimeoutError):
                    self._revive()
                if not isinstance(error, NotBegun):
                    log.info("%s died: it is begun again", self._named)
                    await asyncio.sleep(PAUSE_S * deaths)
            except Exception as error:
                raise cluster.unwrap(error) from None

    async def _resume(self) -> None:
        """Bring a process that knows nothing to where the one before it was."""
        first = self._kept[0].number if self._kept else self._put + 1
        if self._at_risk:
            log.warning("%s: %d readings are lost, for no snapshot could be written", self._named, self._at_risk)
            self.counts.lost, self._at_risk = self.counts.lost + self._at_risk, 0
        try:
            await self._answer("begin", first - 1, await self._file.read())
        except StorageError as error:  # Ray raises a class made of its own error and this one
            log.warning("%s begins afresh: %s", self._named, cluster.unwrap(error))
            await self._answer("begin", first - 1, b"")
        for batch in self._kept:
            if batch.number <= self._taken:
                await self._answer("push", batch.number, batch.columns)
        self._whole = True

    async def _answer(self, method: str, *arguments: Any) -> Any:
        sent = sum(len(each.metrics) for each in arguments if isinstance(each, Columns))
        async with asyncio.timeout(ANSWER_S + READING_S * sent):
            return await self._ask(method, *arguments)

    def _fail(self, error: ChimeraError) -> None:
        self._failure = self._failure or error
        for batch in self._kept:
            if not batch.answered.done():
                batch.answered.set_exception(self._failure)
                with contextlib.suppress(asyncio.CancelledError):
                    batch.answered.exception()  # whoever waits for it is told; if nobody does, so be it
