"""One suite for every limit: of one process, of the processes of a machine, of those that share a Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock, SystemClock
from chimera.core.errors import InputError, RateLimited, StorageError, StorageUnavailable
from chimera.security.buckets import EPOCH_S, NO_LEASE, Bucket, Lease, Limit
from chimera.security.limits import ClientRateLimiter, RateLimiter, TokenStore
from chimera.security.redis_limits import RedisTokens
from chimera.security.shared_limits import SharedTokens
from tests.servers import RedisServer

ROWS = 1_024
names = count(1)

Make = Callable[[], TokenStore | None]


class Skewed:
    """A clock that tests push about, backwards too."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture(scope="module")
def quick_redis() -> Iterator[RedisServer]:
    server = RedisServer("--appendonly", "no")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["alone", "shared", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Opens the store under test, the same each time; its clock is the machine's."""
    opened: list[TokenStore] = []

    def open_store() -> TokenStore | None:
        store: TokenStore
        match request.param:
            case "alone":
                return None
            case "shared":
                store = SharedTokens(tmp_path / "limits", clock=SystemClock(), rows=ROWS)
            case _:
                server: RedisServer = request.getfixturevalue("quick_redis")
                store = RedisTokens(server.url(), clock=SystemClock())
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


def limiter(make: Make, capacity: float, rate: float, **more: object) -> RateLimiter:
    return RateLimiter(capacity, rate, clock=SystemClock(), store=make(), name=f"n{next(names)}", **more)  # type: ignore[arg-type]


def test_what_is_there_may_be_taken_and_no_more(make: Make) -> None:
    limit = limiter(make, 10, 0.01)
    assert [limit.try_take() for _ in range(12)] == [True] * 10 + [False] * 2


def test_a_refusal_says_when_to_come_again_and_then_it_is_there(make: Make) -> None:
    limit = limiter(make, 4, 20)
    limit.take(4)
    with pytest.raises(RateLimited) as refused:
        limit.take(2)
    assert 0.05 < refused.value.retry_after_s <= 0.101
    time.sleep(refused.value.retry_after_s)
    limit.take(2)


@pytest.mark.parametrize("amount", [0, -1, 11, float("nan"), float("inf")])
def test_what_could_never_be_taken_is_a_mistake(make: Make, amount: float) -> None:
    with pytest.raises(InputError):
        limiter(make, 10, 1).try_take(amount)


@pytest.mark.parametrize(("capacity", "rate"), [(0, 1), (1, 0), (-1, 1), (1, float("inf")), (float("nan"), 1)])
def test_a_limit_is_a_number_above_0(capacity: float, rate: float) -> None:
    with pytest.raises(InputError):
        RateLimiter(capacity, rate, clock=ManualClock())


def test_a_client_does_not_take_of_anothers(make: Make) -> None:
    limit = ClientRateLimiter(3, 0.01, clock=SystemClock(), store=make(), name=f"n{next(names)}")
    assert [limit.try_take("a") for _ in range(4)] == [True, True, True, False]
    assert limit.try_take("b", 3)
    assert limit.try_take("c" * 10_000, 3) and not limit.try_take("c" * 10_000)
    own = Limit(5, 0.01)
    assert [limit.try_take("own", limit=own) for _ in range(6)] == [True] * 5 + [False]


def test_clients_beyond_the_table_share_one_bucket(make: Make) -> None:
    limit = ClientRateLimiter(2, 0.01, clock=SystemClock(), store=make(), name=f"n{next(names)}", max_clients=2)
    assert limit.try_take("a", 2) and limit.try_take("b", 2)
    assert [limit.try_take(f"new{n}") for n in range(4)] == [True, True, False, False]
    assert not limit.try_take("a") and len(limit) == 2
    assert not limit.try_take("strict", limit=Limit(1, 0.01))


def test_two_that_share_a_store_share_the_bucket(make: Make) -> None:
    if make() is None:
        pytest.skip("one process has nobody to share with")
    name = f"n{next(names)}"
    first, second = (RateLimiter(64, 0.01, clock=SystemClock(), store=make(), name=name) for _ in range(2))
    first.take()  # leases four
    first.close()  # or the other three would be for nobody
    assert sum(second.try_take() for _ in range(80)) == 63


def test_leases_end_in_redis_too(quick_redis: RedisServer) -> None:
    store = RedisTokens(quick_redis.url(8), clock=SystemClock())
    dead, alive = (RateLimiter(64, 500, clock=SystemClock(), store=store) for _ in range(2))
    dead.take()
    for _ in range(3):  # the key is kept alive, or it would be forgotten as a whole
        time.sleep(0.8 * EPOCH_S)
        alive.take()
        alive.close()
    time.sleep(0.1)
    assert store.exchange("all:client:", Limit(64, 500), 64, NO_LEASE)[0].size == 64
    assert not alive.try_take()
    store.close()


def test_a_generous_limit_does_not_widen_what_strangers_share() -> None:
    clock = ManualClock()
    limit = ClientRateLimiter(5, 0.01, clock=clock, max_clients=1)
    limit.take("a")
    own = Limit(50, 1_000)
    assert limit.try_take("generous", 5, limit=own)
    clock.advance(1.0)
    assert not limit.try_take("generous", 1, limit=own)


def test_a_bucket_knows_no_time_before_the_last() -> None:
    bucket = Bucket(Limit(2, 1), 10.0)
    assert [bucket.take(1, Limit(2, 1), now) for now in (10.0, 5.0, 9.0, 10.5)] == [0.0, 0.0, 1.0, 0.5]


def test_a_million_strangers_take_no_more_room_than_the_table() -> None:
    clock = ManualClock()
    limit = ClientRateLimiter(5, 1, clock=clock, max_clients=1_000)
    limit.take("guest", 5)
    passed = sum(limit.try_take(f"stranger{n}") for n in range(1_000_000))
    assert len(limit) == len(limit._table) == len(limit._full) == 1_000
    assert passed == 999 + 5
    assert not limit.try_take("guest")
    clock.advance(1.0)
    assert limit.try_take("new one") and limit.try_take("new one", 4)  # the strangers' are full again, and forgotten
    assert [limit.try_take("guest") for _ in range(2)] == [True, False]  # whose own was not


@settings(max_examples=150, deadline=None)
@given(
    capacity=st.integers(1, 8),
    rate=st.sampled_from([0.5, 1.0, 3.0, 16.0]),
    max_clients=st.integers(1, 3),
    steps=st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 3), st.sampled_from([0.0, 0.0, 0.125, 0.5, 4.0])), max_size=60
    ),
)
def test_no_client_is_ever_given_more_whoever_is_forgotten(
    capacity: int, rate: float, max_clients: int, steps: list[tuple[int, int, float]]
) -> None:
    clock = ManualClock()
    limit = ClientRateLimiter(capacity, rate, clock=clock, max_clients=max_clients)
    model = {client: Bucket(Limit(capacity, rate), 0.0) for client in range(6)}
    roomy = len({client for client, _, _ in steps}) <= max_clients
    for client, amount, pause_s in steps:
        clock.advance(pause_s)
        if amount > capacity:
            continue
        known = str(client) in limit._table
        passed = limit.try_take(str(client), amount)
        own = model[client].take(amount, Limit(capacity, rate), clock.monotonic()) == 0.0 if passed or roomy else None
        if roomy or known:
            assert own is None or own == passed
        elif passed and str(client) in limit._table:
            assert own, "a bucket that was not full had been forgotten"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    capacity=st.integers(1, 40),
    rate=st.sampled_from([0.5, 4.0, 64.0, 1024.0]),
    steps=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["take", "take", "take", "many", "die", "leave"]),
            st.sampled_from([0.0, 0.0, 0.0, 0.015625, 0.5, 1.5, -3.0]),
        ),
        max_size=60,
    ),
)
def test_in_any_stretch_of_time_all_together_get_no_more_than_the_bucket(
    capacity: int, rate: float, steps: list[tuple[int, str, float]], tmp_path: Path
) -> None:
    """Leases hoarded, given back, lost by death, over the ends of epochs: in no window is the limit passed."""
    clock = Skewed()
    store = SharedTokens(tmp_path / f"limits{next(names)}", clock=clock, rows=8)

    def new() -> RateLimiter:
        return RateLimiter(capacity, rate, clock=clock, store=store)

    users = [new() for _ in range(4)]
    taken: list[float] = []
    begun, latest = False, clock.at
    for who, what, pause_s in steps:
        clock.at += pause_s
        latest = max(latest, clock.at) if begun else clock.at  # before the first look there is no time to fill
        begun = begun or what in ("take", "many")
        match what:
            case "die":
                users[who] = new()
            case "leave":
                users[who].close()
                users[who] = new()
            case _:
                taken += [latest for _ in range(50 if what == "many" else 1) if users[who].try_take()]
    store.close()
    store.path.unlink()
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= capacity + rate * (taken[last] - start) + 1e-6


