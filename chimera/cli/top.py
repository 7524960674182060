"""`chimera top`: a running swarm at a glance, drawn anew every second."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chimera.cli import render
from chimera.cli.settings import read_settings
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, InputError, SwarmError
from chimera.core.types import Spend
from chimera.swarm.status import Percentiles, SwarmStatus

LEFT, TERMINATED = 0, 143
BAD_INPUT, FAULT = 2, 3

ANSWER_S = 10.0
"""A status that takes longer counts as none."""

MAX_SILENT = 60
"""Statuses in a row that may fail to come: a coordinator that died is back within seconds, or does not come back."""

MAX_ROWS = 8
"""Rows of one table: what is left out is counted in its last line."""


class Watched(Protocol):
    """A swarm that tells its status."""

    async def status(self) -> SwarmStatus: ...


Attach = Callable[[str | None, Settings], AbstractAsyncContextManager[Watched]]
"""Attaches to a running swarm by name; None is the only one that runs."""


def execute(
    attach: Attach,
    *,
    name: str | None = None,
    address: str | None = None,
    once: bool = False,
    as_json: bool = False,
    verbose: bool = False,
    refresh_s: float = 1.0,
) -> int:
    """Show the swarm until Ctrl-C, or with `once`, `as_json` or no terminal one time. Returns the exit code."""
    console = Console(highlight=False, emoji=False, file=sys.stdout)
    once = once or not console.is_terminal
    with render.results_only():
        try:
            return asyncio.run(_execute(attach, console, name, address, once, as_json, refresh_s))
        except InputError as error:
            render.error(error, as_json=as_json)
            return BAD_INPUT
        except KeyboardInterrupt:
            return LEFT
        except asyncio.CancelledError:
            return TERMINATED
        except Exception as error:
            render.error(error, as_json=as_json, traceback=verbose)
            return FAULT


async def _execute(
    attach: Attach, console: Console, name: str | None, address: str | None, once: bool, as_json: bool, refresh_s: float
) -> int:
    async with attach(name, read_settings(address=address)) as swarm:
        if not once and not as_json:
            await _watch(swarm, console, refresh_s)
            return LEFT
        status = await _ask(swarm)
        if as_json:
            render.line(render.to_line(status.model_dump(mode="json"), indent=2))
        else:
            console.print(frame(status))
    return LEFT


async def _watch(swarm: Watched, console: Console, refresh_s: float) -> None:
    """Draw a frame a second until this is cancelled, or the swarm has been silent for too long."""
    this = asyncio.current_task()
    if this is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    status: SwarmStatus | None = None
    silent = 0
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            note = ""
            try:
                status, silent = await _ask(swarm), 0
            except ChimeraError as error:
                silent += 1
                if silent >= MAX_SILENT:
                    raise
                note = f"no answer ({silent}), trying again: {error}"
            live.update(_screen(status, note), refresh=True)
            await asyncio.sleep(refresh_s)


async def _ask(swarm: Watched) -> SwarmStatus:
    try:
        async with asyncio.timeout(ANSWER_S):
            return await swarm.status()
    except TimeoutError as error:
        raise SwarmError(f"the coordinator has not answered within {ANSWER_S:g} s") from error


def _screen(status: SwarmStatus | None, note: str) -> RenderableType:
    said = [Text(_safe(note), style="yellow", no_wrap=True, overflow="ellipsis")] if note else []
    return Group(*said, frame(status) if status else Text("waiting for the coordinator"))


def frame(status: SwarmStatus) -> RenderableType:
    """One picture of the swarm: what it does in words, then tables, side by side where there is room."""
    tables = (_latency(status), _managers(status), _roles(status), _nodes(status))
    return Group(
        Text.assemble((_safe(status.swarm), "bold"), (f"  up {_duration(status.uptime_s)}, pid {status.pid}", "dim")),
        _facts(status),
        Columns(tables, padding=(1, 2)),
    )


def _facts(status: SwarmStatus) -> Table:
    missions, rates, calls, budget, journal = (
        status.missions, status.rates, status.calls, status.budget, status.journal,
    )  # fmt: skip
    alive = sum(node.alive for node in status.nodes)
    managers_up = sum(manager.state == "up" for manager in status.managers)
    facts = {
        "places": f"{alive} of {len(status.nodes)} nodes, {managers_up} of {len(status.managers)} managers, "
        f"{status.cells_up} of {status.cells} cells",
        "agents": f"{status.agents:,}, {status.busy:,} busy; {status.waiting:,} attempts wait",
        "missions": f"{missions.running:,} running, {missions.queued:,} queued; {missions.admitted:,} admitted "
        f"({missions.resumed:,} resumed), {missions.refused:,} refused",
        "ended": _counts(missions.ended),
        "decisions": _counts(status.consensus),
        "failures": f"{_counts(status.failures)}; tasks quarantined: {status.quarantined:,}",
        "per second": f"{rates.missions_per_s:,.1f} missions, {rates.tasks_per_s:,.1f} tasks, "
        f"{rates.attempts_per_s:,.1f} attempts, {rates.failures_per_s:,.1f} failures, "
        f"{rates.journal_events_per_s:,.1f} events",
        "calls": f"{calls.made:,} made, {calls.saved:,} saved ({calls.saved / (calls.made + calls.saved or 1):.0%})",
        "spent": _spend(budget.spent),
        "reserved": _spend(budget.reserved),
        "journal": f"{journal.scheme or 'none'}, events: {journal.events:,}, appends: {journal.appends:,}",
    }
    grid = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        grid.add_row(Text(name, style="dim"), Text(_safe(fact)))
    return grid


def _latency(status: SwarmStatus) -> Table:
    latencies = status.latencies
    named = {
        "mission": latencies.mission_ms,
        "decision": latencies.decision_ms,
        "attempt": latencies.attempt_ms,
        "overhead": latencies.overhead_ms,
    }
    rows = [(name, *_milliseconds(found), f"{found.count:,}") for name, found in named.items()]
    return _table(("latency, ms", "p50", "p95", "p99", "of"), rows)


def _roles(status: SwarmStatus) -> Table:
    largest = sorted(status.agents_by_role.items(), key=lambda item: (-item[1].agents, item[0]))
    rows = ((name, f"{role.agents:,}", f"{role.busy:,}", f"{role.waiting:,}") for name, role in largest)
    return _table(("role", "agents", "busy", "waiting"), list(rows))


def _managers(status: SwarmStatus) -> Table:
    rows = [
        (
            m.name if m.state == "up" else f"{m.name} ({m.state})",
            *(f"{count:,}" for count in (m.agents, m.busy, m.waiting)),
            f"{m.cells_up}/{len(m.cells)}",
        )
        for m in status.managers
    ]
    return _table(("manager", "agents", "busy", "waiting", "cells"), rows)


def _nodes(status: SwarmStatus) -> Table:
    rows = [(n.node if n.alive else f"{n.node} (dead)", f"{n.cells}", f"{n.cpus:g}") for n in status.nodes]
    return _table(("node", "cells", "CPUs"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Names to the left, which give way where it is narrow, and numbers to the right; no more than MAX_ROWS of many."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if at else "left", no_wrap=at > 0, min_width=0 if at else 8)
    for name, *cells in rows[:MAX_ROWS] if len(rows) > MAX_ROWS + 1 else rows:
        table.add_row(Text(_safe(name), no_wrap=True, overflow="ellipsis"), *(Text(cell) for cell in cells))
    if len(rows) > MAX_ROWS + 1:
        table.add_row(Text(f"and {len(rows) - MAX_ROWS} more", style="dim"))
    return table


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"


def _safe(text: str) -> str:
    """In one line, and nothing in it that a terminal obeys."""
    return render.plain(text.replace("\n", " "))


def _milliseconds(found: Percentiles) -> tuple[str, str, str]:
    if not found.count:
        return "-", "-", "-"
    p50, p95, p99 = (f"{ms:,.1f}" if ms < 100 else f"{ms:,.0f}" for ms in (found.p50, found.p95, found.p99))
    return p50, p95, p99


def _spend(spend: Spend) -> str:
    return f"${spend.usd:,.2f}, {spend.tokens:,} tokens, {spend.calls:,} calls, {_duration(spend.seconds)}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
