"""The ledger in SQLite with many who spend at once, and with an owner who is killed in the middle of it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int64
from dataclasses import dataclass
from itertools import count
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from chimera.core.errors import LedgerUnavailable
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.sqlite.guard import connect
from chimera.treasury.sqlite.owner import disown, own
from chimera.treasury.types import DAY_US, NANO, Account, AccountKind, Cap, RefusalReason, Window, Written
from tests.ledger_house import House, decision, reason, transfer
from tests.ledgers import START_US, verify
from tests.ledgers_sqlite import Moved, SqliteBench, audited

FORK = multiprocessing.get_context("fork")
EACH = 3 * NANO
CAPS = (Cap(window=Window.DAY, limit=40 * NANO), Cap(account="cash", window=Window.LAST_WEEK, limit=10**6 * NANO))
A_DAY = 13
"""So many of `EACH` are below the cap of a day."""
MOST_S = 60


class Shared(Moved):
    """A clock that several processes share and one moves."""

    def __init__(self, moment: Synchronized[int]) -> None:
        self.moment = moment

    def now(self) -> float:
        return self.moment.value / 1_000_000


async def fill(path: Path, requests: int) -> None:
    """A ledger with that many requests which the CFO agrees to."""
    bench = SqliteBench(path)
    house = await House(bench).begin(caps=CAPS)
    asked = [house.ask(EACH, credit="model", id=f"q{number}") for number in range(1, requests + 1)]
    for some in (asked[first : first + 500] for first in range(0, requests, 500)):
        outcomes = [*await house.app.write(some), *await house.cfo.write([decision(each) for each in some])]
        assert not any(map(reason, outcomes))
    await bench.close()


@dataclass
class Spenders:
    """What they share: the moment (0: go home), the next request that nobody took, and when all of them go."""

    path: Path
    moment: Synchronized[int]
    taken: Synchronized[int]
    barrier: Barrier

    def take(self) -> int:
        with self.taken.get_lock():
            self.taken.value += 1
            return self.taken.value

    def spend(self) -> None:
        """Whenever the barrier lets everybody go: until the cap refuses it."""
        connection = connect(self.path, LedgerRole.APP, verify, Shared(self.moment))
        wanted = self.take()
        while True:
            self.barrier.wait(MOST_S)
            if self.moment.value == 0:
                return
            try:
                while True:
                    told = f"0, 0, '', '', 't{wanted}', 'posted', 'q{wanted}', {EACH}, 0"
                    connection.execute(f"INSERT INTO transfer VALUES ({told})")
                    wanted = self.take()
            except sqlite3.Error as error:
                if not str(error).startswith("cap: "):
                    self.barrier.abort()
                    raise
            self.barrier.wait(MOST_S)

    def in_threads(self, threads: int) -> None:
        """In a process of its own."""
        running = [threading.Thread(target=self.spend, daemon=True) for _ in range(threads)]
        for each in running:
            each.start()
        for each in running:
            each.join()


@contextmanager
def started(children: list[multiprocessing.process.BaseProcess]) -> Iterator[None]:
    try:
        for child in children:
            child.start()
        yield
    finally:
        for child in children:
            child.kill()
            child.join()


@pytest.mark.parametrize(
    ("processes", "threads", "seconds"),
    [(3, 2, 1), pytest.param(8, 8, 60, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
def test_spenders_of_many_processes_spend_all_of_the_cap_and_no_more(
    tmp_path: Path, processes: int, threads: int, seconds: int
) -> None:
    """Each with a connection of its own, as if no process owned the file; day after day, until the time is over."""
    path, days = tmp_path / "ledger.db", 60 * seconds
    asyncio.run(fill(path, days * A_DAY + processes * threads))
    moment = FORK.Value(c_int64, START_US)
    all_ = Spenders(path, moment, FORK.Value(c_int64, 0), FORK.Barrier(processes * threads + 1))
    until, spent = time.monotonic() + seconds, []
    with started([FORK.Process(target=all_.in_threads, args=(threads,)) for _ in range(processes)]):
        reader = connect(path, LedgerRole.APP, verify, Shared(moment))
        while time.monotonic() < until and len(spent) < days:
            all_.barrier.wait(MOST_S)
            all_.barrier.wait(MOST_S)
            spent.append(reader.execute(f"SELECT count(*) FROM spend WHERE at = {moment.value}").fetchone()[0])
            moment.value += DAY_US
        reader.close()
        last, moment.value = moment.value, 0
        all_.barrier.wait(MOST_S)
    assert len(spent) > 1 and set(spent) == {A_DAY}
    asyncio.run(check(path, last))


def test_spenders_in_threads_of_the_owner_share_its_turns(tmp_path: Path) -> None:
    """Through ledgers of their own, in batches, with event loops of their own."""
    path, threads = tmp_path / "ledger.db", 4
    asyncio.run(fill(path, threads * 20))
    failed: list[BaseException] = []

    async def spend(number: int) -> None:
        bench = SqliteBench(path)
        app = await bench.open(LedgerRole.APP)
        asked = [await app.request(f"q{1 + number + threads * each}") for each in range(20)]
        rows = [transfer(each) for each in asked if each is not None]
        assert len(rows) == 20
        outcomes = await asyncio.gather(*(app.write(rows[first : first + 2]) for first in range(0, 20, 2)))
        assert {reason(each) for some in outcomes for each in some} <= {None, RefusalReason.CAP}
        await bench.close()

    def run(number: int) -> None:
        try:
            asyncio.run(spend(number))
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert failed == []
    assert asyncio.run(check(path, START_US)) == A_DAY * EACH


async def check(path: Path, at: int) -> int:
    """The audit passes. What of the cap of a day is used."""
    bench = SqliteBench(path)
    bench.at = at
    owner = await bench.open(LedgerRole.OWNER)
    assert (await audited(owner, at)).findings == ()
    (used,) = [each.used for each in await owner.caps() if each.cap == CAPS[0]]
    await bench.close()
    return used


async def write_for_ever(path: Path, told: int) -> None:
    """As the ledger's owner: say on `told` what was answered, one line each."""
    bench = SqliteBench(path)
    house = House(bench)
    house.app, house.cfo = await bench.open(LedgerRole.APP), await bench.open(LedgerRole.CFO)
    first = (await house.app.head()).seq

    async def pay(lane: int) -> None:
        for number in count():
            name = f"k{first}-{lane}-{number}"
            request = await house.asked(id=name, amount=1, credit="model")
            for kind in ("pending", "void" if number % 3 == 0 else "post"):
                assert await house.move(request, kind) is None
                os.write(told, f"{kind}-{name}\n".encode())

    await asyncio.gather(*map(pay, range(4)))


