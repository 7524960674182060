"""Posts go out once, in time, within the caps, with their disclosure; and come down again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.content.publish.types import PostState, outputs, record_key
from chimera.core.clock import ManualClock
from chimera.core.errors import Forbidden, NotThere, Overloaded
from tests.content_servers import MastodonStub, PdsStub, served
from tests.unit.content.publish_house import START_S, TEXT, House, account, at, picture, post

THREAD = (
    "The harbour museum has put its ship logs online, four hundred volumes of them.",
    "The oldest is from 1794 and tells of a storm off Heligoland. Read it at https://example.org/logs",
)


@pytest.fixture
def mastodon() -> Iterator[MastodonStub]:
    stub = MastodonStub()
    with served(stub):
        yield stub


@pytest.fixture
def pds() -> Iterator[PdsStub]:
    stub = PdsStub()
    with served(stub):
        yield stub


async def test_a_post_goes_to_the_outbox_with_its_disclosure_and_its_operator(tmp_path: Path) -> None:
    house = House(tmp_path)
    handed = await house.submit(post(media=(picture(tmp_path),)))
    assert handed.state is PostState.SCHEDULED
    assert [one.state for one in await house.sender.tick()] == [PostState.SENT]
    (told,) = house.outbox()
    assert told["text"] == f"AI-generated.\n\n{TEXT}"
    assert told["operator"]["contact"] == "press@acme.example"
    (attached,) = told["attached"]
    assert (tmp_path / "outbox" / "acme" / attached["file"]).exists() and attached["alt"]
    assert await house.sender.tick() == ()


async def test_the_first_post_to_an_audience_waits_for_a_person_and_the_next_does_not(tmp_path: Path) -> None:
    house = House(tmp_path)
    handed = await house.sender.submit(post())
    assert handed.held and handed.rules == ("audience.new",)
    assert await house.sender.tick() == ()
    approved = await house.sender.approve(handed.key, by="alice")
    assert approved.state is PostState.SCHEDULED
    await house.sender.tick()
    assert len(house.outbox()) == 1
    second = await house.sender.submit(post("The tram to the harbour runs every five minutes again.", item="item-2"))
    assert second.state is PostState.SCHEDULED


async def test_what_is_handed_in_again_is_not_sent_again(tmp_path: Path) -> None:
    house = House(tmp_path)
    for _ in range(3):
        await house.submit(post())
        await house.sender.tick()
    assert len(house.outbox()) == 1


@pytest.mark.parametrize("platform", ["outbox", "mastodon", "bluesky"])
async def test_a_thread_is_sent_in_order_each_part_with_the_disclosure(
    tmp_path: Path, mastodon: MastodonStub, pds: PdsStub, platform: str
) -> None:
    urls = {"mastodon": mastodon.url, "bluesky": pds.url}
    one = account() if platform == "outbox" else at(platform, urls[platform], tmp_path)
    house = House(tmp_path, [one])
    handed = await house.submit(post(THREAD, by=one.name, media=(picture(tmp_path, by=one.name),)))
    await house.sender.tick()
    entry = house.ledger.entry(handed.key)
    assert entry.state is PostState.SENT, entry.reason
    texts: list[str] = []
    if platform == "outbox":
        told = {one["key"]: one for one in house.outbox()}
        assert told[f"{entry.key}.1"]["reply_to"] == entry.references[0]
        texts = [one["text"] for one in told.values()]
    elif platform == "mastodon":
        assert mastodon.statuses[entry.references[1]]["in_reply_to_id"] == entry.references[0]
        assert list(mastodon.media.values()) == ["A garden with chairs under trees"]
        texts = [one["text"] for one in mastodon.statuses.values()]
    else:
        first, second = (one["value"] for one in pds.records.values())
        assert f"{second['reply']['parent']['uri']}#{second['reply']['parent']['cid']}" == entry.references[0]
        assert second["facets"][0]["features"][0]["uri"] == "https://example.org/logs"
        assert first["labels"]["values"] == [{"$type": "com.atproto.label.defs#selfLabel", "val": "bot"}]
        assert first["embed"]["images"][0]["alt"] and first["langs"] == ["en"]
        texts = [first["text"], second["text"]]
    assert len(texts) == 2 and all(text.startswith("AI-generated.\n\n") for text in texts)
    await house.close()


@pytest.mark.parametrize("platform", ["mastodon", "bluesky"])
@pytest.mark.parametrize("fault", ["break_before", "break_after", "error_after", "out"])
async def test_after_a_fault_it_is_looked_for_before_it_is_sent_again(
    tmp_path: Path, mastodon: MastodonStub, pds: PdsStub, platform: str, fault: Any
) -> None:
    stub: MastodonStub | PdsStub = mastodon if platform == "mastodon" else pds
    clock = ManualClock(START_S)
    house = House(tmp_path, [at(platform, stub.url, tmp_path)], clock=clock)
    handed = await house.submit(post(by=f"acme.{platform}"))
    stub.faults = [fault]
    await house.sender.tick()
    mastodon.forget()
    clock.advance(4_000.0)
    await house.sender.tick()
    assert house.ledger.entry(handed.key).state is PostState.SENT
    assert stub.made == 1
    await house.close()


@pytest.mark.parametrize("platform", ["mastodon", "bluesky"])
async def test_what_the_platform_refuses_fails_and_what_it_delays_waits(
    tmp_path: Path, mastodon: MastodonStub, pds: PdsStub, platform: str
) -> None:
    stub: MastodonStub | PdsStub = mastodon if platform == "mastodon" else pds
    clock = ManualClock(START_S)
    house = House(tmp_path, [at(platform, stub.url, tmp_path)], clock=clock)
    stub.faults = ["limit", "refuse"]
    handed = await house.submit(post(by=f"acme.{platform}"))
    (limited,) = await house.sender.tick()
    assert limited.state is PostState.SENDING
    assert await house.sender.tick() == (), "it waits for as long as the server asks"
    clock.advance(301.0)
    (refused,) = await house.sender.tick()
    assert refused.state is PostState.FAILED and stub.made == 0
    assert house.ledger.entry(handed.key).reason
    await house.close()


@pytest.mark.parametrize("platform", ["outbox", "mastodon", "bluesky"])
async def test_a_post_is_taken_down_once_and_its_record_stays(
    tmp_path: Path, mastodon: MastodonStub, pds: PdsStub, platform: str
) -> None:
    urls = {"mastodon": mastodon.url, "bluesky": pds.url}
    one = account() if platform == "outbox" else at(platform, urls[platform], tmp_path)
    house = House(tmp_path, [one])
    handed = await house.submit(post(by=one.name))
    await house.sender.tick()
    for _ in range(2):
        gone = await house.sender.take_down(handed.key, by="alice", why="an error in it")
        assert gone.state is PostState.TAKEN_DOWN
    assert house.outbox() == [] and not mastodon.statuses and not pds.records
    entry = house.ledger.entry(handed.key)
    assert entry.post.parts == (TEXT,) and entry.references[0] and "alice" in entry.reason
    assert (await house.submit(post(by=one.name))).state is PostState.TAKEN_DOWN
    assert await house.sender.tick() == ()
    await house.close()


async def test_a_post_that_is_withdrawn_before_its_time_never_goes_out(tmp_path: Path) -> None:
    clock = ManualClock(START_S)
    house = House(tmp_path, clock=clock)
    handed = await house.submit(post(), due_s=START_S + 100.0)
    await house.sender.take_down(handed.key, by="alice", why="second thoughts")
    clock.advance(1_000.0)
    assert await house.sender.tick() == () and house.outbox() == []


async def test_what_failed_after_it_had_arrived_is_found_and_taken_down(tmp_path: Path, mastodon: MastodonStub) -> None:
    house = House(tmp_path, [at("mastodon", mastodon.url, tmp_path)])
    handed = await house.submit(post(by="acme.mastodon"))
    mastodon.faults = ["break_after"]
    await house.sender.tick()
    house.ledger.fail(handed.key, "given up")
    await house.sender.take_down(handed.key, by="alice", why="it was given up")
    assert mastodon.made == 1 and not mastodon.statuses


async def test_a_picture_that_was_exchanged_after_the_review_does_not_go_out(tmp_path: Path) -> None:
    house = House(tmp_path)
    shown = picture(tmp_path)
    await house.submit(post(media=(shown,)))
    shown.path.write_bytes(b"\x89PNG\r\n\x1a\n another")
    (refused,) = await house.sender.tick()
    assert refused.state is PostState.FAILED and "another file" in refused.message and house.outbox() == []


async def test_the_credentials_are_the_declared_account_s_and_it_is_marked_as_a_bot(tmp_path: Path) -> None:
    for number, stub in enumerate((MastodonStub("someone"), MastodonStub(bot=False), PdsStub("other.test"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with served(stub) as url:
            platform = "bluesky" if isinstance(stub, PdsStub) else "mastodon"
            house = House(folder, [at(platform, url, folder)])
            handed = await house.submit(post(by=f"acme.{platform}"))
            await house.sender.tick()
            assert house.ledger.entry(handed.key).state is PostState.SENDING
            assert stub.made == 0
            await house.close()


async def test_one_process_sends(tmp_path: Path) -> None:
    house = House(tmp_path)
    with house.ledger.sole_sender(), pytest.raises(Overloaded):
        await house.sender.tick()


async def test_a_post_of_nobody_is_refused(tmp_path: Path) -> None:
    house = House(tmp_path)
    with pytest.raises(NotThere):
        await house.sender.submit(post(by="nobody"))


def test_a_name_keeps_its_identity(tmp_path: Path) -> None:
    House(tmp_path).ledger.close()
    for other in (account(handle="other"), account("acme2", handle="acme")):
        with pytest.raises(Forbidden, match="was declared as"):
            House(tmp_path, [other])


def test_record_keys_are_tids_in_the_order_of_time(tmp_path: Path) -> None:
    house = House(tmp_path)
    del house
    from chimera.content.publish.types import Claim

    keys = [record_key(Claim(key="a.0", at_s=START_S + second)) for second in range(50)]
    assert keys == sorted(set(keys)) and all(len(key) == 13 and key[0] in "234567abcdefghij" for key in keys)
    same_time = {record_key(Claim(key=f"{number}.0", at_s=START_S)) for number in range(500)}
    assert len(same_time) == 500


def test_outputs_of_mastodon_bear_a_code_and_others_do_not(tmp_path: Path) -> None:
    one = at("mastodon", "https://m.example", tmp_path)
    texts = [output.text for output in outputs(post(THREAD, by=one.name), one)]
    assert len({text[-18:] for text in texts}) == 2 and all("[ref " in text for text in texts)
    assert all("[ref" not in output.text for output in outputs(post(), account()))
