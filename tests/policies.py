"""Policies that misbehave in every way a user's can, for the tests of cells and swarms."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from chimera import Context, InputError, Reply, Task
from chimera.core.errors import BudgetExceeded, ReplyError


async def answer(task: Task, context: Context) -> Any:
    return task.inputs.get("answer", 42)


def answer_in_thread(task: Task, context: Context) -> Any:
    return task.inputs.get("answer", 42)


async def unsure(task: Task, context: Context) -> Reply:
    return Reply(value=task.inputs.get("other", "maybe"), confidence=0.2)


async def raises(task: Task, context: Context) -> Any:
    raise ValueError("this policy always raises")


async def bad_input(task: Task, context: Context) -> Any:
    raise InputError("the mission itself is at fault")


async def hangs(task: Task, context: Context) -> Any:
    await asyncio.sleep(3_600)


async def hangs_on(task: Task, context: Context) -> Any:
    """Ignores its first cancellation."""
    try:
        await asyncio.sleep(3_600)
    except asyncio.CancelledError:
        await asyncio.sleep(3_600)


async def blocks_below(task: Task, context: Context) -> Any:
    """Blocks its event loop from a child task."""
    await asyncio.gather(blocks_the_loop(task, context))


async def hangs_for_good(task: Task, context: Context) -> Any:
    """Ignores every cancellation, until the test lets it go."""
    while not LET_GO:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            continue


LET_GO: list[bool] = []


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even my message raises")


async def raises_the_unspeakable(task: Task, context: Context) -> Any:
    raise Unspeakable


async def exits_below(task: Task, context: Context) -> Any:
    async def inner() -> None:
        raise SystemExit(2)

    await asyncio.wait_for(inner(), 5)


async def stops_its_loop(task: Task, context: Context) -> Any:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(3_600)


async def returns_more_than_all_confidence(task: Task, context: Context) -> Any:
    return Reply(value=2).model_copy(update={"confidence": 5.0})


class Trojan(Reply):
    def __reduce__(self) -> Any:
        return os._exit, (9,)


async def returns_a_trojan(task: Task, context: Context) -> Any:
    return Trojan(value=42)


async def takes_its_input_away(task: Task, context: Context) -> Any:
    return task.inputs.pop("text")


def naps(task: Task, context: Context) -> Any:
    time.sleep(0.5)


async def naps_a_little(task: Task, context: Context) -> str:
    await asyncio.sleep(0.02)
    return context.agent_id


def hangs_in_thread(task: Task, context: Context) -> Any:
    time.sleep(30)


async def blocks_the_loop(task: Task, context: Context) -> Any:
    time.sleep(60)  # noqa: ASYNC251


async def returns_garbage(task: Task, context: Context) -> Any:
    return object()


async def returns_nan(task: Task, context: Context) -> Any:
    return float("nan")


async def returns_nothing(task: Task, context: Context) -> None:
    return None


async def returns_too_much(task: Task, context: Context) -> Any:
    return "x" * 2_000_000


async def exits(task: Task, context: Context) -> Any:
    raise SystemExit(1)


def dies_once(task: Task, context: Context) -> Any:
    """Ends its whole process at the first try, as the kernel's out-of-memory killer would."""
    marker = Path(str(task.inputs["marker"]))
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return 42
    os._exit(9)


class KillsWhenMade:
    def __init__(self) -> None:
        os._exit(9)

    async def __call__(self, task: Task, context: Context) -> None: ...


async def spends(task: Task, context: Context) -> Any:
    """Spends as its inputs say, step by step, and replies with what it was granted."""
    for usd in task.inputs["usd"]:  # type: ignore[union-attr]
        context.spend(usd=usd, calls=1, tokens=10)
    return Reply(value=context.budget.usd, cost_usd=float(str(task.inputs.get("at_last", 0.0))))


async def remembers(task: Task, context: Context) -> Any:
    """Counts its tasks in its memory."""
    before = await context.memory.get("tasks")
    assert before is None or isinstance(before, int)
    await context.memory.put("tasks", (before or 0) + 1)
    return [context.agent_id, (before or 0) + 1]


