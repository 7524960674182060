"""The cell as a plain class: no Ray, real policies that misbehave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chimera.actors.cell import Cell
from chimera.core.config import Settings
from chimera.core.types import AgentSpec, FailureKind, Task
from chimera.swarm.attempt import Attempt, Report
from chimera.swarm.policy import Seat


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
        ("hangs", FailureKind.TIMEOUT, "no reply within 0.2 s"),
        ("hangs_on", FailureKind.TIMEOUT, "no reply within 0.2 s"),
        ("hangs_in_thread", FailureKind.TIMEOUT, "no reply within 0.2 s"),
        ("returns_garbage", FailureKind.INVALID, "not a JSON value"),
        ("returns_nan", FailureKind.INVALID, "not a JSON value"),
        ("returns_nothing", FailureKind.INVALID, "returned nothing"),
        ("returns_too_much", FailureKind.INVALID, "the limit is 10000"),
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
    await asyncio.sleep(0)
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
