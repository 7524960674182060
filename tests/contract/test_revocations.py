"""What is revoked anywhere is refused everywhere, within a second, for as long as it matters; in doubt, all is."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from chimera.core.clock import Clock, ManualClock, SystemClock
from chimera.core.errors import InputError, SecurityError, StorageError, StorageUnavailable
from chimera.security.revocation import LEEWAY_S, Revocations, open_revocations
from chimera.security.shared_file import SharedFile
from tests.servers import RedisServer, free_port

WAIT_S = 15.0
SHARED = ["sqlite", "redis"]

Open = Callable[..., Revocations]


@pytest.fixture(params=["memory", *SHARED])
def url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    return url_of(request.param)


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens, and closes at the end."""
    all_of_them: list[Revocations] = []

    def make(url: str, clock: Clock | None = None, **options: object) -> Revocations:
        all_of_them.append(open_revocations(url, clock=clock or SystemClock(), **options))  # type: ignore[arg-type]
        return all_of_them[-1]

    yield make
    for one in all_of_them:
        await one.close()


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


async def test_what_is_revoked_is_refused_at_once_and_nothing_else(url: str, opened: Open) -> None:
    revocations = opened(url)
    assert await revocations.ready(WAIT_S)
    assert not revocations.is_revoked("a")
    revocations.revoke("a", time.time() + 60)
    assert revocations.is_revoked("a") and not revocations.is_revoked("b")


async def test_it_is_forgotten_after_its_end_and_a_later_end_counts(url: str, opened: Open) -> None:
    clock = ManualClock(1_000.0)
    revocations = opened(url, clock, stale_after_s=3_600.0)
    assert await revocations.ready(WAIT_S)
    for name, end_s in (("a", 1_010.0), ("b", 1_010.0), ("b", 1_020.0), ("b", 1_005.0), ("c", 999.0)):
        revocations.revoke(name, end_s)
    assert [revocations.is_revoked(name) for name in "abc"] == [True, True, False]
    clock.advance(10)
    assert [revocations.is_revoked(name) for name in "abc"] == [False, True, False]
    clock.advance(10)
    assert [revocations.is_revoked(name) for name in "abc"] == [False, False, False]
    clock.advance(LEEWAY_S + 60)
    await until(lambda: not revocations.is_revoked("x") and len(revocations._known) == 0)


async def test_a_full_table_refuses_the_new_and_keeps_the_old(url: str, opened: Open) -> None:
    clock = ManualClock(1_000.0)
    revocations = opened(url, clock, max_revoked=3)
    assert await revocations.ready(WAIT_S)
    for name in "abc":
        revocations.revoke(name, 1_010.0)
    with pytest.raises(SecurityError, match="3 revocations"):
        revocations.revoke("d", 1_010.0)
    revocations.revoke("a", 1_011.0)
    assert all(map(revocations.is_revoked, "abc"))
    clock.advance(1_000)
    revocations.revoke("d", 2_010.0)
    assert revocations.is_revoked("d")


@pytest.mark.parametrize("bad", ["", "a b", "a\n", "x" * 129])
async def test_an_id_that_is_none_is_refused(url: str, opened: Open, bad: str) -> None:
    revocations = opened(url)
    with pytest.raises(InputError):
        revocations.revoke(bad, time.time() + 60)
    with pytest.raises(InputError):
        revocations.revoke("a", float("nan"))


@pytest.fixture(params=SHARED)
def shared_url(request: pytest.FixtureRequest, url_of: Callable[[str], str]) -> str:
    return url_of(request.param)


async def test_others_hear_of_it_and_of_a_later_end_and_those_that_come_later_read_it(
    shared_url: str, opened: Open
) -> None:
    one, other = opened(shared_url), opened(shared_url)
    assert await one.ready(WAIT_S) and await other.ready(WAIT_S)
    soon = time.time() + 1
    one.revoke("a", soon)
    one.revoke("b", soon)
    await until(lambda: other.is_revoked("a"))
    other.revoke("a", time.time() + 60)
    one.revoke("a", soon + 0.2)  # an earlier end changes nothing, for those that come later neither
    await until(lambda: time.time() > soon + 0.2 and not one.is_revoked("b"))
    assert one.is_revoked("a") and not other.is_revoked("b")
    late = opened(shared_url)
    assert await late.ready(WAIT_S)
    assert late.is_revoked("a") and not late.is_revoked("b")


CHILD = """
import sys, time
from chimera.core.clock import SystemClock
from chimera.security.revocation import open_revocations
revocations = open_revocations(sys.argv[1], clock=SystemClock())
while not revocations.fresh: revocations.is_revoked("x"); time.sleep(0.01)
"""
HEARS = CHILD + "print('ready', flush=True)\nwhile not revocations.is_revoked('a'): time.sleep(0.01)\nprint('heard')"
REVOKES = CHILD + (
    "for n in range(1000000):\n    revocations.revoke(f'id-{n}', time.time() + 60)\n    print(n, flush=True)"
)


