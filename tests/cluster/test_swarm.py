"""The client API on a real Ray: what users script, and what their policies can do to it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from chimera import AgentSpec, Context, Equality, InputError, Overloaded, Reply, SwarmCoordinator, Task
from chimera.core.errors import NoAgents, PolicyError, SwarmError
from chimera.core.types import FailureKind, Isolation, MissionState, Outcome
from tests.actors.in_process import until
from tests.conftest import Crew

pytestmark = pytest.mark.cluster

ISOLATIONS = list(Isolation)


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_three_agents_agree(crew: Crew, isolation: Isolation) -> None:
    await crew.spawn("answer", "answer_in_thread", "answer", isolation=isolation)
    result = await crew.submit(inputs={"answer": {"n": 10}})
    assert result.state is MissionState.ANSWERED
    assert result.value == {"n": 10}
    assert result.decision is not None and result.decision.outcome is Outcome.AGREED
    assert result.confidence > 0.6


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize(
    ("policy", "kind", "said"),
    [
        ("raises", FailureKind.RAISED, "this policy always raises"),
        ("hangs", FailureKind.TIMEOUT, "no reply within"),
        ("hangs_in_thread", FailureKind.TIMEOUT, "no reply within"),
        ("returns_garbage", FailureKind.INVALID, "not a JSON value"),
    ],
)
async def test_one_bad_worker_leaves_a_correct_and_explained_result(
    crew: Crew, policy: str, kind: FailureKind, said: str, isolation: Isolation
) -> None:
    await crew.spawn("answer", policy, "answer", isolation=isolation)
    result = await crew.submit(early_stop=False, attempt_timeout_s=1.0)
    assert (result.state, result.value) == (MissionState.ANSWERED, 42)
    assert [vote.reply.value for vote in result.replies if vote.reply] == [42, 42]
    [failed] = [vote for vote in result.replies if vote.failure]
    assert failed.failure is kind and said in failed.detail


@pytest.mark.parametrize("policy", ["raises", "hangs", "returns_garbage"])
async def test_only_bad_workers_leave_an_explained_refusal(crew: Crew, policy: str) -> None:
    await crew.spawn(policy, policy, policy)
    result = await crew.submit(attempt_timeout_s=0.5)
    assert result.state is MissionState.UNDECIDED
    assert result.value is None
    expected = {"raises": "always raises", "hangs": "no reply within", "returns_garbage": "not a JSON value"}[policy]
    assert result.replies and all(vote.failure and expected in vote.detail for vote in result.replies)
    assert expected in result.explanation


async def test_a_worker_that_hangs_past_the_deadline_ends_the_mission_at_it(crew: Crew) -> None:
    await crew.spawn("hangs", "hangs", "answer")
    result = await crew.submit(deadline_s=2.0, attempt_timeout_s=60.0)
    assert result.state is MissionState.EXPIRED
    assert "deadline of 2 s" in result.explanation
    assert [vote.reply.value for vote in result.replies if vote.reply] == [42]


async def test_a_failed_attempt_goes_to_another_agent(crew: Crew) -> None:
    await crew.spawn("raises", "answer")
    results = [await crew.submit(replicas=1) for _ in range(4)]
    assert [r.value for r in results] == [42] * 4


async def test_a_cell_that_is_killed_loses_no_mission(own_crew: Crew) -> None:
    await own_crew.spawn(*["slowly"] * 6)
    delays = {"delays_s": [1.5], "answers": ["kept"]}
    mission_id = await own_crew.swarm.start_task(own_crew.task(inputs=delays, early_stop=False))
    async for event in own_crew.swarm.events(mission_id):
        if event.kind == "task_started":
            break
    status = await own_crew.swarm.status()
    assert status.busy == 3
    victim = status.managers[0].cells["Cell[0]"]
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    result = await own_crew.swarm.result(mission_id)
    assert (result.state, result.value) == (MissionState.ANSWERED, "kept")
    assert len([vote for vote in result.replies if vote.reply]) == 3
    lost = [e async for e in own_crew.swarm.events(mission_id) if e.kind == "attempt_failed"]
    assert lost and all(event.data["failure"] == "lost" for event in lost)
    again = await own_crew.submit(inputs={"delays_s": [0.0], "answers": ["after"]})
    assert again.value == "after"

    async def is_back() -> bool:
        return (await own_crew.swarm.status()).managers[0].cells["Cell[0]"] not in (None, victim)

    await until(is_back, 60.0)


async def test_a_policy_that_kills_its_process_is_tried_again(own_crew: Crew, tmp_path: Path) -> None:
    await own_crew.spawn("dies_once")
    result = await own_crew.submit(replicas=1, inputs={"marker": str(tmp_path / "died")})
    assert (result.state, result.value) == (MissionState.ANSWERED, 42)
    assert result.attempts == 2


async def test_a_policy_that_blocks_its_cell_is_put_an_end_to(crew: Crew) -> None:
    await crew.spawn("blocks_the_loop", "answer", "answer")
    result = await crew.submit(early_stop=False, attempt_timeout_s=2.0)
    assert (result.state, result.value) == (MissionState.ANSWERED, 42)


async def test_the_answer_does_not_depend_on_the_order_of_replies(crew: Crew) -> None:
    await crew.spawn(*["slowly"] * 3)
    answers = ["Paris", " PARIS", "paris"]
    seen = set()
    for delays in ([0.0, 0.2, 0.4], [0.4, 0.2, 0.0], [0.2, 0.0, 0.4]):
        inputs = {"delays_s": delays, "answers": answers}
        result = await crew.submit(inputs=inputs, equality=Equality(kind="text"))  # type: ignore[arg-type]
        seen.add((result.value, result.state))
    assert seen == {("paris", MissionState.ANSWERED)}


async def test_dissent_is_a_tie_and_ties_are_explained(crew: Crew) -> None:
    await crew.spawn(*["slowly"] * 2)
    result = await crew.submit(replicas=2, inputs={"delays_s": [0.0], "answers": ["a", "b"]})
    assert result.state is MissionState.UNDECIDED
    assert result.decision is not None and result.decision.outcome is Outcome.TIE


async def test_a_callable_written_here_is_a_policy(crew: Crew) -> None:
    bonus = 2

    async def double(task: Task, context: Context) -> Reply:
        number = task.inputs["number"]
        assert isinstance(number, int)
        return Reply(value=number * bonus, confidence=0.9)

    for _ in range(3):
        await crew.swarm.spawn_agent(AgentSpec(role=crew.role, policy=double))
    result = await crew.submit(inputs={"number": 21}, consensus="weighted")
    assert result.value == 42
    assert result.confidence == pytest.approx(0.9)


async def test_agents_without_a_policy_answer_from_the_inputs(crew: Crew) -> None:
    for _ in range(3):
        await crew.swarm.spawn_agent(AgentSpec(role=crew.role))
    text = "The tower was built in 1889. It is made of iron. Many people visit it every year."
    result = await crew.submit(goal="What is the tower made of?", inputs={"text": text}, consensus="weighted")
    assert (result.state, result.value) == (MissionState.ANSWERED, "It is made of iron."), result.model_dump_json()
    with pytest.raises(InputError, match="nothing to answer from"):
        await crew.submit(goal="What is it?")


async def test_a_graph_of_tasks_runs_in_order(crew: Crew) -> None:
    await crew.spawn("told")
    mission = {
        "goal": "a graph",
        "replicas": 1,
        "tasks": [
            {"id": "first", "goal": "1", "role": crew.role},
            {"id": "second", "goal": "2", "role": crew.role, "after": ["first"]},
        ],
    }
    result = await crew.swarm.run(mission)
    assert isinstance(result.value, dict) and isinstance(result.value["upstream"], dict)
    assert list(result.value["upstream"]) == ["first"]
    assert result.value["key"] == f"{result.mission_id}/second/0"


async def test_events_tell_the_whole_story_also_afterwards(crew: Crew) -> None:
    await crew.spawn("answer", "answer", "answer")
    result = await crew.submit(early_stop=False)
    events = [event async for event in crew.swarm.events(result.mission_id)]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    kinds = [event.kind.value for event in events]
    assert kinds[:2] == ["mission_admitted", "task_started"] and kinds[-2:] == ["task_decided", "mission_ended"]
    assert kinds.count("reply_accepted") == 3


async def test_two_swarms_in_one_process_do_not_end_each_other(crew: Crew, own_crew: Crew) -> None:
    settings = own_crew.swarm.settings
    async with SwarmCoordinator(settings=settings) as third:
        await third.spawn_agent(AgentSpec(role="analyzer", policy="tests.policies:answer"))
    await own_crew.spawn("answer")
    assert (await own_crew.submit(replicas=1)).value == 42
    with pytest.raises(SwarmError, match="not running"):
        await third.status()


async def test_a_dead_manager_comes_back_with_its_agents_and_its_work_is_done(own_crew: Crew) -> None:
    await own_crew.spawn("answer", "counts_itself")
    task = own_crew.task(replicas=2, early_stop=False, inputs={"seconds": 0.5})
    running = [await own_crew.swarm.start_task(task) for _ in range(3)]
    [manager] = (await own_crew.swarm.status()).managers
    assert manager.pid is not None
    os.kill(manager.pid, signal.SIGKILL)
    results = [await own_crew.swarm.result(mission_id) for mission_id in running]
    assert [result.state for result in results] == [MissionState.ANSWERED] * 3
    [after] = (await own_crew.swarm.status()).managers
    assert after.pid != manager.pid and (after.agents, after.busy) == (2, 0)


async def test_a_dedicated_agent_that_is_refused_leaves_no_process(own_crew: Crew) -> None:
    before = (await own_crew.swarm.status()).managers[0].cells
    with pytest.raises(PolicyError):
        await own_crew.spawn("no_such", isolation=Isolation.DEDICATED)
    assert (await own_crew.swarm.status()).managers[0].cells == before


async def test_a_policy_that_kills_its_cell_while_it_loads_is_refused_and_the_cell_lives(own_crew: Crew) -> None:
    await own_crew.spawn("answer", "answer")
    with pytest.raises(PolicyError, match="while it loaded"):
        await own_crew.spawn("KillsWhenMade")
    assert (await own_crew.submit(replicas=2)).value == 42


async def test_bad_input_is_a_typed_error(own_crew: Crew) -> None:
    with pytest.raises(NoAgents, match="AgentSpec\\(role='analyzer'\\)"):
        await own_crew.submit()
    with pytest.raises(PolicyError, match=r"^policy no.such:thing: ModuleNotFoundError") as refused:
        await own_crew.swarm.spawn_agent(AgentSpec(policy="no.such:thing"))
    assert type(refused.value) is PolicyError, "Ray's own class does not reach the user"
    with pytest.raises(Overloaded, match="limit is 50"):
        await own_crew.spawn(*["answer"] * 51)
    await own_crew.spawn("bad_input")
    with pytest.raises(InputError, match="the mission itself is at fault"):
        await own_crew.submit(replicas=1)
    with pytest.raises(InputError, match="no mission 'nothing'"):
        await own_crew.swarm.result("nothing")


def listening(pid: int) -> list[str]:
    """The addresses that a process accepts TCP connections at, in the hexadecimal of /proc/net/tcp."""
    sockets = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.append(fields[1].partition(":")[0])
    return found


async def test_the_processes_of_a_local_swarm_listen_on_loopback_only(crew: Crew) -> None:
    await crew.spawn("answer")
    await crew.submit(replicas=1)
    status = await crew.swarm.status()
    told = [status.pid, *(manager.pid for manager in status.managers)]
    told += [pid for manager in status.managers for pid in manager.cells.values()]
    pids = [pid for pid in told if pid]
    addresses = [address for pid in pids for address in listening(pid)]
    assert len(addresses) >= len(pids), "each has a line of its own, besides what Ray opens"
    assert {a for a in addresses if a not in ("0100007F", "0000000000000000FFFF00000100007F")} == set()
