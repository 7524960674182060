"""Chimera as an MCP server, asked by the SDK's own client: in memory, over stdio and over HTTP."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from chimera.core.clock import ManualClock
from chimera.core.config import Settings
from chimera.core.errors import InputError, NotThere
from chimera.core.events import Event, EventKind
from chimera.core.types import MissionState, TaskResult
from chimera.mcp.asked import AskDuel, RunMission, WatchMetric
from chimera.mcp.server import MAX_AT_ONCE, TOOLS, http_app, mcp_server, serve_stdio
from chimera.swarm.mission import Mission
from chimera.system.mcp_serving import SwarmFace

TOKEN = "a-token-that-nobody-guesses-0123"
SETTINGS = Settings()
HERE = Path(__file__).parents[3]


class Swarm:
    """A swarm in memory: a mission's tasks are decided one after the other, and then it ends; `never` does not."""

    def __init__(self) -> None:
        self.missions: list[Mission] = []
        self.cancelled: list[str] = []
        self.cancelling = asyncio.Event()
        self.following = asyncio.Event()
        self.started: asyncio.Queue[str] = asyncio.Queue()

    async def start(self, mission: Mission) -> str:
        self.missions.append(mission)
        self.started.put_nowait(mission.goal)
        return f"m{len(self.missions)}"

    async def look_up(self, mission_id: str, wait_s: float = 0.0) -> TaskResult | None:
        number = int(mission_id[1:]) - 1
        if number >= len(self.missions):
            raise NotThere(f"no mission {mission_id} is here")
        if self.missions[number].goal == "never":
            return None
        return TaskResult(mission_id=mission_id, state=MissionState.ANSWERED, value="42", confidence=0.9)

    async def cancel(self, mission_id: str) -> TaskResult:
        self.cancelled.append(mission_id)
        self.cancelling.set()
        return TaskResult(mission_id=mission_id, state=MissionState.CANCELLED)

    async def events(self, mission_id: str) -> AsyncIterator[Event]:
        self.following.set()
        if self.missions[int(mission_id[1:]) - 1].goal == "never":
            await asyncio.Event().wait()
        for seq in range(1, 4):
            yield Event(mission_id=mission_id, seq=seq, kind=EventKind.TASK_DECIDED, at_s=0.0, task_id=f"task-{seq}")
            await asyncio.sleep(0)
        yield Event(mission_id=mission_id, seq=4, kind=EventKind.MISSION_ENDED, at_s=0.0)


def face(swarm: Swarm | None = None, **more: Any) -> SwarmFace:
    return SwarmFace(swarm, settings=SETTINGS, clock=ManualClock(1e9), **more)


async def asked(client: Client, tool: str, **arguments: Any) -> tuple[bool, str]:
    result = await client.call_tool(tool, arguments)
    [block] = result.content
    return bool(result.is_error), str(getattr(block, "text", ""))


async def test_the_tools_say_what_they_take_and_whether_they_only_read() -> None:
    async with Client(mcp_server(face())) as client:
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert set(tools) == set(TOOLS)
        for name, tool in tools.items():
            assert tool.description and tool.input_schema["additionalProperties"] is False
            assert tool.annotations is not None and tool.annotations.read_only_hint == TOOLS[name][1]


async def test_a_mission_is_run_and_its_progress_told() -> None:
    swarm = Swarm()
    told: list[float] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        told.append(progress)

    async with Client(mcp_server(face(swarm))) as client:
        result = await client.call_tool(
            "run_mission", {"goal": "What?", "budget_usd": 0.5, "deadline_s": 9}, progress_callback=progress
        )
        assert not result.is_error
        assert result.structured_content == {
            "mission_id": "m1",
            "state": "answered",
            "value": "42",
            "confidence": 0.9,
            "elapsed_s": 0.0,
            "cost_usd": 0.0,
        }
        assert '"answered"' in (await asked(client, "mission_status", mission_id="m1"))[1]
    assert told and told == sorted(set(told))
    [mission] = swarm.missions
    assert mission.limits.deadline_s == 9 and mission.limits.budget and mission.limits.budget.usd == 0.5


async def test_a_mission_whose_caller_gives_up_is_cancelled() -> None:
    swarm = Swarm()
    async with Client(mcp_server(face(swarm))) as client:
        calling = asyncio.create_task(client.call_tool("run_mission", {"goal": "never"}))
        await swarm.following.wait()
        calling.cancel()
        await asyncio.wait([calling])
        await swarm.cancelling.wait()
        assert swarm.cancelled == ["m1"]
        error, text = await asked(client, "mission_status", mission_id="m1")
        assert not error and "running" in text