def forever(path: Path, told: int) -> None:
    asyncio.run(write_for_ever(path, told))


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
def test_an_owner_who_is_killed_loses_nothing_that_was_answered(tmp_path: Path, kills: int) -> None:
    path, chance, answered = tmp_path / "ledger.db", random.Random(7), set[str]()
    asyncio.run(fill(path, 1))
    for _ in range(kills):
        reader, writer = os.pipe()
        child = FORK.Process(target=forever, args=(path, writer))
        with started([child]):
            os.close(writer)
            said = b""
            for _ in range(chance.randint(1, 30)):
                said += os.read(reader, 4_096)
            assert said
            with pytest.raises(LedgerUnavailable, match=f"pid {child.pid}"):
                asyncio.run(check(path, START_US))
            os.kill(child.pid or 0, signal.SIGKILL)
            while more := os.read(reader, 4_096):
                said += more
            os.close(reader)
        answered |= set(said.decode().split())
        asyncio.run(check(path, START_US))
        connection = connect(path, LedgerRole.APP, verify, Moved())
        there = {name for (name,) in connection.execute("SELECT id FROM transfer_row")}
        connection.close()
        assert answered <= there
    assert len(answered) > 5 * kills


def test_a_fork_of_the_owner_has_nothing_of_it_and_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ours, theirs = FORK.Pipe()

    def live_on() -> None:
        try:
            own(path)
            theirs.send("it has it too")
        except LedgerUnavailable as error:
            theirs.send(str(error))
        theirs.recv()

    owner = own(path)
    child = FORK.Process(target=live_on)
    with started([child]):
        assert f"pid {os.getpid()}" in ours.recv()
        disown(owner)
        other = FORK.Process(target=own, args=(path,))
        with started([other]):
            other.join(MOST_S)
            assert other.exitcode == 0, "the child that lives on does not hold it"


async def test_writes_that_wait_share_a_commit_and_one_that_is_cancelled_hinders_nobody(tmp_path: Path) -> None:
    bench = SqliteBench(tmp_path / "ledger.db")
    app = await bench.open(LedgerRole.APP)
    writes = [asyncio.create_task(app.write([Account(id=f"a{i}", kind=AccountKind.FUND)])) for i in range(100)]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    done = await asyncio.gather(*writes, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in done] == [True, False] * 50
    assert app.commits < 50
    (last,) = await app.write([Account(id="last", kind=AccountKind.FUND)])
    assert isinstance(last, Written) and 51 <= last.seq <= 101
    await bench.close()
