"""The cell as a plain class: no Ray, real policies that misbehave."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import Any

import pytest

from chimera.actors.cell import MAX_STUCK, Cell
from chimera.actors.work_loop import PING_S
from chimera.core.config import Settings
from chimera.core.types import AgentSpec, Budget, FailureKind, Reply, Task
from chimera.swarm.attempt import Attempt, Report, Work
from chimera.swarm.policy import Seat
from tests.actors.in_process import until
from tests.policies import LET_GO, REFUSED


def attempt(timeout_s: float = 5.0, number: int = 1, **inputs: Any) -> Attempt:
    work = Work(Task(goal="g", inputs=inputs)).pack()
    return Attempt(f"m/t/0/{number}", "m", "t", 0, number, "worker", timeout_s, work)


def new_cell(**settings: Any) -> Cell:
    made = Settings(**{"max_reply_bytes": 10_000, "state_url": "memory://", **settings})
    return Cell(named="Cell[0]", swarm="s", settings=made, end_self=lambda: None)


def value(report: Report) -> Any:
    assert report.reply is not None, report
    return Reply.model_validate_json(report.reply).value


async def host(policy: str, **options: Any) -> Cell:
    cell = new_cell()
    spec = AgentSpec(policy=f"tests.policies:{policy}", options=options)
    assert await cell.host([Seat.of(spec, agent_id="a0")]) == {}
    return cell


async def ended(cell: Cell, count: int) -> list[Report]:
    """Every report there is, by attempt, once there are so many. Fails when an attempt has two."""
    reports: list[Report] = []
    while len(reports) < count:
        reports += (await cell.collect(0, len(reports), 10.0)).reports
    assert len({report.attempt_id for report in reports}) == count == len(reports)
    return sorted(reports, key=lambda report: int(report.attempt_id.rpartition("/")[2]))


async def run(cell: Cell, *attempts: Attempt) -> list[Report]:
    await cell.run([("a0", one) for one in attempts])
    wanted = [one.id for one in attempts]
    while True:
        ended = {report.attempt_id: report for report in (await cell.collect(0, 0, 10.0)).reports}
        if ended.keys() >= set(wanted):
            return [ended[one] for one in wanted]
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("policy", ["answer", "answer_in_thread"])
async def test_a_reply_comes_back(policy: str) -> None:
    [report] = await run(await host(policy), attempt(answer="yes"))
    assert value(report) == "yes"
    assert (report.agent, report.policy, report.failure) == ("a0", policy, None)


@pytest.mark.parametrize(
    ("policy", "kind", "said"),
    [
        ("raises", FailureKind.RAISED, "ValueError: this policy always raises"),
        ("exits", FailureKind.RAISED, "SystemExit"),
        ("refuses_the_unsayable", FailureKind.INVALID, "Unsayable, whose message cannot be read"),
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
    assert [value(reports[-1]) for reports in replies] == [11, 12, 13]


async def test_a_cancelled_attempt_ends_at_once() -> None:
    cell = await host("hangs")
    await cell.run([("a0", attempt(timeout_s=60.0))])
    await cell.cancel(["m/t/0/1"])
    batch = await cell.collect(0, 0, 5.0)
    assert [report.failure for report in batch.reports] == [FailureKind.CANCELLED]


async def test_an_agent_that_blocks_its_loop_is_found_out_and_its_neighbours_go_on() -> None:
    cell = new_cell()
    names = ["blocks_the_loop", "hangs", "answer"]
    await cell.host([Seat.of(AgentSpec(policy=f"tests.policies:{name}"), agent_id=name) for name in names])
    await cell.run([("blocks_the_loop", attempt(timeout_s=0.5, number=1))])
    await asyncio.sleep(0.1)
    await cell.run([("hangs", attempt(timeout_s=30.0, number=2))])
    blocked, behind = await ended(cell, 2)
    assert (blocked.failure, behind.failure) == (FailureKind.TIMEOUT, FailureKind.LOST)
    assert "it blocks the event loop" in blocked.detail
    await cell.run([("answer", attempt(number=3))])
    assert value((await ended(cell, 3))[2]) == 42


async def test_a_loop_that_has_very_much_to_do_is_not_blocked() -> None:
    cell = await host("works_a_little")
    await cell.run([("a0", attempt(timeout_s=0.1, number=number)) for number in range(200)])
    reports = await ended(cell, 200)
    assert {report.failure for report in reports} <= {None, FailureKind.TIMEOUT}, "none is lost for its neighbours"
    loop = cell._work
    await cell.run([("a0", attempt(number=200))])
    assert value((await ended(cell, 201))[200]) == 42 and cell._work is loop


async def test_a_cancel_at_any_moment_leaves_exactly_one_report() -> None:
    cell = await host("blocks_the_loop")
    await cell.run([("a0", attempt(timeout_s=0.05, number=number)) for number in range(1, 9)])
    for number in range(1, 9):
        await asyncio.sleep(0.02)
        await cell.cancel([f"m/t/0/{number}"])
    for _ in range(100):
        reports = (await cell.collect(0, 0, 1.0)).reports
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
    [after] = (await cell.collect(1, 1, 5.0)).reports
    assert after.reply is not None


@pytest.mark.parametrize("policy", ["exits_below", "stops_its_loop"])
async def test_a_policy_that_ends_its_loop_harms_no_other(policy: str) -> None:
    cell = await host(policy)
    [ended] = await run(cell, attempt(timeout_s=0.5))
    assert ended.failure in (FailureKind.TIMEOUT, FailureKind.RAISED)
    await cell.host([Seat.of(AgentSpec(policy="tests.policies:answer"), agent_id="a1")])
    await cell.run([("a1", attempt(number=2))])
    [after] = (await cell.collect(1, 1, 5.0)).reports
    assert after.reply is not None


async def test_a_reply_that_brings_code_of_its_own_arrives_as_a_plain_reply() -> None:
    [report] = await run(await host("returns_a_trojan"), attempt())
    assert type(report.reply) is bytes and value(report) == 42


async def test_a_policy_cannot_change_what_the_other_replicas_are_asked() -> None:
    cell = await host("takes_its_input_away")
    told = attempt(text="word")
    again = replace(told, id="m/t/1/1", replica=1)
    reports = await run(cell, told, again)
    assert [value(report) for report in reports] == ["word", "word"]


async def test_plain_functions_that_were_cancelled_are_not_stuck() -> None:
    cell = await host("naps")
    await cell.run([("a0", attempt(timeout_s=30.0, number=number)) for number in range(1, 31)])
    await cell.cancel([f"m/t/0/{number}" for number in range(1, 31)])
    assert len((await cell.collect(0, 0, 5.0)).reports) == 30


async def test_policies_that_never_end_are_counted_and_the_cell_asks_for_its_end() -> None:
    cell = await host("hangs_for_good")
    await cell.run([("a0", attempt(timeout_s=0.05, number=number)) for number in range(1, MAX_STUCK + 2)])

    async def collect_for_a_while() -> None:
        for _ in range(500):
            await cell.collect(0, 0, 0.01)
            await asyncio.sleep(0.01)

    with pytest.raises(RuntimeError, match="go on long after their time"):
        await collect_for_a_while()
    LET_GO.append(True)


async def test_an_agent_that_is_not_here_is_a_lost_attempt() -> None:
    cell = await host("answer")
    await cell.run([("nobody", attempt())])
    batch = await cell.collect(0, 0, 5.0)
    assert [report.failure for report in batch.reports] == [FailureKind.LOST]


async def test_reports_are_given_again_until_acknowledged() -> None:
    cell = await host("answer")
    await cell.run([("a0", attempt())])
    first = await cell.collect(0, 0, 5.0)
    again = await cell.collect(0, 0, 5.0)
    assert again == first
    assert (await cell.collect(first.last, first.last, 0.01)).reports == ()


async def test_a_policy_that_cannot_be_loaded_is_refused_alone() -> None:
    cell = new_cell()
    seats = [
        Seat.of(AgentSpec(policy="tests.policies:answer"), agent_id="good"),
        Seat.of(AgentSpec(policy="tests.policies:no_such"), agent_id="bad"),
    ]
    refused = await cell.host(seats)
    assert list(refused) == ["bad"] and "no_such" in refused["bad"]
    assert repr(cell) == "Cell[0] 1 agents"


async def test_what_is_spent_is_told_and_the_grant_is_never_passed() -> None:
    cell = await host("spends")
    grant = Budget(usd=0.3, calls=3)
    within = replace(attempt(number=1, usd=[0.1, 0.1], at_last=0.1), spend=grant)
    over = replace(attempt(number=2, usd=[0.2, 0.2]), spend=grant)
    at_last = replace(attempt(number=3, usd=[0.2], at_last=0.2), spend=grant)
    calls = replace(attempt(number=4, usd=[0.0] * 4), spend=grant)
    reports = await run(cell, within, over, at_last, calls)
    assert [report.failure for report in reports] == [None, *[FailureKind.NO_BUDGET] * 3]
    assert value(reports[0]) == 0.3
    spent = [(round(report.spent.usd, 6), report.spent.calls, report.spent.tokens) for report in reports]
    assert spent == [(0.3, 2, 20), (0.2, 1, 10), (0.2, 1, 10), (0.0, 3, 30)]
    assert "0.4 usd would be spent; 0.3 are reserved" in reports[1].detail
    assert all(report.spent.seconds == report.elapsed_s for report in reports)


async def test_every_agent_has_a_memory_of_its_own() -> None:
    cell = await host("remembers")
    await cell.host([Seat.of(AgentSpec(policy="tests.policies:remembers"), agent_id="a1")])
    for number, agent in enumerate(["a0", "a1", "a0", "a0"]):
        await cell.run([(agent, attempt(number=number))])
        await ended(cell, number + 1)
    assert [value(report) for report in await ended(cell, 4)] == [["a0", 1], ["a1", 1], ["a0", 2], ["a0", 3]]


async def test_a_thousand_cancels_at_once_end_a_thousand_attempts_and_not_the_cell() -> None:
    cell = await host("hangs")
    await cell.run([("a0", attempt(timeout_s=60.0, number=number)) for number in range(1_000)])
    await cell.cancel([f"m/t/0/{number}" for number in range(1_000)])
    assert {report.failure for report in await ended(cell, 1_000)} == {FailureKind.CANCELLED}
    await asyncio.sleep(PING_S + 0.1)
    assert (await cell.collect(1_000, 1_000, 0.0)).reports == ()
    assert cell._running == {}


@pytest.mark.parametrize("seed", range(3))
async def test_every_attempt_is_reported_once_whatever_ends_it(seed: int) -> None:
    """Ends, timeouts and cancels of policies of every kind, at moments that meet."""
    rng = random.Random(seed)
    cell = new_cell()
    names = ["naps_a_little", "raises", "hangs", "hangs_on", "answer", "answer_in_thread", "exits_below"]
    await cell.host([Seat.of(AgentSpec(policy=f"tests.policies:{name}"), agent_id=name) for name in names])
    for start in range(0, 400, 40):
        numbers = range(start, start + 40)
        await cell.run([(rng.choice(names), attempt(rng.choice([0.02, 0.05]), number)) for number in numbers])
        await asyncio.sleep(rng.uniform(0.0, 0.03))
        await cell.cancel([f"m/t/0/{number}" for number in rng.sample(range(start + 40), 20)])
    assert len(await ended(cell, 400)) == 400
    assert cell._running == {}
    assert (await cell.collect(400, 400, 0.2)).reports == ()


async def test_a_cancel_that_overtakes_its_attempt_still_stops_it() -> None:
    cell = await host("answer")
    await cell.cancel(["m/t/0/1"])
    reports = await run(cell, attempt(number=1), attempt(number=2))
    assert [report.failure for report in reports] == [FailureKind.CANCELLED, None]


@pytest.mark.parametrize("policy", ["hangs", "hangs_on", "hangs_in_thread"])
async def test_an_attempt_that_is_made_again_in_a_cell_taken_over_has_nothing_to_do_with_the_first(policy: str) -> None:
    cell = await host(policy)
    await cell.run([("a0", attempt(timeout_s=0.1))])
    await asyncio.sleep(0.05)
    await cell.host([Seat.of(AgentSpec(policy="tests.policies:hangs"), agent_id="a0")], True)
    await cell.run([("a0", attempt(timeout_s=0.4))])
    [report] = await ended(cell, 1)
    assert (report.failure, report.elapsed_s >= 0.4) == (FailureKind.TIMEOUT, True)


async def test_a_cell_that_is_loading_for_long_is_not_taken_for_forgotten() -> None:
    ended: list[bool] = []
    cell = Cell(named="Cell[0]", swarm="s", settings=Settings(orphan_s=0.1), end_self=lambda: ended.append(True))
    spec = AgentSpec(policy="tests.policies:SlowToMake", options={"seconds": 0.4})
    assert await cell.host([Seat.of(spec, agent_id="a0")]) == {}
    assert not ended
    await until(lambda: ended)


async def test_a_cell_whose_policies_always_have_something_to_do_says_so() -> None:
    cell = await host("spins")
    before = (await cell.vitals())["cpu_s"]
    await run(cell, attempt(seconds=0.3))
    busy_s = (await cell.vitals())["cpu_s"] - before
    assert busy_s >= 0.25
    began = time.monotonic()
    await asyncio.sleep(0.3)
    assert (await cell.vitals())["cpu_s"] - before - busy_s < 0.5 * (time.monotonic() - began)


async def test_a_policy_that_goes_on_after_its_time_can_spend_nothing_more() -> None:
    REFUSED.clear()
    cell = await host("spends_when_it_is_too_late")
    [report] = await run(cell, replace(attempt(timeout_s=0.05), spend=Budget(usd=1.0)))
    assert (report.failure, report.spent.usd) == (FailureKind.TIMEOUT, 0.0)
    await until(lambda: REFUSED)
    assert "this attempt has ended" in REFUSED[0]


async def test_a_batch_that_comes_twice_is_carried_out_once() -> None:
    cell = await host("answer")
    await run(cell, attempt(answer=1))
    await cell.run([("a0", attempt(answer=1))])
    await run(cell, attempt(number=2))
    assert len((await cell.collect(0, 0, 1.0)).reports) == 2
    await cell.host([Seat.of(AgentSpec(policy="tests.policies:answer"), agent_id="a0")], afresh=True)
    await run(cell, attempt(answer=1))  # for a new manager it is a new one


async def test_a_message_that_is_no_text_is_told_all_the_same() -> None:
    [report] = await run(await host("raises_what_has_no_utf8"), attempt())
    assert report.failure is FailureKind.RAISED
    assert "ValueError: bad name: ?.txt" in report.detail
