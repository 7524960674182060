"""The adversarial merge over S3: every validator publishes into a bucket, and one of each bad kind is among them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from chimera.arena.duel.types import outcome
from chimera.arena.validators.blocks import block_hash, block_key, decode_block
from chimera.arena.validators.decide import Terms, decide
from chimera.arena.validators.merge import merge
from chimera.arena.validators.merged import Merged, OwnCount
from chimera.arena.validators.reading import read_chain
from chimera.arena.validators.record import Head
from chimera.arena.validators.throne import Ruling, Throne
from chimera.storage.objects import ObjectStore, open_objects
from tests.servers import free_port
from tests.unit.arena.validators import adversaries as bad
from tests.unit.arena.validators.adversaries import GOOD, FixedBeacon, Store, World, hotkey, offences

WORLD = World(env_ids=("mult8-v0", "tictactoe-v0"), own=48, per_block=64)
HONEST = ("Ann", "Bob", "Cid")
TERMS = Terms(env_ids=WORLD.env_ids, budget=1_000)
THRONE = Throne(champion=bad.CHAMPION)

BAD: dict[str, str] = {
    "liar": "set aside",
    "two_faced": "set aside",
    "false_verdict": "verdict",
    "forged_info": "info",
    "forged_prompt": "prompt",
    "cherry_picker": "gap",
    "gap_in_chain": "gap",
    "repeater": "replay",
    "twice_in_a_block": "replay",
    "copier": "foreign",
    "thief": "foreign",
    "fortune_teller": "beacon",
    "unsigned": "signature",
    "garbage": "undecodable",
    "shortened": "truncated",
    "fork": "fork",
}
"""What is done, and what the merge calls it."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bucket]:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    found = Bucket(endpoint)
    await found.make()
    yield found
    await found.close()


class Bucket:
    """A bucket with a folder for each validator, and for the copies that it keeps of others' blocks."""

    made = 0

    def __init__(self, endpoint: str) -> None:
        Bucket.made += 1
        self.name = f"evidence-{Bucket.made}"
        self._endpoint = endpoint
        self._stores: dict[str, ObjectStore] = {}

    async def make(self) -> None:
        import asyncio
        import urllib.request

        request = urllib.request.Request(f"{self._endpoint}/{self.name}", method="PUT")
        await asyncio.to_thread(lambda: urllib.request.urlopen(request).read())

    async def close(self) -> None:
        for store in self._stores.values():
            await store.close()

    def of(self, name: str) -> ObjectStore:
        if name not in self._stores:
            self._stores[name] = open_objects(f"s3://{self.name}/{name}")
        return self._stores[name]

    async def publish(self, name: str, store: Store, *, under: str | None = None) -> None:
        for index, data in store.items():
            await self.of(name).create(block_key(hotkey(under or name), index), data)

    async def merged(self, names: list[str], *, heads: Mapping[str, Head] | None = None) -> Merged:
        """All of them, read from their own folders, and from what Ann has kept of the others."""
        return await merge(
            {hotkey(name): read_chain(self.of(name), hotkey(name), [self.of("Ann")]) for name in names},
            heads=heads,
            beacon=FixedBeacon(),
        )


def rule(found: Merged) -> Ruling:
    return decide(found, THRONE, TERMS, p0=0.51, now_s=9_000)


def of(found: Merged, names: tuple[str, ...]) -> tuple[OwnCount, ...]:
    """What these validators' own challenges came to."""
    return tuple(count for count in found.own if count.hotkey in {hotkey(name) for name in names})


def made(what: str, name: str) -> Store:
    if what == "fork":
        return bad.honest(WORLD, name)
    others = (HONEST[1],) if what in ("copier", "thief") else ()
    return dict(getattr(bad, what)(WORLD, name, *others))


async def attack(bucket: Bucket, what: str, name: str) -> dict[str, Head]:
    """Publish; what was known of the attacker's chain before, if that is what gives it away."""
    await bucket.publish(name, made(what, name))
    if what == "fork":  # told to Ann, and to nobody else
        await bucket.publish("Ann", {1: bad.another_branch(WORLD, name)}, under=name)
    if what == "shortened":
        blocks = bad.honest(WORLD, name)
        header = decode_block(blocks[max(blocks)]).header
        return {hotkey(name): Head(index=header.block_index, hash=block_hash(header))}
    return {}


