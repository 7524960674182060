"""Blocks: signed, linked, of one form; whatever is changed in one shows. Chains: kept in a store, never forked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bittensor_core import Keypair

from chimera.arena.canonical import digest, encode
from chimera.arena.types import MAX_BLOCK_BYTES, MAX_BLOCK_SAMPLES, MAX_TEXT_CHARS, Block, Sample
from chimera.arena.validators import blocks
from chimera.arena.validators.blocks import (
    GENESIS_HASH,
    SIGNING_PREFIX,
    Chain,
    block_hash,
    block_key,
    check_block,
    check_link,
    decode_block,
    encode_block,
    read_block,
    seal,
    unsigned_bytes,
)
from chimera.core.clock import ManualClock
from chimera.core.errors import EvidenceError, ObjectExists, StorageError, StorageUnavailable
from chimera.storage.objects import ObjectStore, open_objects
from tests.unit.arena.made_blocks import ALICE, BOB, START, chained, pair, sample


@pytest.fixture(scope="module")
def block() -> Block:
    return seal(pair(), prev_hash=GENESIS_HASH, index=0, timestamp=START, signer=ALICE)


def refused(data: bytes) -> str:
    with pytest.raises(EvidenceError) as refusal:
        read_block(data)
    return refusal.value.reason


def resigned(block: Block, signer: Keypair = ALICE, **changes: Any) -> Block:
    """The block with another header, signed by someone who can."""
    header = block.header.model_copy(update=changes)
    signature = signer.sign(SIGNING_PREFIX + unsigned_bytes(header)).hex()
    return block.model_copy(update={"header": header.model_copy(update={"signature": signature})})


def test_a_block_is_read_back(block: Block) -> None:
    data = encode_block(block)
    assert data == encode(block.model_dump())
    assert read_block(data) == decode_block(data) == block
    check_block(block)


@pytest.mark.parametrize("mask", [0x01, 0x04, 0x10, 0x20, 0x80, 0xFF])
def test_any_change_of_one_byte_is_refused(block: Block, mask: int) -> None:
    data = encode_block(block)
    for at in range(len(data)):
        refused(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])


def test_any_byte_less_or_more_is_refused(block: Block) -> None:
    data = encode_block(block)
    for at in range(len(data)):
        refused(data[:at] + data[at + 1 :])
        refused(data[:at] + data[at : at + 1] + data[at:])
    for more in (b" ", b"\n", b"\0", data):
        refused(data + more)
        refused(more + data)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"elapsed_ms":5', b'"elapsed_ms":5,"elapsed_ms":5', "encoding"),
        (b'"elapsed_ms":5', b'"elapsed_ms":5.0', "schema"),
        (b'"elapsed_ms":5', b'"elapsed_ms":5e0', "schema"),
        (b'"elapsed_ms":5', b'"elapsed_ms":"5"', "schema"),
        (b'"elapsed_ms":5', b'"elapsed_ms":true', "schema"),
        (b'"elapsed_ms":5', b'"elapsed_ms":-5', "schema"),
        (b'"elapsed_ms":5', b'"elapsed_ms":9007199254740992', "schema"),
        (b'"elapsed_ms":5', b'"elapsed_ms":05', "encoding"),
        (b'"elapsed_ms":5', b'"elapsed_ms": 5', "encoding"),
        (b'"elapsed_ms":5,', b"", "schema"),
        (b'"elapsed_ms":5', b'"elapsed_ms":5,"extra":1', "schema"),
        (b'"ok":false', b'"ok":0', "schema"),
        (b'"sides":2', b'"sides":2.0', "encoding"),
        (b'"sides":2', b'"sides":NaN', "encoding"),
        (b'"sides":2', b'"sides":Infinity', "encoding"),
        (b'"sides":2', b'"sides":9007199254740992', "encoding"),
        (b'"sides":2', b'"sides":' + b"[" * 20 + b"]" * 20, "encoding"),
        (b'"sides":2', b'"sides":' + b"[" * 100_000 + b"]" * 100_000, "encoding"),
        (b'"sides":2', b'"sides":2,"sides":2', "encoding"),
        (b'"sides":2', b'"sides":2,"a":1', "encoding"),
        (b'"sides":2', b'"sides":"\\ud800"', "encoding"),
        (b'"sides":2', b'"sides":"\xed\xa0\x80"', "encoding"),
        (b"heads \xc3\xa9", b"heads \\u00e9", "encoding"),
        (b"heads \xc3\xa9", b"heads \xe9", "encoding"),
        (b'"role":"champion"', b'"role":"judge"', "schema"),
        (b'"request_id":null,', b"", "encoding"),
        (b'"samples":[', b'"samples":[],"samples":[', "encoding"),
        (b'"env_id":"coin-v0"', b'"env_id":"coin-v0\\n"', "schema"),
    ],
)
def test_no_other_form_of_a_block_is_read(block: Block, old: bytes, new: bytes, reason: str) -> None:
    data = encode_block(block)
    assert old in data
    assert refused(data.replace(old, new, 1)) == reason


def test_other_orders_and_letters_are_refused(block: Block) -> None:
    data = encode_block(block)
    header, samples = data[1:-1].split(b',"samples":')
    assert refused(b'{"samples":' + samples + b"," + header + b"}") == "encoding"
    signature = block.header.signature.encode()
    assert refused(data.replace(signature, signature.upper())) == "schema"
    root = block.header.merkle_root.encode()
    assert refused(data.replace(root, root.upper())) == "schema"
    for nothing in (b"", b"null", b"[]", b"{}", b"7", b'"block"', b"\xef\xbb\xbf" + data):
        assert refused(nothing) in ("schema", "encoding")


def test_a_block_that_is_too_large_is_neither_read_nor_written(block: Block) -> None:
    assert refused(b" " * (MAX_BLOCK_BYTES + 1)) == "limit"
    long = sample(response="é" * MAX_TEXT_CHARS), sample(role="contender", response="é" * MAX_TEXT_CHARS)
    many = [each for at in range(64) for each in long]
    with pytest.raises(EvidenceError, match="at most 16000000 bytes") as refusal:
        encode_block(seal(many, prev_hash=GENESIS_HASH, index=0, timestamp=START, signer=ALICE))
    assert refusal.value.reason == "limit"


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        ([], "limit"),
        (pair()[:1], "limit"),
        (pair() + pair()[:1], "limit"),
        (pair() * (MAX_BLOCK_SAMPLES // 2 + 1), "limit"),
        (pair()[::-1], "schema"),
        ([sample(), sample()], "schema"),
        ([sample(), sample(role="contender", miner_id="old")], "schema"),
        ([sample(), sample("seed:2", "contender")], "schema"),
        ([sample(), sample(role="contender", env_id="die-v0")], "schema"),
        ([*pair(), *pair()[::-1]], "schema"),
        (pair(info={"odds": 0.5}), "encoding"),
        (pair(info={"said": "\ud800"}), "encoding"),
    ],
)
def test_what_is_no_list_of_pairs_makes_no_block(samples: list[Sample], reason: str) -> None:
    with pytest.raises(EvidenceError) as refusal:
        seal(samples, prev_hash=GENESIS_HASH, index=0, timestamp=START, signer=ALICE)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (0,), (0, 1, 0)])
def test_what_is_no_list_of_pairs_is_not_believed_either(block: Block, order: tuple[int, ...]) -> None:
    """A validator who can sign still cannot publish half a pair, or a pair the wrong way round."""
    samples = tuple(block.samples[at] for at in order)
    leaves = [encode(each.plain()) for each in samples]
    root = blocks.merkle.root(leaves).hex()
    forged = resigned(block.model_copy(update={"samples": samples}), merkle_root=root)
    assert refused(encode_block(forged)) in ("schema", "limit")
    with pytest.raises(EvidenceError):
        check_block(forged)


def test_signing_again_leaves_the_hash(block: Block) -> None:
    again = seal(pair(), prev_hash=GENESIS_HASH, index=0, timestamp=START, signer=ALICE)
    assert again.header.signature != block.header.signature
    assert block_hash(again.header) == block_hash(block.header)
    assert block_hash(block.header) == digest(unsigned_bytes(block.header)).hex()
    check_block(again)


@pytest.mark.parametrize(
    "changes",
    [{"block_index": 1}, {"timestamp": START + 1}, {"prev_hash": "1" * 64}, {"merkle_root": "1" * 64}],
    ids=lambda changes: next(iter(changes)),
)
def test_each_field_of_a_header_is_signed_and_hashed(block: Block, changes: dict[str, Any]) -> None:
    header = block.header.model_copy(update=changes)
    assert block_hash(header) != block_hash(block.header)
    assert refused(encode_block(block.model_copy(update={"header": header}))) in ("signature", "merkle")


def test_only_the_hotkey_that_is_named_can_sign(block: Block) -> None:
    assert refused(encode_block(resigned(block, BOB))) == "signature"
    assert refused(encode_block(resigned(block, ALICE, validator_hotkey=BOB.ss58_address))) == "signature"
    unsigned = block.model_copy(update={"header": block.header.model_copy(update={"signature": ""})})
    assert refused(encode_block(unsigned)) == "signature"
    nobody = ALICE.ss58_address[:-1] + ("1" if ALICE.ss58_address[-1] != "1" else "2")  # its checksum is wrong
    assert refused(encode_block(resigned(block, validator_hotkey=nobody))) == "signature"


def test_one_key_has_one_address(block: Block) -> None:
    """The same key written for another network would be a second validator."""
    other = Keypair(public_key=ALICE.public_key, ss58_format=2).ss58_address
    assert other != ALICE.ss58_address
    assert refused(encode_block(resigned(block, validator_hotkey=other))) == "signature"


@pytest.mark.parametrize(
    "message",
    [
        unsigned_bytes,
        lambda header: digest(SIGNING_PREFIX + unsigned_bytes(header)),
        lambda header: b"chimera.arena.block.v2\n" + unsigned_bytes(header),
        lambda header: SIGNING_PREFIX + encode(header.model_dump()),
    ],
)
def test_a_signature_for_anything_else_is_none_for_a_block(block: Block, message: Callable[[Any], bytes]) -> None:
    signature = ALICE.sign(message(block.header)).hex()
    forged = block.model_copy(update={"header": block.header.model_copy(update={"signature": signature})})
    assert refused(encode_block(forged)) == "signature"


def test_samples_cannot_be_swapped_for_others(block: Block) -> None:
    better = tuple(
        each.model_copy(update={"verdict": each.verdict.model_copy(update={"ok": True})}) for each in block.samples
    )
    assert refused(encode_block(block.model_copy(update={"samples": better}))) == "merkle"


def test_a_chain_links() -> None:
    chain = chained(ALICE, [pair(), pair("seed:2"), pair("seed:3")])
    for previous, each in zip([None, *chain], chain, strict=False):
        check_link(previous.header if previous else None, each.header)


@pytest.mark.parametrize(
    ("at", "changes", "reason"),
    [
        (0, {"block_index": 1}, "gap"),
        (0, {"prev_hash": "1" * 64}, "chain"),
        (1, {"block_index": 2}, "gap"),
        (1, {"block_index": 0}, "replay"),
        (1, {"prev_hash": GENESIS_HASH}, "chain"),
        (1, {"timestamp": START - 1}, "time"),
        (1, {"validator_hotkey": BOB.ss58_address}, "foreign"),
    ],
)
def test_a_header_that_may_not_follow_is_refused(at: int, changes: dict[str, Any], reason: str) -> None:
    chain = [each.header for each in chained(ALICE, [pair(), pair("seed:2")])]
    with pytest.raises(EvidenceError) as refusal:
        check_link(chain[at - 1] if at else None, chain[at].model_copy(update=changes))
    assert refusal.value.reason == reason


class Flaky(ObjectStore):
    """A store whose next answers are lost: what was asked is done, or is not."""

    def __init__(self) -> None:
        self.inner = open_objects("memory://")
        self.lose: list[bool] = []

    async def get(self, key: str) -> bytes:
        return await self.inner.get(key)

    async def create(self, key: str, data: bytes) -> None:
        done = self.lose.pop(0) if self.lose else None
        if done is not False:
            await self.inner.create(key, data)
        if done is not None:
            raise StorageUnavailable("the answer is lost")

    async def exists(self, key: str) -> bool:
        return await self.inner.exists(key)

    async def list(self, prefix: str = "") -> list[str]:
        return await self.inner.list(prefix)

    async def close(self) -> None:
        await self.inner.close()


async def stored(store: ObjectStore) -> list[Block]:
    keys = await store.list(ALICE.ss58_address)
    return [read_block(await store.get(key)) for key in keys]


async def test_a_chain_goes_on_where_it_ended() -> None:
    store, clock = open_objects("memory://"), ManualClock(START + 0.7)
    first = Chain(ALICE, store, clock)
    assert (await first.append(pair())).header.timestamp == START
    await first.append(pair("seed:2"))
    clock = ManualClock(START - 100)  # a clock that was set back does not take the chain with it
    second = Chain(ALICE, store, clock)
    block = await second.append(pair("seed:3"))
    assert (block.header.block_index, block.header.timestamp) == (2, START)
    chain = await stored(store)
    for previous, each in zip([None, *chain], chain, strict=False):
        check_link(previous.header if previous else None, each.header)
    assert (second.head, second.next_index) == (chain[-1].header, 3)


async def test_two_that_write_one_chain_cannot_fork_it() -> None:
    store = open_objects("memory://")
    first, second = Chain(ALICE, store, ManualClock(START)), Chain(ALICE, store, ManualClock(START))
    await first.open()
    await second.open()
    await first.append(pair())
    with pytest.raises(ObjectExists, match="another process writes the chain"):
        await second.append(pair("seed:2"))
    assert len(await stored(store)) == 1
    assert (await second.append(pair("seed:2"))).header.block_index == 1


@pytest.mark.parametrize("lose", [[True], [False], [False, True], [False, False]])
async def test_a_lost_answer_stores_nothing_twice(lose: list[bool]) -> None:
    store = Flaky()
    chain = Chain(ALICE, store, ManualClock(START))
    await chain.open()
    for done in lose:
        store.lose = [done]
        with pytest.raises(StorageUnavailable):
            await chain.append(pair())
    with pytest.raises(StorageError, match="append its samples again first"):
        await chain.append(pair("seed:2"))
    await chain.append(pair())
    await chain.append(pair("seed:2"))
    assert [block.samples[0].challenge_id for block in await stored(store)] == ["seed:1", "seed:2"]


async def test_a_chain_with_a_hole_is_not_continued() -> None:
    store = open_objects("memory://")
    for block in chained(ALICE, [pair(), pair("seed:2"), pair("seed:3")]):
        if block.header.block_index != 1:
            await store.create(block_key(ALICE.ss58_address, block.header.block_index), encode_block(block))
    with pytest.raises(EvidenceError, match=r"block 1 of .* is missing") as refusal:
        await Chain(ALICE, store, ManualClock(START)).append(pair("seed:4"))
    assert refusal.value.reason == "gap"


async def test_what_is_kept_under_a_wrong_name_is_not_continued() -> None:
    store = open_objects("memory://")
    (block,) = chained(BOB, [pair()])
    await store.create(block_key(ALICE.ss58_address, 0), encode_block(block))
    with pytest.raises(EvidenceError, match="is another block"):
        await Chain(ALICE, store, ManualClock(START)).open()
