"""The cell as a plain class: no Ray, real policies that misbehave."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from chimera.actors.cell import MAX_STUCK, Cell
from chimera.core.config import Settings
from chimera.core.types import AgentSpec, FailureKind, Reply, Task
from chimera.swarm.attempt import Attempt, Report
from chimera.swarm.policy import Seat
from tests.policies import LET_GO


def attempt(timeout_s: float = 5.0, number: int = 1, **inputs: Any) -> Attempt:
    return Attempt(f"m/t/0/{number}", "m", "t", 0, number, Task(goal="g", inputs=inputs), timeout_s)


async def host(policy: str, **options: Any) -> Cell:
    cell = Cell(named="Cell[0]", settings=Settings(max_reply_bytes=10_000))
    spec = AgentSpec(policy=f"tests.policies:{policy}", options=options)
    assert await cell.host([Seat.of(spec, agent_id="a0")]) == {}
    return cell


async def run(cell: Cell, *attempts: Attempt) -> list[Report]:
    await cell.run([("a0", one) for one in attempts])
    wanted = [one.id for one in attempts]
    while True:
        ended = {report.attempt_id: report for report in (await cell.collect(0, 10.0)).reports}
        if ended.keys() >= set(wanted):
            return [ended[one] for one in wanted]
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("policy", ["answer", "answer_in_thread"])
async def test_a_reply_comes_back(policy: str) -> None:
    [report] = await run(await host(policy), attempt(answer="yes"))
    assert report.reply is not None and report.reply.value == "yes"
    assert (report.agent, report.policy, report.failure) == ("a0", policy, None)


@pytest.mark.parametrize(
    ("policy", "kind", "said"),
    [
        ("raises", FailureKind.RAISED, "ValueError: this policy always raises"),
        ("exits", FailureKind.RAISED, "SystemExit"),
        ("raises_the_unspeakable", FailureKind.RAISED, "Unspeakable, whose message cannot be read"),
        ("hangs", FailureKind.TIMEOUT, "no reply within 0.2 s"),
        ("hangs_on", FailureKind.TIMEOUT, "no reply within 0.2 s"),
        ("hangs_in_thread", FailureKind.TIMEOUT, "no reply within 0.2 s"),
        ("returns_garbage", FailureKind.INVALID, "not a JSON value"),
        ("returns_nan", FailureKind.INVALID, "not a JSON value"),
        ("returns_nothing", FailureKind.INVALID, "returned nothing"),
        ("returns_too_much", FailureKind.INVALID, "the limit is 10000"),
        ("returns_more_than_all_confidence", FailureKind.INVALID, "confidence"),
    ],
)
async def test_every_misbehaviour_is_a_report_that_says_why(policy: str, kind: FailureKind, said: str) -> None:
    [report] = await run(await host(policy), attempt(timeout_s=0.2))
    assert report.failure is kind
    assert said in report.detail


async def test_a_fault_of_the_mission_is_marked_as_one() -> None:
    [report] = await run(await host("bad_input"), attempt())
    assert report.input_error == "InputError"


async def test_a_class_keeps_its_state_between_attempts() -> None:
    cell = await host("Counting", start=10)
    replies = [await run(cell, attempt(number=number)) for number in (1, 2, 3)]
    assert [reports[-1].reply.value for reports in replies if reports[-1].reply] == [11, 12, 13]


async def test_a_cancelled_attempt_ends_at_once() -> None:
    cell = await host("hangs")
    await cell.run([("a0", attempt(timeout_s=60.0))])
    await cell.cancel(["m/t/0/1"])
    batch = await cell.collect(0, 5.0)
    assert [report.failure for report in batch.reports] == [FailureKind.CANCELLED]


async def test_an_agent_that_blocks_its_loop_is_found_out_and_its_neighbours_go_on() -> None:
    cell = Cell(named="Cell[0]", settings=Settings())
    names = ["blocks_the_loop", "hangs", "answer"]
    await cell.host([Seat.of(AgentSpec(policy=f"tests.policies:{name}"), agent_id=name) for name in names])
    await cell.run([("blocks_the_loop", attempt(timeout_s=0.5, number=1))])
    await asyncio.sleep(0.1)
    await cell.run([("hangs", attempt(timeout_s=30.0, number=2))])
    blocked, behind = sorted([*(await cell.collect(0, 5.0)).reports, *(await cell.collect(1, 5.0)).reports], key=str)[
        :2
    ]
    assert (blocked.failure, behind.failure) == (FailureKind.TIMEOUT, FailureKind.LOST)
    assert "it blocks the event loop" in blocked.detail
    await cell.run([("answer", attempt(number=3))])
    [after] = (await cell.collect(2, 5.0)).reports
    assert after.reply is not None and after.reply.value == 42


async def test_a_cancel_at_any_moment_leaves_exactly_one_report() -> None:
    cell = await host("blocks_the_loop")
    await cell.run([("a0", attempt(timeout_s=0.05, number=number)) for number in range(1, 9)])
    for number in range(1, 9):
        await asyncio.sleep(0.02)
        await cell.cancel([f"m/t/0/{number}"])
    for _ in range(100):
        reports = (await cell.collect(0, 1.0)).reports
        if len(reports) == 8:
            break
        await asyncio.sleep(0.05)
    assert sorted(report.attempt_id for report in reports) == [f"m/t/0/{number}" for number in range(1, 9)]
    assert cell._running == {}


async def test_a_loop_that_is_blocked_from_a_child_task_is_given_up_too() -> None:
    cell = await host("blocks_below")
    [blocked] = await run(cell, attempt(timeout_s=0.2))
    assert blocked.failure is FailureKind.TIMEOUT and "it blocks the event loop" in blocked.detail
    await cell.host([Seat.of(AgentSpec(policy="tests.policies:answer"), agent_id="a1")])
    await cell.run([("a1", attempt(number=2))])
    [after] = (await cell.collect(1, 5.0)).reports
    assert after.reply is not None


@pytest.mark.parametrize("policy", ["exits_below", "stops_its_loop"])
async def test_a_policy_that_ends_its_loop_harms_no_other(policy: str) -> None:
    cell = await host(policy)
    [ended] = await run(cell, attempt(timeout_s=0.5))
    assert ended.failure in (FailureKind.TIMEOUT, FailureKind.RAISED)
    await cell.host([Seat.of(AgentSpec(policy="tests.policies:answer"), agent_id="a1")])
    await cell.run([("a1", attempt(number=2))])
    [after] = (await cell.collect(1, 5.0)).reports
    assert after.reply is not None


async def test_a_reply_that_brings_code_of_its_own_arrives_as_a_plain_reply() -> None:
    [report] = await run(await host("returns_a_trojan"), attempt())
    assert type(report.reply) is Reply and report.reply.value == 42


async def test_a_policy_cannot_change_what_the_other_replicas_are_asked() -> None:
    cell = await host("takes_its_input_away")
    told = attempt(text="word")
    again = replace(told, id="m/t/1/1", replica=1)
    reports = await run(cell, told, again)
    assert [report.reply.value for report in reports if report.reply] == ["word", "word"]


async def test_plain_functions_that_were_cancelled_are_not_stuck() -> None:
    cell = await host("naps")
    await cell.run([("a0", attempt(timeout_s=30.0, number=number)) for number in range(1, 31)])
    await cell.cancel([f"m/t/0/{number}" for number in range(1, 31)])
    assert len((await cell.collect(0, 5.0)).reports) == 30


async def test_policies_that_never_end_are_counted_and_the_cell_asks_for_its_end() -> None:
    cell = await host("hangs_for_good")
    await cell.run([("a0", attempt(timeout_s=0.05, number=number)) for number in range(1, MAX_STUCK + 2)])

    async def collect_for_a_while() -> None:
        for _ in range(500):
            await cell.collect(0, 0.01)
            await asyncio.sleep(0.01)

    with pytest.raises(RuntimeError, match="go on long after their time"):
        await collect_for_a_while()
    LET_GO.append(True)


async def test_an_agent_that_is_not_here_is_a_lost_attempt() -> None:
    cell = await host("answer")
    await cell.run([("nobody", attempt())])
    batch = await cell.collect(0, 5.0)
    assert [report.failure for report in batch.reports] == [FailureKind.LOST]


async def test_reports_are_given_again_until_acknowledged() -> None:
    cell = await host("answer")
    await cell.run([("a0", attempt())])
    first = await cell.collect(0, 5.0)
    again = await cell.collect(0, 5.0)
    assert again == first
    assert (await cell.collect(first.last, 0.01)).reports == ()


async def test_a_policy_that_cannot_be_loaded_is_refused_alone() -> None:
    cell = Cell(named="Cell[0]", settings=Settings())
    seats = [
        Seat.of(AgentSpec(policy="tests.policies:answer"), agent_id="good"),
        Seat.of(AgentSpec(policy="tests.policies:no_such"), agent_id="bad"),
    ]
    refused = await cell.host(seats)
    assert list(refused) == ["bad"] and "no_such" in refused["bad"]
    assert repr(cell) == "Cell[0] 1 agents"
