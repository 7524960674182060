"""A sender that is killed (SIGKILL) at the worst moments: nothing goes out twice, and nothing is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from chimera.content.accounts import Account
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.types import Claim, Entry, PostState, Wait
from chimera.core.clock import ManualClock
from tests.content_servers import MastodonStub, PdsStub, served
from tests.unit.content.publish_house import START_S, House, account, at, post

FORK = multiprocessing.get_context("fork")
ROUNDS = 4
PARTS = ("The zoo has a new pond, with thirty geese on it.", "It is open from nine to six, and free on Mondays.")


class Dying(PostLedger):
    """A ledger whose process dies at one of its steps."""

    dies = ""

    def part_sent(self, key: str, number: int, reference: str) -> Entry:
        if self.dies == f"before recording {number}":
            os.kill(os.getpid(), signal.SIGKILL)
        entry = super().part_sent(key, number, reference)
        if self.dies == f"after recording {number}":
            os.kill(os.getpid(), signal.SIGKILL)
        return entry

    def claim(self, key: str, *, settle_s: float = 0.0) -> Entry | Wait | None:
        claimed = super().claim(key, settle_s=settle_s)
        if self.dies == "before sending":
            os.kill(os.getpid(), signal.SIGKILL)
        return claimed


def _sends(folder: Path, one: Account, start_s: float, dies: str) -> None:
    async def run() -> None:
        Dying.dies = dies
        house = House(folder, [one], clock=ManualClock(start_s), ledger=Dying)
        await house.submit(post(PARTS, by=one.name))
        await house.sender.tick()
        await house.close()

    asyncio.run(run())


@pytest.fixture(scope="module", autouse=True)
def recognisers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Read once here, and had by every process that is forked off: they take seconds."""
    House(tmp_path_factory.mktemp("warm")).ledger.close()


@pytest.fixture(params=["outbox", "mastodon", "bluesky"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Account, MastodonStub | PdsStub | None]]:
    if request.param == "outbox":
        yield account(), None
        return
    stub = MastodonStub() if request.param == "mastodon" else PdsStub()
    with served(stub) as url:
        yield at(request.param, url, tmp_path), stub


@pytest.mark.parametrize("dies", ["before sending", "before recording 0", "after recording 0", "before recording 1"])
def test_a_killed_sender_sends_nothing_twice_and_loses_nothing(
    tmp_path: Path, place: tuple[Account, MastodonStub | PdsStub | None], dies: str
) -> None:
    one, stub = place
    killed = FORK.Process(target=_sends, args=(tmp_path, one, START_S, dies))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    if isinstance(stub, MastodonStub):
        stub.forget()  # it was a long night
    after(tmp_path, one)
    ledger = PostLedger(tmp_path / "posts.db", [one], clock=ManualClock(START_S))
    (entry,) = ledger.entries(PostState.SENT)
    assert all(entry.references)
    ledger.close()
    made = len(list((tmp_path / "outbox" / "acme").glob("*.json"))) if stub is None else stub.made
    assert made == len(PARTS)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_while_the_server_answers_it_is_found_again(tmp_path: Path, number: int) -> None:
    """The post is there, its answer is on the way: killed by another process, at a moment nobody chose."""
    stub = PdsStub() if number % 2 else MastodonStub()
    with served(stub) as url:
        one = at("bluesky" if number % 2 else "mastodon", url, tmp_path)
        killed = FORK.Process(target=_sends, args=(tmp_path, one, START_S, ""))
        killed.start()
        assert stub.posted.wait(60)
        assert killed.pid is not None
        os.kill(killed.pid, signal.SIGKILL)
        killed.join(60)
        if isinstance(stub, MastodonStub):
            stub.forget()
        after(tmp_path, one)
        assert stub.made == len(PARTS)


def after(folder: Path, one: Account) -> None:
    """Another process goes on, twice."""
    for more_s in (3_600.0, 7_200.0):
        again = FORK.Process(target=_sends, args=(folder, one, START_S + more_s, ""))
        again.start()
        again.join(60)
        assert again.exitcode == 0


def test_a_sender_that_did_not_look_would_send_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That these tests can fail: with a look that finds nothing, the same night makes two of one."""
    from chimera.content.publish.mastodon import MastodonPublisher

    async def blind(self: MastodonPublisher, claim: Claim) -> str:
        return ""

    monkeypatch.setattr(MastodonPublisher, "find", blind)
    stub = MastodonStub()
    with served(stub) as url:
        one = at("mastodon", url, tmp_path)
        killed = FORK.Process(target=_sends, args=(tmp_path, one, START_S, "before recording 1"))
        killed.start()
        killed.join(60)
        stub.forget()
        after(tmp_path, one)
        assert stub.made == len(PARTS) + 1
