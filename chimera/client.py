"""The client API for scripted swarms: an async context manager that holds a swarm on Ray."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import JsonValue, ValidationError

from chimera.core.config import Settings
from chimera.core.errors import GraphError, InputError, SwarmError
from chimera.core.events import Event
from chimera.core.types import AgentSpec, Budget, MissionState, Task, TaskResult
from chimera.llm.models import open_model
from chimera.reload.messages import Parcel, Reloaded, ReloadStatus
from chimera.reload.source import read_source
from chimera.storage.journal import MissionSummary
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.graph import TaskGraph, TaskNode
from chimera.swarm.held import HeldTask, Review
from chimera.swarm.intent import IntentCompiler
from chimera.swarm.mission import Mission
from chimera.swarm.mission_file import load_mission
from chimera.swarm.policy import Seat
from chimera.swarm.status import HeldStatus, SwarmStatus
from chimera.system.champions import resolve_model

if TYPE_CHECKING:
    from chimera.http_client.swarm import RemoteSwarm
    from chimera.system.wiring import RunningSwarm

POLL_S = 30.0


class SwarmCoordinator:
    """A swarm: starts or joins Ray on entering, ends what it started on leaving.

    `max_agents` bounds the swarm; `address` is as in `Settings.address` and overrides it. Errors: ClusterError when
    Ray cannot be reached, InputError (and its children) for what the caller has to change, Overloaded at a limit.

    An `address` that is a URL, as `chimera serve` prints it, is a node's: its swarm is used over HTTP, with `token`
    (default: CHIMERA_TOKEN), and goes on afterwards. There a mission names no documents, policies are named and bounds
    are the node's own; what else is not there raises NotBuilt.
    """

    def __init__(
        self,
        *,
        max_agents: int | None = None,
        address: str | None = None,
        settings: Settings | None = None,
        token: str | None = None,
    ) -> None:
        changes: dict[str, Any] = {}
        if max_agents is not None:
            changes["max_agents"] = max_agents
        if address is not None:
            changes["address"] = address
        self.settings = Settings(**{**(settings or Settings()).model_dump(), **changes})
        self._token = token
        self._swarm: RunningSwarm | RemoteSwarm | None = None
        self._remote: RemoteSwarm | None = None
        self._attached_to: str | None = None
        self._attaches = False

    @classmethod
    def attach(cls, name: str | None = None, settings: Settings | None = None, *, token: str | None = None) -> Self:
        """A client of a swarm that runs already: the one of this name, or the only one. Leaving ends nothing.

        Raises, on entering, NoCluster where no Ray runs, and InputError where there is no such swarm.
        """
        client = cls(settings=settings, token=token)
        client._attached_to, client._attaches = name, True
        return client

    async def __aenter__(self) -> Self:
        if self.settings.address.startswith(("http://", "https://")):
            from chimera.http_client.swarm import RemoteSwarm

            token = self._token or os.environ.get("CHIMERA_TOKEN")
            self._swarm = self._remote = await RemoteSwarm.reach(self.settings.address, token, self._attached_to)
            return self

        from chimera.system.wiring import attach_swarm, start_swarm  # Ray takes most of a second to import

        if self._attaches:
            self._swarm = await attach_swarm(self._attached_to, self.settings)
        else:
            self._swarm = await start_swarm(self.settings)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        swarm, self._swarm, self._remote = self._swarm, None, None
        if swarm is not None:
            await swarm.close()

    @property
    def name(self) -> str:
        """The swarm's name; its actors are `NAME/Coordinator`, `NAME/Manager[0]`, `NAME/Cell[0]` and so on."""
        return self._running.name

    @property
    def dashboard(self) -> str:
        """The Ray dashboard's URL, or an empty string where none runs."""
        return self._running.connection.dashboard

    async def spawn_agent(self, spec: AgentSpec) -> str:
        """Spawn one agent and return its id. Raises PolicyError when its policy cannot be loaded in a cell."""
        return (await self.spawn_agents([spec]))[0]

    async def spawn_agents(self, specs: list[AgentSpec]) -> list[str]:
        """Spawn many agents in one call: all of them or, with an error, none."""
        packed: dict[int, Seat] = {}
        seats = [
            packed.setdefault(id(spec), Seat.of(spec)) if id(spec) not in packed else packed[id(spec)] for spec in specs
        ]
        ids: list[str] = await self._running.call("spawn_agents", seats, secrets.token_hex(6))
        return ids

    async def submit_task(self, task: Task, *, budget: Budget | None = None) -> TaskResult:
        """Run one task and wait for its result. Tasks that are submitted together travel together."""
        return await self.result(await self.start_task(task, budget=budget))

    async def start_task(self, task: Task, *, budget: Budget | None = None, mission_id: str = "") -> str:
        """Start one task and return its mission's id at once, for `events`, `result` and `cancel`.

        A `mission_id` of your own, such as a caller's, must be new; one that is here already is not started again.
        """
        graph = TaskGraph(nodes=(TaskNode(id="task", task=task),), output="task")
        return await self._running.submit(graph, task.deadline_s, budget, mission_id)

    async def run(self, mission: Mission | Mapping[str, Any] | str | Path) -> TaskResult:
        """Run a mission and wait for its result: a Mission, a mapping, the path of a YAML or JSON file, or a sentence.

        Its agents must be there (`spawn_agents`; for a mission over documents `chimera.swarm.roles.brief_agents`).
        """
        return await self.result(await self.start(mission))

    async def start(self, mission: Mission | Mapping[str, Any] | str | Path, *, mission_id: str = "") -> str:
        """Start a mission and return its id at once; `mission_id` is as in `start_task`."""
        if isinstance(mission, Path):
            mission = load_mission(mission)
        elif not isinstance(mission, Mission):
            async with open_model(resolve_model(self.settings.model, self.settings)) as model:
                mission = await IntentCompiler(model).compile(mission)
        if self._remote is not None:
            return await self._remote.start(mission, mission_id)
        mission = mission.model_copy(update={"model": resolve_model(mission.model, self.settings)})
        graph = TaskDecomposer(max_nodes=self.settings.max_nodes).decompose(mission)
        return await self._running.submit(graph, mission.limits.deadline_s, mission.limits.budget, mission_id)

    async def result(self, mission_id: str) -> TaskResult:
        """Wait for a mission's result. Raises the mission's own InputError when its input was at fault."""
        return raise_if_bad_input(await self._running.result(mission_id))

    async def cancel(self, mission_id: str) -> TaskResult:
        """End a mission and return what there is by then; one that has ended stays as it is."""
        result: TaskResult | None = await self._running.call("cancel", mission_id)
        return result if result is not None else await self.result(mission_id)

    async def held(self, after: str = "", limit: int = 1_000) -> list[HeldStatus]:
        """The tasks that wait for a person, over all missions of the swarm, by key: the first behind `after` on."""
        found: list[HeldStatus] = await self._running.call("held", after, limit)
        return found

    async def held_task(self, mission_id: str, task_id: str) -> HeldTask:
        """All that a person has to know to answer. Raises NotThere for a task that is not held."""
        found: HeldTask = await self._running.call("held_task", mission_id, task_id)
        return found

    async def reviewed(
        self,
        mission_id: str,
        task_id: str,
        verdict: Literal["approve", "edit", "reject"],
        *,
        by: str,
        reason: str = "",
        value: JsonValue = None,
    ) -> None:
        """Answer what a task is held for, in the name of a person: its mission goes on, or with `reject` ends failed.

        `value` is for an edit, and a rejection has a reason. The same answer again changes nothing. Raises InputError
        for an answer that does not fit, for another one than was given, and for a task that is not held.
        """
        try:
            review = Review(verdict=verdict, by=by, reason=reason, value=value)
        except ValidationError as error:
            [first, *_] = error.errors(include_url=False, include_input=False)
            field = ".".join(map(str, first["loc"]))
            raise InputError(f"{field}: {first['msg']}" if field else str(first["msg"])) from None
        await self._running.call("reviewed", mission_id, task_id, review)

    async def resume(self, mission_id: str) -> None:
        """Go on with a mission that another swarm left unfinished, from its journal; `result` waits for it.

        The agents that it needs must be here, and its deadline begins anew. Raises InputError for an unknown mission.
        """
        await self._running.call("resume", mission_id)

    async def missions(self, limit: int = 100, *, running: bool = False) -> list[MissionSummary]:
        """This swarm's missions, the one that began last first."""
        summaries: list[MissionSummary] = await self._running.call("missions", limit, running)
        return summaries

    async def look_up(self, mission_id: str, wait_s: float = 0.0) -> TaskResult | None:
        """A mission's result; None if it is still running after `wait_s` (at most 30). InputError: there is none."""
        result: TaskResult | None = await self._running.call("result", mission_id, wait_s)
        return result

    async def read_events(self, mission_id: str, after: int = 0, wait_s: float = 0.0) -> list[Event]:
        """Events with `seq > after`, at most 100, waiting up to `wait_s` (at most 30) for the first."""
        events: list[Event] = await self._running.call("events", mission_id, after, wait_s)
        return events

    async def events(self, mission_id: str) -> AsyncIterator[Event]:
        """A mission's events from its first to its last, as they happen."""
        seq = 0
        while True:
            events: list[Event] = await self._running.call("events", mission_id, seq, POLL_S)
            for event in events:
                yield event
                seq = event.seq
            if events and events[-1].kind == "mission_ended":
                return
            if not events and await self._running.call("result", mission_id, 0.0) is not None:
                return

    async def status(self) -> SwarmStatus:
        """The swarm at this moment: what `chimera top` shows."""
        status: SwarmStatus = await self._running.call("status")
        return status

    async def reload(self, module: str, source: str | bytes | Path | None = None) -> Reloaded:
        """Have this source of `module` in every cell, while agents are at work; None means the module's file.

        Agents whose policies are of the module keep their state, as `migrate(state, old_version)` of the new source
        makes it, or as it is. Cells that start later load this version too. Raises ReloadError if one cell cannot take
        it; then none does.
        """
        read = await asyncio.to_thread(read_source, module, source)
        done: Reloaded = await self._running.call("reload", module, Parcel(read.code, read.path))
        return done

    async def roll_back(self, module: str, *, lossy: bool = False) -> Reloaded:
        """The version before again, in every cell; states go through `migrate_back(state, older_version)`.

        With `lossy` agents have the state again that they had when they left it. Raises ReloadError.
        """
        now = (await self.reload_status()).modules.get(module)
        done: Reloaded = await self._running.call("roll_back", module, lossy, now.version if now else 0)
        return done

    async def reload_status(self) -> ReloadStatus:
        """Which versions of which modules run in the swarm."""
        status: ReloadStatus = await self._running.call("reload_status")
        return status

    @property
    def _running(self) -> RunningSwarm | RemoteSwarm:
        if self._swarm is None:
            raise SwarmError("the swarm is not running: use `async with SwarmCoordinator() as swarm`")
        return self._swarm


def raise_if_bad_input(result: TaskResult) -> TaskResult:
    """The result, unless its mission failed by its input: then that error, as it was raised."""
    if result.state is MissionState.FAILED and result.error:
        kinds = {cls.__name__: cls for cls in _children(InputError)}
        if kind := kinds.get(result.error["kind"]):
            message = result.error["message"]
            raise GraphError(message, result.error.get("reason", "")) if kind is GraphError else kind(message)
    return result


def _children(cls: type[InputError]) -> list[type[InputError]]:
    return [cls, *(below for child in cls.__subclasses__() for below in _children(child))]