def test_what_a_dead_process_had_leased_is_lost_and_the_capacity_is_not(tmp_path: Path) -> None:
    clock = Skewed()
    store = SharedTokens(tmp_path / "limits", clock=clock, rows=8)
    dead, alive = (RateLimiter(64, 64, clock=clock, store=store) for _ in range(2))
    dead.take()  # leases four
    assert sum(alive.try_take() for _ in range(100)) == 60
    clock.at += 10.0
    assert sum(alive.try_take() for _ in range(100)) == 64


def test_a_lease_is_not_good_for_ever(tmp_path: Path) -> None:
    clock = Skewed()
    store = SharedTokens(tmp_path / "limits", clock=clock, rows=8)
    hoarder, other = (RateLimiter(64, 64, clock=clock, store=store) for _ in range(2))
    hoarder.take()
    clock.at += 2 * EPOCH_S + 0.125
    assert sum(other.try_take() for _ in range(100)) == 64
    assert not hoarder.try_take()


def test_a_clock_that_goes_back_gives_nothing(tmp_path: Path) -> None:
    for store in (None, SharedTokens(tmp_path / "limits", clock=(clock := Skewed()), rows=8)):
        limit = RateLimiter(4, 1, clock=clock, store=store)
        assert sum(limit.try_take() for _ in range(9)) == 4
        for back in (-500.0, 499.0, -3.0, 3.0):
            clock.at += back
            assert not limit.try_take()
        clock.at += 3.5
        assert sum(limit.try_take() for _ in range(9)) == 2