async def test_a_mission_that_takes_longer_goes_on_and_its_caller_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimera.system.mcp_serving.END_S", 0.0)
    swarm = Swarm()
    report = await face(swarm).run_mission(RunMission(goal="never", deadline_s=0.01), lambda *_: None)
    assert report.state is MissionState.RUNNING and report.advice and "mission_status" in report.advice
    assert not swarm.cancelled


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("run_mission", {}, "goal: Field required"),
        ("run_mission", {"goal": "x", "model": "openai"}, "model: Extra inputs"),
        ("run_mission", {"goal": "x", "deadline_s": -1}, "deadline_s"),
        ("run_mission", {"goal": "x", "documents": "docs"}, "no documents are shared"),
        ("mission_status", {"mission_id": "m9"}, "no mission m9"),
        ("mission_status", {"mission_id": "\x1b[2J"}, "mission_id"),
        ("ask_duel", {"champion": "random", "contender": "minimax", "env_ids": ["sat-v0"]}, "no duels are held"),
        ("watch_metric", {"metric": "cpu"}, "give values"),
        ("watch_metric", {}, "either metric"),
        ("watch_metric", {"values": [1.0] * 5_001}, "values"),
        ("drop_tables", {}, "no tool 'drop_tables'"),
    ],
)
async def test_a_tools_error_says_what_to_do(tool: str, arguments: dict[str, Any], told: str) -> None:
    async with Client(mcp_server(face(Swarm()))) as client:
        error, text = await asked(client, tool, **arguments)
        assert error and told in text and text.isprintable()


async def test_a_fault_of_ours_tells_nothing_of_our_insides(caplog: pytest.LogCaptureFixture) -> None:
    swarm = Swarm()

    async def broken(mission: Mission) -> str:
        raise RuntimeError("password=hunter2")

    swarm.start = broken  # type: ignore[method-assign]
    async with Client(mcp_server(face(swarm))) as client:
        error, text = await asked(client, "run_mission", goal="x")
        assert error and "hunter2" not in text and "log" in text
    assert "run_mission" in caplog.text


async def test_calls_at_once_are_bounded() -> None:
    swarm = Swarm()
    async with Client(mcp_server(face(swarm))) as client:
        calling = [asyncio.create_task(client.call_tool("run_mission", {"goal": "never"})) for _ in range(MAX_AT_ONCE)]
        for _ in calling:
            await swarm.started.get()
        error, text = await asked(client, "run_mission", goal="one more")
        assert error and "wait" in text
        assert not (await asked(client, "mission_status", mission_id="m1"))[0]  # what only reads goes on
        calling.pop().cancel()
        await swarm.cancelling.wait()
        while (await asked(client, "run_mission", goal="one more"))[0]:
            pass  # until the place is given back
        for call in calling:
            call.cancel()
        await asyncio.gather(*calling, return_exceptions=True)


@pytest.mark.parametrize(
    "given", ["../secret", "/etc", "link", "a/../../secret", "package:x/y", "a\0b", "x" * 1_000, "file"]
)
async def test_documents_outside_the_shared_folder_are_not_read(tmp_path: Path, given: str) -> None:
    shared = tmp_path / "shared"
    (shared / "a").mkdir(parents=True)
    (shared / "file").write_text("x")
    (tmp_path / "secret").mkdir()
    (shared / "link").symlink_to(tmp_path / "secret")
    swarm = Swarm()
    mine = face(swarm, documents=shared)
    with pytest.raises(InputError, match="no such folder") as caught:
        await mine.run_mission(RunMission(goal="x", documents=given), lambda *_: None)
    assert str(tmp_path) not in caught.value.message and not swarm.missions
    await mine.run_mission(RunMission(goal="x", documents="a"), lambda *_: None)
    assert swarm.missions[0].docs == str(shared / "a")


async def test_a_duel_is_held_between_harmless_or_shared_miners_only() -> None:
    held: list[Any] = []

    async def hold(request: Any, _settings: Settings, watch: Any) -> Any:
        held.append(request)
        watch("sat-v0", None, (1, 2))
        total = SimpleNamespace(decision="contender", won=("sat-v0",), needed=1)
        return SimpleNamespace(request=request, total=total, duels=())

    mine = face(hold=hold, miners=["chutes:shared"])
    told: list[tuple[float, float | None]] = []
    for contender in ("minimax", "chutes:shared"):
        wanted = AskDuel(champion="random", contender=contender, env_ids=("sat-v0",), samples=50)
        answer = await mine.ask_duel(wanted, lambda done, of, _what: told.append((done, of)))
        assert answer.winner == contender
    assert told == [(2, 50), (2, 50)] and held[0].rule.budget == 50
    for miner in ("python:os:system", "openai:x@http://169.254.169.254/", "chutes:other", "oracle:p=0.5/../x"):
        with pytest.raises(InputError, match="may not duel"):
            await mine.ask_duel(AskDuel(champion="random", contender=miner, env_ids=("sat-v0",)), lambda *_: None)
    with pytest.raises(InputError, match="two different"):
        await mine.ask_duel(AskDuel(champion="random", contender="random", env_ids=("sat-v0",)), lambda *_: None)


