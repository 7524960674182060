"""`chimera run`: from options to missions, from results to what is printed and the exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chimera.cli import render
from chimera.cli.settings import opening, read_settings
from chimera.client import SwarmCoordinator
from chimera.core.config import Settings
from chimera.core.errors import ChimeraError, ClusterError, DocumentsError, InputError, MissionError
from chimera.core.types import AgentSpec, TaskResult
from chimera.llm.models import open_model
from chimera.swarm.intent import IntentCompiler
from chimera.swarm.mission import Mission
from chimera.swarm.mission_file import load_mission, parse_mission
from chimera.swarm.roles import brief_agents
from chimera.system.champions import resolve_model

ANSWERED, BAD_INPUT, FAULT, INTERRUPTED, TERMINATED = 0, 2, 3, 130, 143

MAX_QUESTIONS = 100_000


@dataclass(frozen=True, slots=True)
class Request:
    """The options of one `chimera run`."""

    question: str | None
    docs: str | None
    mission: Path | None
    questions: Path | None
    changes: dict[str, Any] = field(default_factory=dict)
    deadline_s: float | None = None
    address: str | None = None
    as_json: bool = False
    concurrency: int = 8
    verbose: bool = False


def execute(request: Request) -> int:
    """Run it, print what came of it, and return the exit code."""
    with render.results_only():
        try:
            return asyncio.run(_execute(request))
        except InputError as error:
            render.error(error, as_json=request.as_json)
            return BAD_INPUT
        except KeyboardInterrupt:
            return INTERRUPTED
        except asyncio.CancelledError:
            return TERMINATED
        except Exception as error:
            render.error(error, as_json=request.as_json, traceback=request.verbose)
            return FAULT


async def _execute(request: Request) -> int:
    settings = read_settings(address=request.address)
    missions = await _missions(request, settings)
    for model in {mission.model for mission in missions}:
        open_model(model)
    agents = _agents(missions[0])
    with render.waiting("starting Ray", shown=not request.as_json), opening(settings.journal):
        swarm = await SwarmCoordinator(settings=settings).__aenter__()
    try:
        # Ray's own handler prints a stack and leaves the swarm behind. This one leaves through the finally below.
        this = asyncio.current_task()
        if this is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
        with render.waiting(f"spawning {len(agents)} agents", shown=not request.as_json):
            await swarm.spawn_agents(agents)
        if not request.as_json and swarm.dashboard:
            render.note(f"Ray dashboard: {swarm.dashboard}")
        if request.questions:
            return await _batch(swarm, missions, request)
        return await _single(swarm, missions[0], request)
    finally:
        await swarm.__aexit__(None, None, None)


async def _single(swarm: SwarmCoordinator, mission: Mission, request: Request) -> int:
    mission_id = await swarm.start(mission)
    if not request.as_json and render.is_terminal():
        await render.progress(swarm.events(mission_id))
    result = await swarm.result(mission_id)
    if request.as_json:
        render.line(render.to_line(render.as_json(mission.goal, result), indent=2))
    else:
        render.result(mission.goal, result)
    return render.exit_code(result)


async def _batch(swarm: SwarmCoordinator, missions: list[Mission], request: Request) -> int:
    """Every question gets its line, also one that fails; the exit code is the worst of all."""
    worst = ANSWERED
    async for mission, result in _in_order(swarm, missions, request.concurrency):
        if isinstance(result, Exception):
            render.error(result, as_json=request.as_json, question=mission.goal)
            worst = max(worst, BAD_INPUT if isinstance(result, InputError) else FAULT)
            continue
        if request.as_json:
            render.line(render.to_line(render.as_json(mission.goal, result)))
        else:
            render.short(mission.goal, result)
        worst = max(worst, render.exit_code(result))
    return worst


async def _in_order(
    swarm: SwarmCoordinator, missions: list[Mission], concurrency: int
) -> AsyncIterator[tuple[Mission, TaskResult | Exception]]:
    """Results in the order of the questions, with at most `concurrency` missions running."""
    running: dict[int, asyncio.Task[TaskResult]] = {}
    started = 0
    try:
        for at, mission in enumerate(missions):
            while started < len(missions) and started < at + concurrency:
                running[started] = asyncio.create_task(swarm.run(missions[started]))
                started += 1
            try:
                yield mission, await running.pop(at)
            except ClusterError:
                raise  # the swarm itself is gone: the other questions have no chance either
            except ChimeraError as error:
                yield mission, error
    finally:
        for task in running.values():
            task.cancel()


async def _missions(request: Request, settings: Settings) -> list[Mission]:
    """The missions that the options ask for. Raises InputError before anything has been started."""
    given = [name for name in ("question", "mission", "questions") if getattr(request, name) is not None]
    if len(given) != 1:
        wanted = "a question, --mission FILE or --questions FILE"
        raise MissionError(f"give one of {wanted}" + (f", not {' and '.join(given)}" if given else ""))
    changes = {name: value for name, value in request.changes.items() if value is not None}
    if request.mission:
        missions = [load_mission(request.mission)]
    else:
        changes["model"] = resolve_model(changes.get("model", settings.model), settings)
        async with open_model(changes["model"]) as model:
            compiler = IntentCompiler(model)
            if request.question is not None:
                missions = [await compiler.compile(request.question)]
            else:
                goals = read_questions(request.questions) if request.questions else []
                missions = [await compiler.compile({"goal": goal}) for goal in goals]
    named = missions[0].docs if request.docs is None else request.docs
    if named is not None:
        changes["docs"] = _local(named, settings)
    elif not missions[0].tasks and not missions[0].spawn:
        raise DocumentsError("--docs: name the folder of documents that the question is about")
    changed = [_changed(mission, changes, request.deadline_s) for mission in missions]
    return [mission.model_copy(update={"model": resolve_model(mission.model, settings)}) for mission in changed]


def _changed(mission: Mission, changes: dict[str, Any], deadline_s: float | None) -> Mission:
    document = mission.model_dump(mode="json", exclude_unset=True) | changes
    if deadline_s is not None:
        document["limits"] = {**document.get("limits", {}), "deadline_s": deadline_s}
    return parse_mission(document)


def _local(docs: str, settings: Settings) -> str:
    """An absolute path, since workers stand elsewhere; checked here when the swarm surely runs on this machine."""
    if docs.startswith("package:") or settings.address.startswith("ray://"):
        return docs
    path = Path(docs).expanduser().absolute()
    here = settings.address == "local" or (settings.address == "auto" and "RAY_ADDRESS" not in os.environ)
    if here:
        from chimera.swarm.evidence.documents import list_documents

        list_documents(str(path))
    return str(path)


def _agents(mission: Mission) -> list[AgentSpec]:
    """The agents a mission names itself, or those of a mission over documents."""
    if mission.spawn:
        return [spec for entry in mission.spawn for spec in entry.specs()]
    return brief_agents(mission.replicas, mission.agents)


def read_questions(path: Path) -> list[str]:
    """The questions of a JSON-lines file. Raises MissionError that names the line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MissionError(f"--questions {path}: {error}") from error
    questions = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            question = json.loads(line)["question"]
            if not isinstance(question, str) or not question.strip():
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MissionError(f'{path}:{number}: not a JSON object with a "question": {line[:80]!r}') from error
        questions.append(question)
    if not questions:
        raise MissionError(f"--questions {path}: holds no questions")
    if len(questions) > MAX_QUESTIONS:
        raise MissionError(f"--questions {path}: {len(questions)} questions; the limit is {MAX_QUESTIONS}")
    return questions
