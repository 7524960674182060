"""Where readings come from, and where Ray is needed, Ray. Nothing of Ray is imported for a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from chimera.anomaly.forecast.warning import Limit
from chimera.anomaly.sources.opening import open_source
from chimera.anomaly.sources.source import Source
from chimera.cli import render
from chimera.cli.watch.options import Options
from chimera.cli.watch.watcher import Watcher, Wired
from chimera.core.clock import Clock
from chimera.core.config import Settings


def open_watched(options: Options, settings: Settings, clock: Clock) -> Source:
    """The source that is asked for. Raises InputError and MissingExtra."""
    wanted = options.source_options()
    if options.source is not None:
        return open_source(options.source, options=wanted, clock=clock)
    from chimera.system.watching import ray_source

    return ray_source(settings, wanted.interval_s, metrics=wanted.metrics)


@contextmanager
def joined(settings: Settings, *, start: bool) -> Iterator[None]:
    """On the Ray of `settings.address`; with `start` it is started where there is none. Raises ClusterError."""
    from chimera.actors import cluster

    with render.waiting("joining Ray", shown=True):
        connection = cluster.connect(settings, start=start)
    try:
        yield
    finally:
        cluster.disconnect(connection)


@asynccontextmanager
async def wired(options: Options, settings: Settings, limits: Sequence[Limit]) -> AsyncIterator[Watcher]:
    """Shards on Ray, if any are asked for; else an engine here, for a source that is Ray itself."""
    from chimera.system.watching import LocalWatch, Watch, Watching

    watching: Watching = LocalWatch(options=options.watch_options(), limits=limits)
    if options.shards is not None:
        watching = Watch(settings, shards=options.shards, options=options.watch_options(), limits=limits)
    async with watching:
        yield Wired(watching)