async def honest_alone(bucket: Bucket, names: tuple[str, ...] = HONEST) -> Merged:
    for name in names:
        await bucket.publish(name, bad.honest(WORLD, name))
    found = await bucket.merged(list(names))
    assert rule(found).winner == GOOD
    return found


@pytest.mark.parametrize("what", BAD)
async def test_each_attack_leaves_the_winner_and_every_count(bucket: Bucket, what: str) -> None:
    expected = await honest_alone(bucket)
    heads = await attack(bucket, what, "Mal")
    found = await bucket.merged([*HONEST, "Mal"], heads=heads)
    called = {**{each.hotkey: "set aside" for each in found.set_aside}, **offences(found)}
    assert called == {hotkey("Mal"): BAD[what]}
    assert (of(found, HONEST), found.shared) == (expected.own, expected.shared)
    assert rule(found).winner == rule(expected).winner
    if what != "two_faced":  # which is trusted, and set aside only where it has lied enough to show
        assert found.own == expected.own
        assert rule(found) == rule(expected)


async def test_all_attacks_at_once_in_any_order_come_to_the_same_bytes(bucket: Bucket) -> None:
    crowd = (*HONEST, "Dan")
    expected = await honest_alone(bucket, crowd)
    heads: dict[str, Head] = {}
    for number, what in enumerate(BAD):
        heads |= await attack(bucket, what, f"Mal{number}")
    names = [*crowd, *(f"Mal{number}" for number in range(len(BAD)))]
    found = await bucket.merged(names, heads=heads)
    assert rule(found).winner == rule(expected).winner
    assert (of(found, crowd), found.shared) == (expected.own, expected.shared)
    trusted = {standing.hotkey for standing in found.standings if standing.trust_ppm}
    assert trusted == {hotkey(name) for name in (*crowd, f"Mal{list(BAD).index('two_faced')}")}
    turned = await bucket.merged(names[::-1], heads=dict(reversed(heads.items())))
    assert turned.to_bytes() == found.to_bytes()
    assert rule(turned).model_dump_json() == rule(found).model_dump_json()


async def test_duplicates_count_once_wherever_they_lie(bucket: Bucket) -> None:
    expected = await honest_alone(bucket)
    blocks = bad.honest(WORLD, "Bob")  # signed anew, and so other bytes of the same blocks
    await bucket.publish("Ann", blocks, under="Bob")
    assert (await bucket.merged(list(HONEST))).to_bytes() == expected.to_bytes()


async def test_a_block_that_its_author_has_lost_comes_back_from_a_copy(bucket: Bucket) -> None:
    await bucket.publish("Ann", bad.honest(WORLD, "Ann"))
    await bucket.publish("Cid", bad.honest(WORLD, "Cid"))
    blocks = bad.honest(WORLD, "Bob")
    await bucket.publish("Bob", {index: data for index, data in blocks.items() if index != 2})
    assert [offence.kind for offence in (await bucket.merged(list(HONEST))).offences] == ["gap"]
    await bucket.publish("Ann", {2: blocks[2]}, under="Bob")
    found = await bucket.merged(list(HONEST))
    assert not found.offences
    assert rule(found).winner == GOOD


async def test_nobody_can_put_an_offence_into_anothers_name(bucket: Bucket) -> None:
    """Garbage, and blocks that somebody else has signed, are no evidence against the one whose name they lie under."""
    expected = await honest_alone(bucket)
    forged: dict[int, Any] = {0: b"garbage", 1: bad.unsigned(WORLD, "Bob")[1], 2: bad.honest(WORLD, "Mal")[2]}
    await bucket.publish("Ann", forged, under="Bob")
    assert (await bucket.merged(list(HONEST))).to_bytes() == expected.to_bytes()


def test_the_attacks_would_pay_if_they_counted() -> None:
    """The liar's evidence speaks for another champion, so that leaving it in would show."""
    pairs = WORLD.pairs(hotkey("Mal"), lies=lambda _: True)
    against = [outcome(a.verdict, b.verdict) for a, b in pairs if b.miner_id == GOOD]
    assert against.count("loss") > against.count("win") + 20
