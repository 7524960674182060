"""Wiring of watches: a source in, alerts out; over detector shards on Ray, or over one engine in this process.

    async with Watch(settings, limits=limits) as watch:
        async for alert in watch.watch(source):
            ...

Both kinds of watch say the same. A watch on Ray sends each metric to a shard by a hash of its name, and goes on as if
nothing had been when a shard's process dies: see `chimera.system.shard_stream`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from chimera.actors.detector import Columns, DetectorShard, History
from chimera.anomaly.forecast.warning import Limit
from chimera.anomaly.intake import sorted_out
from chimera.anomaly.options import WatchOptions
from chimera.anomaly.sources.source import Readings, Source
from chimera.anomaly.views import EngineStatus, MetricView
from chimera.core.config import Settings
from chimera.core.errors import InputError, StorageError, SwarmError
from chimera.core.watching import MAX_METRIC_CHARS
from chimera.system.local_watch import Answer, LocalWatch, Watching, WatchStatus

if TYPE_CHECKING:
    from chimera.actors import cluster
    from chimera.system.shard_stream import ShardStream

__all__ = ["LocalWatch", "Watch", "WatchStatus", "Watching", "ray_source", "shard_of"]

log = logging.getLogger(__name__)

MAX_SHARDS = 256

USUAL_SHARDS = 8
"""At most, where nobody asks for a number."""

SNAPSHOT_S = 30.0


class Watch(Watching):
    """A watch over detector shards, each an actor. They end with it.

    A snapshot of every shard is made each `snapshot_s` seconds when there is news, and sooner when there is much. One
    with a `name` goes on where the last one of that name ended, or was when it was killed, less what came after its
    last snapshots; only with as many shards as that had. Shards live on the head node, which the autoscaler does not
    end, or with place="cell" on all nodes, where they take the places of cells.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        shards: int = 0,
        options: WatchOptions | None = None,
        limits: Sequence[Limit] = (),
        name: str = "",
        snapshot_s: float = SNAPSHOT_S,
        place: cluster.Place = "head",
    ) -> None:
        """`shards` 0 is one for each CPU, at most 8. Each has its share of `options.max_metrics`. Raises InputError."""
        super().__init__()
        if not 0 <= shards <= MAX_SHARDS:
            raise InputError(f"a watch has 1 to {MAX_SHARDS} shards, or 0 for one a CPU, not {shards}")
        if name and not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 64):
            raise InputError(f"{name!a:.80} is no name for a watch: use up to 64 letters, digits, - and _")
        if not 0.0 < snapshot_s <= 86_400.0:
            raise InputError(f"snapshots are made every 0 to 86400 seconds, not {snapshot_s}")
        self.settings = settings or Settings()
        self._shards = shards
        self._options = options or WatchOptions()
        self._limits = tuple(limits)
        self._name = name
        self._snapshot_s = snapshot_s
        self._place = place
        self._folder = self.settings.home / "watch" / (name or f"unnamed-{secrets.token_hex(6)}")
        self._lock: Any = None
        self._connection: cluster.Connection | None = None
        self._handles: list[Any] = []
        self._lines: list[Any] = []
        self._streams: list[ShardStream] = []
        self._entering = asyncio.Lock()
        self._unread: Counter[str] = Counter()
        """Readings that cannot be sent at all, by reason. The others the shards judge."""

    async def __aenter__(self) -> Self:
        """Raises ClusterError, StorageError (the folder, a watch of this name that runs), DetectorError, InputError."""
        from chimera.actors import cluster

        try:
            self._claim()
            self._connection = cluster.connect(self.settings)
            count = self._shards or min(self._connection.cells, USUAL_SHARDS)
            token = secrets.token_hex(3)
            self._streams = [self._stream(f"watch-{token}/{number}", number, count) for number in range(count)]
            await asyncio.gather(*(stream.open() for stream in self._streams))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        from chimera.actors import cluster

        try:
            closing = (stream.close(keep=bool(self._name)) for stream in self._streams)
            for error in await asyncio.gather(*closing, return_exceptions=True):
                if isinstance(error, BaseException):
                    log.warning("a shard's last snapshot could not be made: %s", error)
        finally:
            for line in self._lines:
                line.close()
            for handle in self._handles:
                cluster.kill(handle)
            if self._connection:
                cluster.disconnect(self._connection)
                self._connection = None
            self._streams, self._lines, self._handles = [], [], []
            if self._lock:
                if not self._name:
                    shutil.rmtree(self._folder, ignore_errors=True)
                self._lock.close()
                self._lock = None

    async def views(self, metrics: str | None = None, *, bands: bool = False) -> list[MetricView]:
        found = await asyncio.gather(*(stream.call("views", metrics, bands) for stream in self._entered()))
        return sorted((view for part in found for view in part), key=lambda view: view.metric)

    async def view(self, metric: str, *, band: bool = False) -> MetricView:
        view: MetricView = await self._of(metric).call("view", metric, band)
        return view

    async def history(self, metric: str) -> History:
        history: History = await self._of(metric).call("history", metric)
        return history

    async def status(self) -> WatchStatus:
        told = await asyncio.gather(*(stream.call("status") for stream in self._entered()))
        counts = [stream.counts for stream in self._streams]
        return WatchStatus(
            engine=_sum(told, self._unread),
            shards=len(self._streams),
            waiting=sum(stream.waiting for stream in self._streams),
            deaths=sum(each.deaths for each in counts),
            snapshots=sum(each.snapshots for each in counts),
            snapshots_failed=sum(each.snapshots_failed for each in counts),
            lost=sum(each.lost for each in counts),
        )

    async def _submit(self, readings: Readings) -> Sequence[Answer]:
        streams = self._entered()
        parts = _parted(*sorted_out(readings, self._unread), len(streams))
        async with self._entering:  # who comes first is first with every shard
            return [await stream.put(part) for stream, part in zip(streams, parts, strict=True) if part.metrics]

    def _entered(self) -> list[ShardStream]:
        if not self._streams:
            raise SwarmError("this watch has not been entered, or has ended: use it within `async with`")
        return self._streams

    def _of(self, metric: str) -> ShardStream:
        streams = self._entered()
        return streams[shard_of(metric, len(streams))]

    def _stream(self, named: str, number: int, count: int) -> ShardStream:
        from chimera.actors import cluster
        from chimera.actors.line import Line
        from chimera.system.shard_stream import ShardStream, SnapshotFile

        options = self._options.model_copy(update={"max_metrics": -(-self._options.max_metrics // count)})
        handle = cluster.spawn(
            DetectorShard,
            name=named,
            place=self._place,
            lasting=False,
            named=named,
            options=options,
            limits=self._limits,
        )
        line = Line(handle)
        self._handles.append(handle)
        self._lines.append(line)

        async def call(method: str, *arguments: Any) -> Any:
            if method in ("begin", "snapshot"):  # which may be larger than what goes over a line
                return await getattr(handle, method).remote(*arguments)
            return await line.call(method, *arguments)

        return ShardStream(
            named,
            call,
            lambda: cluster.kill(handle, restart=True),
            SnapshotFile(self._folder / f"{number}-of-{count}.snapshot"),
            snapshot_s=self._snapshot_s,
        )

    def _claim(self) -> None:
        """Make the folder of the snapshots, and see that nobody else uses it.

        Folders without a name whose watch was killed are removed: nobody will ask for them.
        """
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            with _one_at_a_time(self._folder.parent):  # nobody else has made a folder, and not locked it yet
                for left in self._folder.parent.glob("unnamed-*"):
                    with contextlib.suppress(OSError):
                        if lock := _locked(left):
                            shutil.rmtree(left, ignore_errors=True)
                            lock.close()
                self._folder.mkdir(exist_ok=True)
                self._lock = _locked(self._folder)
        except OSError as error:
            raise StorageError(f"{self._folder} cannot be used for snapshots: {error.strerror}") from error
        if not self._lock:
            raise StorageError(f"another watch of the name {self._name!r} runs: choose another name")


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Where several processes do this with the same folder, one does it after the other. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> IO[str] | None:
    """The lock of a watch's folder, or None where another holds it. Raises OSError where there can be none."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def shard_of(metric: str, shards: int) -> int:
    """Whose a metric is: the same in every process and under every PYTHONHASHSEED."""
    return _hash(metric) % shards if len(metric) <= MAX_METRIC_CHARS else 0  # which refuses it


def ray_source(settings: Settings, interval_s: float = 10.0, *, metrics: Sequence[str] = ()) -> Source:
    """The cluster at the settings' address, as a source: its metrics endpoints, asked every `interval_s`, and who of
    Chimera's actors lives, asked every second. `metrics` are globs; what died is told whatever they are.

    A fixed rule beside the learned ones tells of every actor and node that died: see `chimera.system.ray_source`.
    Raises InputError for a ray:// address, and MissingExtra. Entering it raises ClusterError where no cluster runs.
    """
    from chimera.core.errors import MissingExtra

    try:
        from chimera.system.ray_source import open_ray

        return open_ray(settings, interval_s, metrics)
    except ImportError as error:
        raise MissingExtra((error.name or "aiohttp").partition(".")[0], "anomaly") from error


def _parted(metrics: Sequence[str], timestamps: array[float], values: array[float], shards: int) -> list[Columns]:
    """Each shard's readings."""
    parts = [Columns([], array("d"), array("d")) for _ in range(shards)]
    for metric, timestamp, value in zip(metrics, timestamps, values, strict=True):
        part = parts[shard_of(metric, shards)]
        part.timestamps.append(timestamp)
        part.values.append(value)
        part.metrics.append(metric)
    return parts


@lru_cache(maxsize=1 << 17)
def _hash(metric: str) -> int:
    return zlib.crc32(metric.encode("utf-8", "surrogatepass"))


def _sum(told: Sequence[EngineStatus], unread: dict[str, int]) -> EngineStatus:
    totals: dict[str, Any] = {}
    for status in (*(each.model_dump() for each in told), {"refused": unread}):
        for name, value in status.items():
            if isinstance(value, dict):
                held = totals.setdefault(name, {})
                for key, count in value.items():
                    held[key] = held.get(key, 0) + count
            else:
                totals[name] = totals.get(name, 0) + value
    return EngineStatus(**totals)