@pytest.fixture
def child() -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(code: str, url: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


Start = Callable[[str, str], "subprocess.Popen[str]"]


async def test_another_process_hears_of_it(shared_url: str, opened: Open, child: Start) -> None:
    process = child(HEARS, shared_url)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    one = opened(shared_url)
    one.revoke("a", time.time() + 60)
    assert process.communicate(timeout=WAIT_S)[0] == "heard\n"


async def test_what_was_acknowledged_outlives_kill_9(shared_url: str, opened: Open, child: Start) -> None:
    process = child(REVOKES, shared_url)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.communicate()[0].splitlines()
    late = opened(shared_url)
    assert await late.ready(WAIT_S)
    assert len(told) >= 20 and all(late.is_revoked(f"id-{int(n)}") for n in told)


def move(path: Path, to: Path) -> None:
    path.replace(to)


@pytest.mark.parametrize("stale", ["revoked", "raise"])
async def test_a_file_that_is_gone_or_another_is_not_taken_for_no_news(
    url_of: Callable[[str], str], opened: Open, stale: str
) -> None:
    clock, url = ManualClock(1_000.0), url_of("sqlite")
    path = Path(url.removeprefix("sqlite:///"))
    away = path.with_suffix(".away")
    revocations = opened(url, clock, stale=stale)
    revocations.revoke("a", 5_000.0)
    clock.advance(4.9)
    assert not revocations.is_revoked("b")
    move(path, away)
    for _ in range(2):
        clock.advance(4.9)
        assert not revocations.is_revoked("b")
        clock.advance(0.2)
        assert revocations.is_revoked("a")
        if stale == "raise":
            with pytest.raises(SecurityError, match="not been heard of"):
                revocations.is_revoked("b")
        else:
            assert revocations.is_revoked("b")
        opened(url, clock)  # a new file under that name is another file
        clock.advance(1)
        assert revocations.fresh is False
        move(away, path)
        clock.advance(1)
        assert not revocations.is_revoked("b")
        move(path, away)


async def test_a_table_too_large_to_know_is_not_known(shared_url: str, opened: Open) -> None:
    large, small = opened(shared_url), opened(shared_url, max_revoked=2, stale_after_s=0.6)
    assert await large.ready(WAIT_S) and await small.ready(WAIT_S)
    for n in range(5):
        large.revoke(f"id-{n}", time.time() + 60)
    await until(lambda: small.is_revoked("x"))
    assert not large.is_revoked("x")


async def test_a_write_that_fails_counts_here_and_is_told(url_of: Callable[[str], str], opened: Open) -> None:
    revocations = opened(url_of("sqlite"))
    file: SharedFile = revocations._file  # type: ignore[attr-defined]
    file._connection.execute("DROP TABLE revoked")
    with pytest.raises(StorageError, match=r"store\.db"):
        revocations.revoke("a", time.time() + 60)
    assert revocations.is_revoked("a")


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """One that keeps nothing over a restart."""
    server = RedisServer("--appendonly", "no")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("stale", ["revoked", "raise"])
async def test_redis_away_closes_and_its_return_opens_with_what_it_had_lost(
    own_redis: RedisServer, opened: Open, stale: str
) -> None:
    revocations = opened(own_redis.url(), stale_after_s=1.0, stale=stale)
    assert await revocations.ready(WAIT_S)
    revocations.revoke("a", time.time() + 600)
    own_redis.kill()
    await until(lambda: not revocations.fresh)
    if stale == "raise":
        with pytest.raises(SecurityError, match="not been heard of"):
            revocations.is_revoked("b")
    else:
        assert revocations.is_revoked("b")
    with pytest.raises(StorageUnavailable, match="ask again"):
        revocations.revoke("c", time.time() + 600)
    own_redis.start()
    await until(lambda: revocations.fresh)
    assert not revocations.is_revoked("b") and revocations.is_revoked("a") and revocations.is_revoked("c")
    late = opened(own_redis.url())
    assert await late.ready(WAIT_S)
    assert late.is_revoked("a") and late.is_revoked("c") and not late.is_revoked("b")


async def test_a_redis_that_hangs_in_silence_closes(own_redis: RedisServer, opened: Open) -> None:
    revocations = opened(own_redis.url(), stale_after_s=1.0)
    assert await revocations.ready(WAIT_S)
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        await until(lambda: revocations.is_revoked("b"))
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    await until(lambda: not revocations.is_revoked("b"))


async def test_what_was_told_while_nobody_listened_is_read_at_the_return(own_redis: RedisServer, opened: Open) -> None:
    import redis

    revocations = opened(own_redis.url(), stale_after_s=60.0)
    assert await revocations.ready(WAIT_S)
    with redis.Redis.from_url(own_redis.url()) as server:
        server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        server.zadd("chimera:revoked", {"a": time.time() + 60})
    await until(lambda: revocations.is_revoked("a"))
    assert not revocations.is_revoked("b")


async def test_a_redis_that_was_never_there_is_closed_from_the_first(opened: Open) -> None:
    revocations = opened(f"redis://:secret-word@127.0.0.1:{free_port()}/0")
    assert not await revocations.ready(0.3)
    assert revocations.is_revoked("a")
    with pytest.raises(StorageUnavailable) as refused:
        revocations.revoke("a", time.time() + 60)
    assert "secret-word" not in str(refused.value)


@pytest.mark.parametrize("url", ["", "file", "sqlite://", "http://x", "redis://127.0.0.1:port:secret/0"])
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InputError) as refused:
        open_revocations(url, clock=SystemClock())
    assert "secret" not in str(refused.value)