async def test_a_series_is_judged_and_forecast() -> None:
    values = tuple(10.0 + 0.1 * (at % 7) + (40.0 if at == 350 else 0.0) for at in range(400))
    report = await face().watch_metric(WatchMetric(values=values, horizon=5))
    assert report.values == 400 and report.forecast is not None and len(report.forecast.mean) == 5
    assert 350 in [anomaly.index for anomaly in report.anomalies]
    assert all(9.0 < mean < 12.0 for mean in report.forecast.mean)
    quiet = await face().watch_metric(WatchMetric(values=(1.0, 1.0)))
    assert quiet.anomalies == () and quiet.forecast is None


async def test_a_metric_that_is_watched_is_shown_by_its_name() -> None:
    from chimera.core.watching import Reading
    from chimera.system.local_watch import LocalWatch

    async with LocalWatch(clock=ManualClock(1e9)) as watch:
        await watch.push([Reading("cpu", 1e9 - 1_000 + 10 * at, 5.0 + at % 3) for at in range(100)])
        report = await face(watch=watch).watch_metric(WatchMetric(metric="cpu", horizon=3))
        assert report.view is not None and report.view["metric"] == "cpu" and report.forecast is not None
        with pytest.raises(InputError, match="no reading"):
            await face(watch=watch).watch_metric(WatchMetric(metric="nothing"))


async def test_over_stdio() -> None:
    parameters = StdioServerParameters(command=sys.executable, args=["-m", __name__], cwd=str(HERE))
    async with Client(parameters) as client:
        error, text = await asked(client, "run_mission", goal="What?")
        assert not error and '"value": "42"' in text
        assert (await asked(client, "watch_metric", metric="cpu"))[0]


@asynccontextmanager
async def served(swarm: Swarm) -> AsyncIterator[str]:
    """The HTTP app on a free port of this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(http_app(face(swarm), TOKEN), log_level="error"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        await serving


async def test_over_http_with_the_token_only() -> None:
    swarm = Swarm()
    async with served(swarm) as url:
        with_token = httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"})
        async with with_token, Client(streamable_http_client(url, http_client=with_token)) as client:
            told: list[float] = []

            async def progress(progress: float, total: float | None, message: str | None) -> None:
                told.append(progress)

            result = await client.call_tool("run_mission", {"goal": "What?"}, progress_callback=progress)
            assert not result.is_error and told
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accept = {"Accept": "application/json, text/event-stream"}
        async with httpx2.AsyncClient() as stranger:
            for given in ("", "Bearer", "Bearer x", f"Bearer {TOKEN}x", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}"):
                response = await stranger.post(url, json=body, headers={**accept, "Authorization": given})
                assert response.status_code == 401 and TOKEN not in response.text
            twice = [("Authorization", "Bearer x"), ("Authorization", f"Bearer {TOKEN}"), *accept.items()]
            for both in (twice, [twice[1], twice[0], *twice[2:]]):
                assert (await stranger.post(url, json=body, headers=both)).status_code == 401
            good = {**accept, "Authorization": f"Bearer {TOKEN}"}
            rebound = await stranger.post(url, json=body, headers={**good, "Host": "evil.example"})
            assert rebound.status_code == 421
            foreign = await stranger.post(url, json=body, headers={**good, "Origin": "https://evil.example"})
            assert foreign.status_code == 403
            large = await stranger.post(
                url, content=b" " * 2_000_000, headers={**good, "Content-Type": "application/json"}
            )
            assert large.status_code == 413
    assert len(swarm.missions) == 1


@pytest.mark.parametrize("token", ["", "short", "é" * 40, "x" * 30 + "\n"])
def test_a_token_that_could_be_guessed_is_refused(token: str) -> None:
    with pytest.raises(InputError, match="token"):
        http_app(face(), token)


async def _serve_and_print() -> None:
    mine = face(swarm := Swarm())
    start = swarm.start

    async def loud(mission: Mission) -> str:
        print("what is printed does not disturb the protocol")  # noqa: T201
        return await start(mission)

    swarm.start = loud  # type: ignore[method-assign]
    await serve_stdio(mine)


if __name__ == "__main__":
    asyncio.run(_serve_and_print())
