"""`chimera watch`: readings in, alerts out as they come, a table meanwhile, and a summary at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.warning import Limit
from chimera.anomaly.plot import plot_watch
from chimera.anomaly.sources.csv_file import CsvSource
from chimera.anomaly.sources.source import Source
from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.settings import read_settings
from chimera.cli.watch import tell
from chimera.cli.watch.board import Board, counts
from chimera.cli.watch.coverage import Coverage
from chimera.cli.watch.feed import feed
from chimera.cli.watch.options import Options
from chimera.cli.watch.places import joined, open_watched, wired
from chimera.cli.watch.recorder import Recorder
from chimera.cli.watch.watcher import InProcess, Told, Watcher
from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import InputError, SourceError

ENDED = 0

REFRESH_S = 0.25

DRAWING_SHARE = 0.1
"""Of the time, at most: with very many metrics the table is drawn more rarely."""

GRACE_S = 5.0
"""For judging what was taken in before the end was asked for. What is left then is counted as UNREAD."""

UNREAD = "unread"


class Ending:
    """When it is time to end: asked for by SIGINT or SIGTERM, or because nobody reads what is said any more."""

    def __init__(self) -> None:
        self.now = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        """The first time, end in good order; the second time, wait for nothing."""
        (self.at_once if self.now.is_set() else self.now).set()

    @property
    def asked(self) -> bool:
        return self.now.is_set()

    def heed_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.ask)


class Watch:
    """One `chimera watch` while it goes on."""

    def __init__(
        self,
        source: Source,
        watcher: Watcher,
        *,
        out: TextIO,
        as_json: bool,
        ending: Ending,
        clock: Clock,
        limits: Mapping[str, Limit] | None = None,
    ) -> None:
        self._source = source
        self._feed = feed(source, self._opened)
        self._watcher = watcher
        self._out = out
        self._as_json = as_json
        self._ending = ending
        self._clock = clock
        self._console = Console(file=out, highlight=False, emoji=False)
        self._live = self._console.is_terminal and not as_json
        self._board = Board(source.name)
        self._drawing: asyncio.Task[None] | None = None
        self._coverage = Coverage(limits or {})
        self._metrics = 0
        self._kinds: Counter[str] = Counter()
        self._began = clock.monotonic()

    async def run(self) -> None:
        """Until the source ends, or the end is asked for. Raises SourceError."""
        taking = asyncio.create_task(self._take())
        try:
            await _first(taking, self._ending.now)
            if not taking.done() and self._feed.is_open:
                self._feed.finish()
                await _first(taking, self._ending.at_once, timeout_s=GRACE_S)
            if taking.done():
                taking.result()
        finally:
            self._ending.now.set()
            taking.cancel()
            await asyncio.wait((taking, *((self._drawing,) if self._drawing else ())))
        if self._drawing is not None:
            self._drawing.result()
            self._console.print(await self._frame())

    def _opened(self) -> None:
        """Say where it listens, before the table takes the screen."""
        self._board.name = self._source.name
        if self._source.address is not None:
            render.note(f"listening at {self._source.address}")
        if self._live:
            self._drawing = asyncio.create_task(self._draw())

    async def _take(self) -> None:
        async with aclosing(self._watcher.alerts(self._feed)) as parts:
            async for told in parts:
                for each in told:
                    self._tell(each)

    def _tell(self, told: Told) -> None:
        self._kinds[tell.kind_of(told.alert)] += 1
        if self._live:
            self._board.note(told.alert)
            return
        line = render.to_line(tell.document(*told)) if self._as_json else tell.log_line(told.alert)
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except BrokenPipeError:  # the reader has had enough: that is its right
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            self._ending.ask()

    async def _draw(self) -> None:
        """Draw the table anew, a few times a second, until the end."""
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while not self._ending.asked:
                started = self._clock.monotonic()
                live.update(await self._frame(), refresh=True)
                took = self._clock.monotonic() - started
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(REFRESH_S, took / DRAWING_SHARE)):
                        await self._ending.now.wait()

    async def _frame(self) -> RenderableType:
        status, top = await self._watcher.status(), await self._watcher.top(self._board.rows(self._console.height))
        refused, elapsed_s = self._refused(status.refused), self._clock.monotonic() - self._began
        if self._coverage and status.metrics != self._metrics:
            self._metrics = status.metrics
            self._coverage.see(await self._watcher.names())
        remarks, width = self._coverage.remarks(), self._console.width
        return self._board.frame(status, top, refused, width=width, elapsed_s=elapsed_s, remarks=remarks)

    def _refused(self, by_engine: dict[str, int]) -> Counter[str]:
        return Counter(self._source.refused) + Counter(by_engine)

    async def has_begun(self) -> bool:
        """Whether any reading has come."""
        return (await self._watcher.status()).readings > 0

    async def sum_up(self) -> str:
        """The summary: `server.csv: 1,440 readings of 4 metrics; 3 alerts (2 spike, 1 trend), ...`."""
        status = await self._watcher.status()
        if self._coverage:
            self._coverage.see(await self._watcher.names())
        refused = self._refused(status.refused)
        refused[UNREAD] += await self._watcher.unjudged(self._feed.handed)
        complaint = command.one_line(self._source.complaint or "")
        anomalies = {kind: count for kind, count in self._kinds.items() if kind != tell.FAILURE}
        total = sum(anomalies.values())
        said = (
            f"{tell.many(status.readings, 'reading')} of {tell.many(status.metrics, 'metric')}",
            tell.many(total, "anomaly", "anomalies") + (f" ({counts(anomalies)})" if total else ""),
            tell.many(self._kinds[tell.FAILURE], "failure warning"),
            f"refused: {counts(refused)}" + (f" (first: {complaint})" if complaint and +refused else ""),
            *((complaint,) if complaint and not +refused else ()),
            *self._coverage.remarks(),
        )
        return f"{command.one_line(self._source.name)}: {'; '.join(said)}"


async def _first(work: asyncio.Task[None], ending: asyncio.Event, timeout_s: float | None = None) -> None:
    """Wait until the work is done, the event has come or the time is over, whichever is first."""
    event = asyncio.create_task(ending.wait())
    try:
        await asyncio.wait((work, event), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        event.cancel()


def execute(options: Options) -> int:
    """Watch, tell, sum up, draw, and return the exit code."""
    return command.run(_execute(options, sys.stdout), as_json=options.as_json)


async def _execute(options: Options, out: TextIO) -> int:
    options.check()
    limits, clock, ending = options.parsed_limits(), SystemClock(), Ending()
    settings = read_settings(address=options.address)
    async with AsyncExitStack() as stack:
        if options.needs_ray:
            stack.enter_context(joined(settings, start=not options.on_ray))
        ending.heed_signals()  # after Ray, which takes SIGTERM for itself as it starts
        source = open_watched(options, settings, clock)
        recorder = None
        if options.needs_ray:
            watcher: Watcher = await stack.enter_async_context(wired(options, settings, limits))
        else:
            engine = AnomalyDetectionEngine(options=options.watch_options(), limits=limits, clock=clock)
            stack.push_async_callback(engine.aclose)
            recorder = Recorder(engine) if options.plot else None
            watcher = InProcess(engine, recorder)
        named = dict(zip(options.limits, limits, strict=True))
        watch = Watch(source, watcher, out=out, as_json=options.as_json, ending=ending, clock=clock, limits=named)
        await _until_over(watch, source, options.for_s, ending)
        if recorder is not None and options.plot is not None:
            await asyncio.to_thread(plot_watch, recorder.traces(), options.plot, limits=limits)
            render.note(f"drawn into {options.plot}")
    return ENDED


async def _until_over(watch: Watch, source: Source, for_s: float | None, ending: Ending) -> None:
    """Watch, and sum up; after a fault only if there is anything to sum up."""
    timer = None if for_s is None else asyncio.get_running_loop().call_later(for_s, ending.now.set)
    try:
        await watch.run()
    except SourceError as error:
        if await watch.has_begun():
            render.note(await watch.sum_up())
        if isinstance(source, CsvSource):  # a file that cannot be read is bad input; a server out of reach is a fault
            raise InputError(str(error)) from error
        raise
    finally:
        if timer is not None:
            timer.cancel()
    render.note(await watch.sum_up())
