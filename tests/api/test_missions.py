"""A whole mission over HTTP: all that a task may say in Python, tasks that wait for one another, once for each key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chimera import Client, Mission, SwarmCoordinator, Task
from chimera.api.bodies import MAX_TASKS, Submit
from chimera.core.errors import Forbidden, GraphError, InputError, NotBuilt
from chimera.core.types import Budget, MissionState, TaskResult
from chimera.security.manager import LOCAL
from chimera.security.roles import Role
from tests.api.serving import Served
from tests.api.whole import Api

CHAIN: dict[str, Any] = {
    "goal": "say it twice",
    "consensus": "majority",
    "tasks": [
        {"id": "first", "goal": "one", "inputs": {"value": [1, 2, 3]}, "replicas": 3, "frugal": True},
        {"id": "each", "goal": "more", "after": ["first"], "each": "first", "replicas": 1, "max_attempts": 1},
        {"id": "last", "goal": "all", "after": ["each"], "needs": "settled", "replicas": 1},
    ],
    "limits": {"deadline_s": 30, "priority": 7, "budget": {"usd": 1.0}},
}

TOLD: dict[str, Any] = {
    "attempt_timeout_s": 2.5,
    "max_attempts": 2,
    "early_stop": False,
    "certainty": 0.9,
    "frugal": True,
    "different_policies": True,
    "skill": "maths",
    "spend": {"usd": 0.25},
    "review": "policy",
    "review_below": 0.5,
    "review_s": 3_600.0,
}


async def test_a_task_may_say_over_http_all_that_it_may_in_python(api: Api) -> None:
    assert set(Task.model_fields) - set(Submit.model_fields) == set()
    assert set(TOLD) == set(Task.model_fields) - {
        *("goal", "inputs", "role", "replicas", "consensus", "threshold", "equality", "deadline_s", "priority")
    }
    made = await api.ask("POST", "/api/swarm/task", Role.OPERATOR, json={"goal": "g", **TOLD})
    assert made.status_code == 202, made.text
    [admitted] = (await api.node.swarm.read_events(made.json()["mission_id"]))[:1]
    told: Any = admitted.data["graph"]
    assert Task.model_validate(told["nodes"][0]["task"]) == Task(goal="g", **TOLD)


WRONG: list[dict[str, Any]] = [
    {"max_attempts": 99},
    {"max_attempts": 0},
    {"certainty": 0.1},
    {"attempt_timeout_s": 1e9},
    {"skill": "no name"},
    {"spend": {"usd": -1}},
    {"certainty": 0.9, "consensus": "weighted"},
    {"threshold": 0.5},
    {"policy": "os:system"},
]


async def test_what_a_task_may_not_say_is_refused(api: Api) -> None:
    for wrong in WRONG:
        told = await api.ask("POST", "/api/swarm/task", Role.OPERATOR, json={"goal": "g", **wrong})
        assert told.status_code == 422 and next(iter(wrong)) in told.text, wrong


async def test_a_mission_of_many_tasks_runs_and_is_its_callers(api: Api) -> None:
    again = {"idempotency-key": "one"}
    made = [await api.ask("POST", "/api/swarm/missions", Role.API_CLIENT, json=CHAIN, headers=again) for _ in range(2)]
    assert {each.status_code for each in made} == {202} and made[0].json() == made[1].json()
    assert set(made[0].json()) == {"mission_id", "state"}
    path = f"/api/swarm/missions/{made[0].json()['mission_id']}"
    result = TaskResult.model_validate((await api.ask("GET", path, Role.API_CLIENT, params={"wait_s": 20})).json())
    assert result.state is MissionState.ANSWERED and result.value is not None
    events = (await api.ask("GET", f"{path}/events", Role.API_CLIENT)).json()["items"]
    assert {f"each[{n}]" for n in range(3)} <= {event["task_id"] for event in events}
    assert len((await api.ask("GET", "/api/swarm/missions", Role.API_CLIENT)).json()["items"]) == 1
    await api.node.security.create_user("another", "a long enough passphrase", Role.API_CLIENT, by=LOCAL)
    assert (await api.ask("GET", path, "another")).status_code == 404


UNFIT: list[tuple[dict[str, Any], int, str]] = [
    ({"docs": "/etc"}, 422, "docs"),
    ({"model": "offline"}, 422, "model"),
    ({"spawn": [{"policy": "os:system"}]}, 422, "spawn"),
    ({"output": "none"}, 400, "none"),
    ({"tasks": [{"id": "a", "goal": "g", "after": ["b"]}, {"id": "b", "goal": "g", "after": ["a"]}]}, 400, "a -> "),
    ({"tasks": [{"id": "a", "goal": "g"}, {"id": "b", "goal": "g"}]}, 400, "output"),
    ({"tasks": [{"id": "a", "goal": "g", "policy": "os:system"}]}, 422, "policy"),
    ({"tasks": [{"id": f"t{n}", "goal": "g"} for n in range(MAX_TASKS + 1)]}, 422, "1000"),
    ({"tasks": [{"id": "a", "goal": "g", "role": "nobody"}]}, 409, "nobody"),
    ({"tasks": [{"id": "a", "goal": "g", "threshold": 0.5}]}, 422, "threshold"),
    ({"limits": {"deadline_s": 1e9}}, 422, "deadline_s"),
]


async def test_a_mission_that_does_not_fit_is_refused(api: Api) -> None:
    for change, status, why in UNFIT:
        told = await api.ask("POST", "/api/swarm/missions", Role.OPERATOR, json={**CHAIN, **change})
        assert told.status_code == status and why in told.text, (change, told.text)
    assert (await api.ask("GET", "/api/swarm/missions", Role.OPERATOR)).json()["items"] == []


def test_the_client_runs_a_mission(server: Served, tmp_path: Path) -> None:
    with Client(server.url, server.token(Role.OPERATOR)) as client:
        result = client.run(CHAIN)
        assert result.state is MissionState.ANSWERED
        file = tmp_path / "mission.yaml"
        file.write_text("goal: say it\nreplicas: 1\n", encoding="utf-8")
        assert client.run(file).state is MissionState.ANSWERED
        with pytest.raises(GraphError, match="output"):
            client.start(Mission(goal="g", tasks=({"id": "a", "goal": "g"}, {"id": "b", "goal": "g"})))  # type: ignore[arg-type]
        with pytest.raises(NotBuilt, match="documents"):
            client.start(Mission(goal="g", docs="/etc"))
    with Client(server.url, server.token(Role.OBSERVER)) as observer, pytest.raises(Forbidden):
        observer.start(CHAIN)


async def test_a_script_runs_missions_against_a_node_as_on_ray(server: Served) -> None:
    async with SwarmCoordinator(address=server.url, token=server.token(Role.OPERATOR)) as swarm:
        result = await swarm.run(CHAIN)
        assert result.state is MissionState.ANSWERED
        decided = [event.task_id async for event in swarm.events(result.mission_id) if event.kind == "task_decided"]
        assert decided[-1] == "last" and len(decided) == 5
        assert (await swarm.run("What is said?")).state.ended
        task = Task(goal="g", **TOLD).model_copy(update={"skill": None, "different_policies": False, "spend": None})
        assert (await swarm.submit_task(task, budget=Budget(usd=1))).state is MissionState.ANSWERED
        with pytest.raises(InputError, match="chooses"):
            await swarm.start(CHAIN, mission_id="mine")
        with pytest.raises(NotBuilt, match="documents"):
            await swarm.start({"goal": "g", "docs": "/etc"})
