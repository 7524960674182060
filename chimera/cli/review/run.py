"""What the commands `chimera review` do."""

from __future__ import annotations

import asyncio
import getpass
import json
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from string import hexdigits
from typing import Any, NamedTuple

from pydantic import JsonValue

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.review import shown
from chimera.cli.settings import opening, read_settings
from chimera.cli.watch.run import Ending
from chimera.core.errors import InputError, MissingExtra, SecurityError
from chimera.review.notices import Notice, notice
from chimera.review.outcomes import judged
from chimera.review.queue import Answer, ReviewQueue
from chimera.review.types import MAX_PAYLOAD_BYTES, Proposal, Refused, State
from chimera.system.review import ROUND_S, ReviewDesk, open_desk, read_policy

DONE, NO, WAITS = 0, 1, 4

MIN_DIGITS, MAX_DIGITS = 4, 32
"""Of an id, that are to be given."""


class Where(NamedTuple):
    """Which queue, under which policy."""

    queue: str
    policy: Path | None


def ask(told: dict[str, Any], payload: str, where: Where, *, as_json: bool) -> int:
    async def work(desk: ReviewDesk) -> int:
        told["payload"] = _read_json(payload) if payload else told["summary"]
        told["key"] = told["key"] or secrets.token_hex(8)
        told["asker"] = told["asker"] or getpass.getuser()
        with command.options():
            proposal = Proposal(**told)
        answer = await desk.queue.ask(proposal)
        _tell(answer, as_json=as_json)
        if isinstance(answer, Refused):
            return NO
        if answer.may_go_on:
            return DONE
        return NO if answer.state.ended else WAITS

    return _run(work, where, as_json=as_json, records=True)


def show_list(by: str, where: Where, *, mine: bool, limit: int, as_json: bool) -> int:
    async def work(desk: ReviewDesk) -> int:
        found = await desk.queue.waiting(reviewer=(by or getpass.getuser()) if mine or by else "")
        shown.items(found[:limit], as_json=as_json)
        if len(found) > limit:
            render.note(f"{len(found) - limit} more wait: --limit shows them")
        return DONE

    return _run(work, where, as_json=as_json)


def show(item: str, where: Where, *, as_json: bool) -> int:
    async def work(desk: ReviewDesk) -> int:
        shown.item(await desk.queue.item(await _whole_id(desk.queue, item)), as_json=as_json, whole=True)
        return DONE

    return _run(work, where, as_json=as_json)


def act(what: str, item: str, by: str, where: Where, *, as_json: bool, **more: Any) -> int:
    """Carry out the queue's command of that name."""

    async def work(desk: ReviewDesk) -> int:
        found = await _whole_id(desk.queue, item)
        answer: Answer = await getattr(desk.queue, what)(found, by or getpass.getuser(), **more)
        return _exit_code(what, answer, as_json=as_json)

    return _run(work, where, as_json=as_json, records=True)


def edit(item: str, by: str, payload: str, reason: str, where: Where, *, as_json: bool) -> int:
    async def work(desk: ReviewDesk) -> int:
        found = await _whole_id(desk.queue, item)
        answer = await desk.queue.edit(found, by or getpass.getuser(), _read_json(payload), reason)
        return _exit_code("edit", answer, as_json=as_json)

    return _run(work, where, as_json=as_json, records=True)


def calibrate(error: float, person_error: float | None, plot: Path | None, where: Where, *, as_json: bool) -> int:
    picture = plot.expanduser() if plot is not None else None

    async def work(desk: ReviewDesk) -> int:
        from chimera.review.calibrate import calibrate

        found = await judged(desk.queue)
        wanted = min(2 * error, 0.99) if person_error is None else person_error
        made = calibrate(found, automatic_error=error, person_error=wanted)
        if picture is not None:
            from chimera.review.reliability_plot import plot_reliability

            plot_reliability(made, picture)
        shown.calibration(made, as_json=as_json)
        return DONE if made.automatic.state == made.person.state == "found" else NO

    return _run(work, where, as_json=as_json)


def show_policy(path: Path | None, *, as_json: bool) -> int:
    async def work() -> int:
        shown.policy(read_policy(read_settings(), path), as_json=as_json)
        return DONE

    return command.run(work(), as_json=as_json)