async def works_a_little(task: Task, context: Context) -> Any:
    """A hundredth of a second of honest work, in which its event loop does nothing else."""
    time.sleep(0.01)  # noqa: ASYNC251
    return 42


DONE: Counter[str] = Counter()
"""What agents of this process were asked, by idempotency key."""


async def counts_itself(task: Task, context: Context) -> Any:
    """Replies after the time that its inputs say, or a short one."""
    DONE[context.idempotency_key] += 1
    await asyncio.sleep(float(str(task.inputs.get("seconds", 0.05))))
    return task.inputs.get("answer", 42)


class Unsayable(ReplyError):
    def __str__(self) -> str:
        raise RuntimeError("even my message raises")


async def refuses_the_unsayable(task: Task, context: Context) -> Any:
    raise Unsayable("")


MAKING_MAY_END = threading.Event()


class HangsWhenFirstMade:
    """The first of its process is never made, until the test lets it go."""

    made = 0

    def __init__(self) -> None:
        HangsWhenFirstMade.made += 1
        if HangsWhenFirstMade.made == 1:
            MAKING_MAY_END.wait()

    async def __call__(self, task: Task, context: Context) -> int:
        return 42


class SlowToMake:
    def __init__(self, seconds: float) -> None:
        time.sleep(seconds)

    async def __call__(self, task: Task, context: Context) -> int:
        return 42


class Counting:
    """Counts its own calls, from `start`."""

    def __init__(self, start: int = 0) -> None:
        self.calls = start

    async def __call__(self, task: Task, context: Context) -> int:
        self.calls += 1
        return self.calls


async def slowly(task: Task, context: Context) -> Any:
    """Replies after the delay that its replica was given: replies come in any order a test wants."""
    delays = task.inputs["delays_s"]
    answers = task.inputs["answers"]
    assert isinstance(delays, list) and isinstance(answers, list)
    await asyncio.sleep(float(str(delays[context.replica % len(delays)])))
    return answers[context.replica % len(answers)]


async def told(task: Task, context: Context) -> Any:
    """What a policy is told."""
    return {
        "key": context.idempotency_key,
        "upstream": {name: settled.decision.value for name, settled in context.upstream.items()},
        "random": context.rng.random(),
    }


async def forges_a_quote(task: Task, context: Context) -> Reply:
    return Reply(value={"text": "The moon is made of cheese.", "file": "moon.txt", "line": 1, "page": None})


async def returns_no_quote(task: Task, context: Context) -> Reply:
    return Reply(value="I would say rock")


async def waits_for_a_file(task: Task, context: Context) -> Any:
    """Replies when the file is there that its inputs name; at once, where they name none."""
    while "path" in task.inputs and not os.path.exists(str(task.inputs["path"])):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.05)
    return task.inputs["answer"]


async def spins(task: Task, context: Context) -> Any:
    """Has always something to do, for some seconds."""
    until = time.monotonic() + float(str(task.inputs["seconds"]))
    while time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return 1


SPENT: list[float] = []


async def spends_all_and_waits(task: Task, context: Context) -> Any:
    context.spend(usd=context.budget.usd or 0.0)
    SPENT.append(context.budget.usd or 0.0)
    await asyncio.sleep(60)


def spends_when_it_is_too_late(task: Task, context: Context) -> Any:
    time.sleep(0.3)
    try:
        context.spend(usd=0.5)
    except BudgetExceeded as error:
        REFUSED.append(str(error))
        raise
    SPENT.append(0.5)


REFUSED: list[str] = []


async def slow_second(task: Task, context: Context) -> int:
    """The swarm's second agent takes its time."""
    if context.agent_id.endswith("-1"):
        await asyncio.sleep(0.5)
    return 1


async def hangs_third(task: Task, context: Context) -> int:
    if context.replica == 2:
        await asyncio.sleep(60)
    return 1


async def raises_what_has_no_utf8(task: Task, context: Context) -> Any:
    raise ValueError("bad name: \udcff.txt")


async def replies_deep(task: Task, context: Context) -> Any:
    value: Any = 1
    for _ in range(197):
        value = [value]
    return value