def test_levels_outlive_a_restart_of_the_machine(tmp_path: Path) -> None:
    clock = Skewed()
    path = tmp_path / "limits"
    store = SharedTokens(path, clock=clock, rows=8)
    assert RateLimiter(4, 1, clock=clock, store=store).try_take(4)
    store.close()
    data = bytearray(path.read_bytes())
    data[8:44] = b"another-boot-".ljust(36, b"0")
    path.write_bytes(data)
    clock.at = 5.0  # since then
    again = RateLimiter(4, 1, clock=clock, store=SharedTokens(path, clock=clock, rows=8))
    assert not again.try_take()
    clock.at += 2.5
    assert again.try_take(2) and not again.try_take()


def test_a_table_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    SharedTokens(path, clock=SystemClock(), rows=8).close()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageError, match="number"):
        SharedTokens(path, clock=SystemClock(), rows=16)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(StorageError, match="another"):
        SharedTokens(path, clock=SystemClock(), rows=8)
    with pytest.raises(InputError):
        SharedTokens(path, clock=SystemClock(), rows=1)
    store = SharedTokens(tmp_path / "closed", clock=SystemClock(), rows=8)
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.exchange("k", Limit(1, 1), 1, NO_LEASE)


def test_strangers_cannot_make_the_shared_table_forget(tmp_path: Path) -> None:
    clock = Skewed()
    store = SharedTokens(tmp_path / "limits", clock=clock, rows=8)
    size = store.path.stat().st_size
    assert store.exchange("guest", Limit(2, 1), 2, NO_LEASE)[0].size == 2
    got = sum(store.exchange(f"stranger{n}", Limit(2, 1), 2, NO_LEASE)[0].size for n in range(1_000))
    assert got == 2 * (8 - 1) + 2  # a row each, while there are any, and then one for all
    assert store.exchange("guest", Limit(2, 1), 1, NO_LEASE) == (NO_LEASE, 1.0)
    clock.at += 60
    assert store.exchange("new one", Limit(2, 1), 2, NO_LEASE)[0].size == 2
    assert store.path.stat().st_size == size


class Down:
    """A store that can be out of reach."""

    def __init__(self) -> None:
        self.down = True

    def exchange(self, key: str, limit: Limit, amount: float, old: Lease) -> tuple[Lease, float]:
        if self.down:
            raise StorageUnavailable("down")
        return NO_LEASE, 7.0

    def close(self) -> None: ...


def test_without_its_store_a_limit_goes_by_its_share_or_is_closed() -> None:
    clock, store = ManualClock(), Down()
    share = RateLimiter(16, 4, clock=clock, store=store, nodes=4)
    closed = RateLimiter(16, 4, clock=clock, store=store, outage="closed")
    assert sum(share.try_take() for _ in range(9)) == 4
    with pytest.raises(RateLimited) as refused:
        closed.take()
    assert refused.value.retry_after_s == 1.0
    clock.advance(2.0)
    assert sum(share.try_take() for _ in range(9)) == 2
    store.down = False
    assert not share.try_take()
    store.down = True
    clock.advance(1.0)  # an outage after an outage gives no full share again
    assert sum(share.try_take() for _ in range(9)) == 1


def test_redis_dies_and_comes_back() -> None:
    server = RedisServer("--appendonly", "no")
    try:
        server.start()
        clock = Skewed()
        store = RedisTokens(server.url(), clock=clock)
        limit = RateLimiter(100, 0.01, clock=clock, store=store, nodes=10)
        limit.take(90)
        server.kill()
        clock.at += 5.0  # the lease is over
        assert sum(limit.try_take() for _ in range(50)) == 10
        server.start()
        assert not limit.try_take()  # left alone for a second
        clock.at += 1.5
        assert limit.try_take(50)
        store.close()
    finally:
        server.stop()


def test_keys_in_redis_expire_and_do_not_show_the_client(quick_redis: RedisServer) -> None:
    store = RedisTokens(quick_redis.url(7), clock=SystemClock())
    ClientRateLimiter(10, 2, clock=SystemClock(), store=store).take("alice@example.org", 10)
    (key,) = store._client.keys()
    assert b"alice" not in key
    assert 6_500 <= store._client.pttl(key) <= 7_001
    store.close()


def test_no_password_of_redis_is_shown(quick_redis: RedisServer) -> None:
    store = RedisTokens("redis://:s3cret@127.0.0.1:1/0", clock=SystemClock())
    with pytest.raises(StorageUnavailable) as down:
        store.exchange("k", Limit(1, 1), 1, NO_LEASE)
    with pytest.raises(InputError) as odd:
        RedisTokens("redis://:s3cret@127.0.0.1:port/0", clock=SystemClock())
    assert "s3cret" not in str(down.value) + str(odd.value) + repr(store)
