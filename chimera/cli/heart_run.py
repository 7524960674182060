"""`chimera heart run`: a node that watches, mends and goes on, in this process, and says each step."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.warning import parse_limit
from chimera.anomaly.sources.csv_file import CsvSource
from chimera.anomaly.sources.opening import open_source
from chimera.anomaly.sources.source import Source
from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.heart_file import HeartFile, read_heart_file
from chimera.cli.heart_log import show
from chimera.cli.model import open_writer
from chimera.cli.places import held_out, module_file, outside
from chimera.cli.watch import tell
from chimera.cli.watch.feed import feed
from chimera.cli.watch.run import Ending
from chimera.core.clock import SystemClock
from chimera.core.errors import InputError, SourceError
from chimera.healing.generator import CodeGenerator
from chimera.healing.sandbox import open_sandbox
from chimera.llm.meter import Cap, Caps
from chimera.llm.prices import Prices
from chimera.reload.manager import HotReloadManager
from chimera.system.heart import MAX_EVENTS, HeartEvent, HeartNode
from chimera.system.reviews import heed

ENDED = 0

GRACE_S = 60.0
"""For ending what was begun when the end is asked for: a patch that is on its way is kept or undone, not left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of one `chimera heart run`; those of the node by the names that they have in its file."""

    config: Path | None
    given: dict[str, Any]
    as_json: bool


class Steps(deque[HeartEvent]):
    """The last steps of a node; each is told as it comes."""

    def __init__(self, told: Callable[[HeartEvent], None]) -> None:
        super().__init__(maxlen=MAX_EVENTS)
        self._told = told

    def append(self, event: HeartEvent) -> None:
        super().append(event)
        self._told(event)


def execute(request: Request) -> int:
    """Run a node until its end, and return the exit code."""
    return command.run(_execute(request), as_json=request.as_json)


async def _execute(request: Request) -> int:
    file, clock = read_heart_file(request.config, request.given), SystemClock()
    source = open_source(file.source, options=file.reading, clock=clock)
    file = file.model_copy(update={"home": outside(file.workspace, file.home)})
    held_out(file.workspace, file.hidden_tests)
    prices, caps = Prices(tuple(file.prices.items())), Caps(day=Cap(usd=file.max_usd_a_day))
    model, meter = open_writer(file.model, prices, caps, clock)
    _import_all(file)
    ending = Ending()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(model)
        engine = AnomalyDetectionEngine(options=file.watching, limits=_limits(file), clock=clock)
        stack.push_async_callback(engine.aclose)
        node = HeartNode(file, clock=clock)
        node.anomaly_engine = engine
        node.code_generator = CodeGenerator(model, options=file.generating)
        node.hot_reload = HotReloadManager(clock=clock)
        node.sandbox = await asyncio.to_thread(open_sandbox, file.sandbox)
        steps = node.events = Steps(lambda event: show(event, as_json=request.as_json))
        ending.heed_signals()
        await _until_over(node, source, ending, file.home)
        status, spent = engine.status(), meter.today()
    cost = f"${spent.usd:.4f}" + (f" and {tell.many(spent.unpriced, 'call')} of unknown cost" if spent.unpriced else "")
    read = f"{tell.many(status.readings, 'reading')} of {tell.many(status.metrics, 'metric')}"
    render.note(f"ended: {read}, {tell.many(len(steps), 'step')}; today {cost}")
    return ENDED


async def _until_over(node: HeartNode, source: Source, ending: Ending, home: Path) -> None:
    """Until the source ends, or the end is asked for: then what was begun is ended first. Asked twice, at once."""

    heeding: list[asyncio.Task[None]] = []

    def opened() -> None:
        heeding.append(asyncio.create_task(heed(node, home, render.note)))
        where = f" at {source.address}" if source.address is not None else ""
        render.note(f"watching {command.one_line(source.name)}{where}; steps follow, Ctrl-C ends")

    given = node.source = feed(source, opened)
    beating = asyncio.create_task(node.run())
    try:
        await _first(beating, ending.now)
        if not beating.done() and given.is_open:
            render.note("ending: what was begun is ended first; once more ends at once")
            given.finish()
            await _first(beating, ending.at_once, GRACE_S)
        if beating.done():
            beating.result()
    except SourceError as error:
        if isinstance(source, CsvSource):  # a file that cannot be read is bad input; a server out of reach is a fault
            raise InputError(str(error)) from error
        raise
    finally:
        for task in (beating, *heeding):
            task.cancel()
        await asyncio.wait((beating, *heeding))


async def _first(work: asyncio.Task[None], ending: asyncio.Event, timeout_s: float | None = None) -> None:
    """Wait until the work is done, the event has come or the time is over, whichever is first."""
    event = asyncio.create_task(ending.wait())
    try:
        await asyncio.wait((work, event), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        event.cancel()


def _limits(file: HeartFile) -> list[Any]:
    return [parse_limit(limit) for limit in file.limits]


def _import_all(file: HeartFile) -> None:
    """The modules that metrics belong to, loaded from the workspace: what is not loaded here cannot be reloaded.

    Raises InputError that names the one that cannot be, and why.
    """
    sys.path.insert(0, str(file.workspace))
    for module in sorted(set(file.owners.values())):
        wanted = file.workspace / module_file(file.workspace, module)
        try:
            loaded = import_module(module)
        except (Exception, SystemExit) as error:  # whatever a module raises when it is imported
            why = f"{type(error).__name__}: {error}"
            raise InputError(f"{module}, an owner, cannot be imported from {file.workspace}: {why}") from error
        found = getattr(loaded, "__file__", None)
        if found is None or Path(found).resolve() != wanted.resolve():
            raise InputError(f"{module} is loaded from {found}, not from {wanted}: another module has its name")