def watch(where: Where, *, once: bool, as_json: bool) -> int:
    async def work(desk: ReviewDesk) -> int:
        notifiers = [each for each in desk.notifiers() if each.name != "log"]  # what happens is printed here
        if once:
            due = await desk.queue.tick()
            told = await desk.deliver(notifiers)
            waiting = await desk.queue.waiting()
            render.note(f"{len(waiting)} wait; {due} were escalated or have expired; {told} notices were sent")
            return DONE
        ending = Ending()
        ending.heed_signals()
        render.note(f"{len(await desk.queue.waiting())} wait in the queue {desk.queue.name}; Ctrl-C ends this")
        works = [asyncio.create_task(desk.run(notifiers)), asyncio.create_task(_print_all(desk.queue, as_json))]
        ended = asyncio.create_task(ending.now.wait())
        try:
            done, _ = await asyncio.wait([*works, ended], return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in (*works, ended):
                each.cancel()
            await asyncio.gather(*works, ended, return_exceptions=True)
        return DONE

    return _run(work, where, as_json=as_json, records=True)


async def _print_all(queue: ReviewQueue, as_json: bool) -> None:
    """Every notice from now on."""
    seq = await queue.end()
    while True:
        for event in await queue.events(seq):
            seq = event.seq
            if (found := notice(event, queue.name)) is not None:
                _print(found, as_json)
        await asyncio.sleep(ROUND_S / 4)


def _print(found: Notice, as_json: bool) -> None:
    if as_json:
        render.line(render.to_line(found.model_dump(mode="json")))
    else:
        shown.notice(found)


def _run(work: Callable[[ReviewDesk], Awaitable[int]], where: Where, *, as_json: bool, records: bool = False) -> int:
    """Do `work` at the queue's desk; what has happened is then in the audit log, if it `records`."""

    async def at_the_desk() -> int:
        settings = read_settings()
        policy = read_policy(settings, where.policy)
        async with AsyncExitStack() as stack:
            with opening(settings.journal):
                desk = await stack.enter_async_context(open_desk(settings, policy=policy, name=where.queue))
            code = await work(desk)
            if records:
                try:
                    await desk.record()
                except (MissingExtra, SecurityError) as error:
                    render.note(f"it is done, and not in the audit log so far: {error}")
            return code

    return command.run(at_the_desk(), as_json=as_json)


async def _whole_id(queue: ReviewQueue, beginning: str) -> str:
    """The id that begins so. Raises InputError unless it is one, and enough of it is given that it is meant."""
    if not MIN_DIGITS <= len(beginning) <= MAX_DIGITS or set(beginning.lower()) - set(hexdigits):
        told = f"give at least {MIN_DIGITS} of the digits that `chimera review list` shows"
        raise InputError(f"{beginning!a:.80} is no id: {told}")
    found = await queue.ids(beginning.lower())
    if not found:
        raise InputError(f"no item whose id begins with {beginning} is in the queue {queue.name}")
    if len(found) > 1:
        raise InputError(f"{len(found)} items begin with {beginning}: {', '.join(found[:5])}; give more of the id")
    return found[0]


def _tell(answer: Answer, *, as_json: bool) -> None:
    if isinstance(answer, Refused):
        shown.refused(answer, as_json=as_json)
    else:
        shown.item(answer, as_json=as_json)


def _exit_code(what: str, answer: Answer, *, as_json: bool) -> int:
    _tell(answer, as_json=as_json)
    if isinstance(answer, Refused):
        return NO
    return WAITS if answer.state is State.WAITING and what in ("approve", "edit") else DONE


def _read_json(text: str) -> JsonValue:
    """JSON, or what is in the file after an @. Raises InputError."""
    try:
        if text.startswith("@"):
            with Path(text[1:]).expanduser().open("rb") as file:
                text = file.read(MAX_PAYLOAD_BYTES * 4 + 1).decode("utf-8")
        found: JsonValue = json.loads(text)
    except OSError as error:
        raise InputError(f"{text[1:]} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f'the payload is no JSON ({error}): a text is written as "\\"Hello\\""') from None
    return found
