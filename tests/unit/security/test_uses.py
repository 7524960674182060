"""Uses are counted once each, over threads and processes, and never given back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, SecurityError, StorageError
from chimera.security.capabilities import UseStore
from chimera.security.revocation import LEEWAY_S
from chimera.security.uses import MemoryUses, SqliteUses


class Open(Protocol):
    def __call__(self, max_counted: int = 10) -> UseStore: ...


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000.0)


@pytest.fixture(params=["memory", "sqlite"])
def open_uses(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Open:
    def make(max_counted: int = 10) -> UseStore:
        if request.param == "memory":
            return MemoryUses(clock=clock, max_counted=max_counted)
        return SqliteUses(tmp_path / "uses.db", clock=clock, max_counted=max_counted)

    return make


def test_each_id_is_counted_up_to_its_own_limit_and_all_or_none(open_uses: Open) -> None:
    uses = open_uses()
    assert uses.take([("a", 2), ("b", 1)], 2_000.0)
    assert not uses.take([("a", 2), ("b", 1)], 2_000.0)
    assert uses.take([("a", 2)], 2_000.0)
    assert not uses.take([("a", 2)], 2_000.0)
    assert uses.take([("a", 3)], 2_000.0)


def test_two_limits_of_one_block_count_as_one_use(open_uses: Open) -> None:
    uses = open_uses()
    assert uses.take([("a", 5), ("a", 2)], 2_000.0) and uses.take([("a", 5), ("a", 2)], 2_000.0)
    assert not uses.take([("a", 5), ("a", 2)], 2_000.0)


def test_a_full_store_refuses_the_new_and_goes_on_counting_the_old(open_uses: Open, clock: ManualClock) -> None:
    uses = open_uses(max_counted=2)
    assert uses.take([("a", 2)], 1_010.0) and uses.take([("b", 2)], 1_020.0)
    with pytest.raises(SecurityError, match="2 capabilities"):
        uses.take([("c", 2)], 1_020.0)
    assert uses.take([("b", 2)], 1_020.0) and not uses.take([("b", 2)], 1_020.0)
    clock.advance(11)
    with pytest.raises(SecurityError):
        uses.take([("c", 2)], 1_020.0)  # a clock may be put back: the counts of what has just ended stay
    clock.advance(LEEWAY_S)
    assert uses.take([("c", 2)], 1_020.0 + LEEWAY_S)
    assert not uses.take([("b", 2)], 1_020.0)


class Slow(dict[str, tuple[int, float]]):
    """Lets other threads in between each look and each change."""

    def get(self, *asked: object) -> object:  # type: ignore[override]
        time.sleep(0.001)
        return super().get(*asked)  # type: ignore[call-overload]


def test_threads_take_no_more_than_there_is(open_uses: Open) -> None:
    uses = open_uses()
    if isinstance(uses, MemoryUses):
        uses._used = Slow()
    taken: list[bool] = []

    def take() -> None:
        taken.extend(uses.take([("a", 30)], 2_000.0) for _ in range(10))

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), sum(taken)) == (50, 30)


def test_processes_share_a_file_and_a_killed_one_s_uses_stay_used(tmp_path: Path, clock: ManualClock) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from chimera.core.clock import ManualClock\n"
        "from chimera.security.uses import SqliteUses\n"
        "uses = SqliteUses(Path(sys.argv[1]), clock=ManualClock(1000.0))\n"
        "for _ in range(3): assert uses.take([('a', 5)], 2000.0)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    file = tmp_path / "uses.db"
    subprocess.run([sys.executable, "-c", code, str(file)], timeout=60, check=False)
    uses = SqliteUses(file, clock=clock)
    assert [uses.take([("a", 5)], 2_000.0) for _ in range(3)] == [True, True, False]
    assert file.stat().st_mode & 0o777 == 0o600
    uses.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b"no database" * 500),
        lambda file: os.chmod(file, 0o644),
        lambda file: (file.unlink(), file.mkdir(mode=0o700)),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused(
    tmp_path: Path, clock: ManualClock, spoil: Callable[[Path], object]
) -> None:
    from chimera.security.revocation_sqlite import SqliteRevocations

    file = tmp_path / "uses.db"
    SqliteUses(file, clock=clock).close()
    with pytest.raises(StorageError, match="another program's file"):
        SqliteRevocations(file, clock=clock)
    spoil(file)
    with pytest.raises(StorageError, match=r"uses\.db"):
        SqliteUses(file, clock=clock)
    with pytest.raises(InputError):
        MemoryUses(clock=clock, max_counted=0)
