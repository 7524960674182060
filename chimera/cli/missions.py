"""`chimera missions`: what a journal holds, and going on with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from chimera.cli import render
from chimera.cli.settings import opening, read_settings
from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.core.events import Event, EventKind
from chimera.core.types import TaskResult
from chimera.storage.journal import MAX_READ, Journal, MissionSummary, open_journal
from chimera.swarm import facts

BAD_INPUT, FAULT = 2, 3

LAST = 100
"""Events of an unfinished mission that a list looks at."""


def execute_list(journal: str | None, *, running: bool, limit: int, as_json: bool) -> int:
    """Print the missions of a journal."""
    return _run(_list(journal, running=running, limit=limit, as_json=as_json), as_json)


def execute_show(mission_id: str, journal: str | None, *, as_json: bool) -> int:
    """Print a mission's events."""
    return _run(_show(mission_id, journal, as_json=as_json), as_json)


def execute_resume(mission_id: str, address: str | None, journal: str | None, *, as_json: bool) -> int:
    """Go on with a mission and print its result."""
    return _run(_resume(mission_id, address, journal, as_json=as_json), as_json)


def execute_cancel(mission_id: str, address: str | None, swarm: str | None, *, as_json: bool) -> int:
    """Cancel a mission and print what there is of it."""
    return _run(_cancel(mission_id, address, swarm, as_json=as_json), as_json)


def _run(work: Coroutine[Any, Any, int], as_json: bool) -> int:
    with render.results_only():
        try:
            return asyncio.run(work)
        except InputError as error:
            render.error(error, as_json=as_json)
            return BAD_INPUT
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            render.error(error, as_json=as_json)
            return FAULT


async def _list(journal: str | None, *, running: bool, limit: int, as_json: bool) -> int:
    opened = _open(read_settings(journal_url=journal))
    try:
        found = await opened.missions(limit, running=running)
        states = [await _state(opened, mission) for mission in found]
    finally:
        await opened.close()
    for mission, state in zip(found, states, strict=True):
        if as_json:
            render.line(render.to_line({**mission.model_dump(mode="json"), "state": state}))
            continue
        began = datetime.fromtimestamp(mission.first_at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
        render.say(
            (f"{mission.mission_id:24}", "bold"), f"  {began}  {state:10} {mission.events:6} events  {mission.swarm}"
        )
    if not found and not as_json:
        render.note("no missions in this journal")
    return 0


async def _state(journal: Journal, mission: MissionSummary) -> str:
    """Where a mission stands, as far as its last events tell: a held one waits for a person."""
    if mission.last_kind is EventKind.MISSION_ENDED:
        return "ended"
    last = await journal.read(mission.mission_id, after=max(0, mission.events - LAST))
    return "held" if facts.held_in(last) else "unfinished"


def _open(settings: Settings) -> Journal:
    """The journal, to be read. The default one is empty where nothing has ever been run; no other is."""
    with opening(settings.journal):
        try:
            return open_journal(settings.journal, create=False)
        except InputError as error:
            if settings.journal_url or not isinstance(error.__cause__, FileNotFoundError):
                raise
            return open_journal("memory://")


async def _events(settings: Settings, mission_id: str) -> list[Event]:
    journal = _open(settings)
    try:
        events = await journal.read(mission_id)
        while events and len(events) % MAX_READ == 0 and (more := await journal.read(mission_id, after=len(events))):
            events += more
    finally:
        await journal.close()
    if not events:
        raise InputError(f"no mission {mission_id!r} in this journal: `chimera missions list` names those there are")
    return events


async def _show(mission_id: str, journal: str | None, *, as_json: bool) -> int:
    events = await _events(read_settings(journal_url=journal), mission_id)
    for event in events:
        if as_json:
            render.line(render.to_line(event.model_dump(mode="json")))
            continue
        at = datetime.fromtimestamp(event.at_s, UTC).strftime("%H:%M:%S.%f")[:-3]
        render.say(f"{event.seq:5}  {at}  ", (f"{event.kind.value:18}", "bold"), f" {event.task_id:20} {_told(event)}")
    return 0


def _told(event: Event) -> str:
    """An event's data in one line. What is long is cut: `--json` has it all."""
    shown = {name: value for name, value in event.data.items() if name not in ("graph",) and value not in ("", None)}
    said = " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in shown.items())
    return said if len(said) <= 160 else said[:157] + "..."


async def _resume(mission_id: str, address: str | None, journal: str | None, *, as_json: bool) -> int:
    settings = read_settings(journal_url=journal, address=address)
    events = await _events(settings, mission_id)
    if events[-1].kind is EventKind.MISSION_ENDED:
        raise InputError(f"mission {mission_id!r} has ended already: `chimera missions show {mission_id}`")
    async with AsyncExitStack() as stack:
        with opening(settings.journal):
            swarm = await stack.enter_async_context(SwarmCoordinator(settings=settings))
        with render.waiting("bringing the mission's agents back", shown=not as_json):
            await swarm.resume(mission_id)
        return _print(mission_id, await swarm.result(mission_id), as_json=as_json)


async def _cancel(mission_id: str, address: str | None, name: str | None, *, as_json: bool) -> int:
    async with SwarmCoordinator.attach(name, read_settings(address=address)) as swarm:
        return _print(mission_id, await swarm.cancel(mission_id), as_json=as_json, exit_code=0)


def _print(mission_id: str, result: TaskResult, *, as_json: bool, exit_code: int | None = None) -> int:
    if as_json:
        render.line(render.to_line(render.as_json(mission_id, result), indent=2))
    else:
        render.result(mission_id, result)
    return render.exit_code(result) if exit_code is None else exit_code
