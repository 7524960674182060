"""One contract for every chain: the winner takes all, or nothing at all is set. Then what is particular to each."""

from __future__ import annotations

import asyncio
import fcntl
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.arena.validators.chain import MAX_AGE_BLOCKS, Metagraph, SubnetChain, winner
from chimera.arena.validators.chain_bittensor import BittensorChain
from chimera.arena.validators.chain_local import BLOCK_S, LocalChain, WeightsSet
from chimera.core.clock import ManualClock
from chimera.core.errors import ChainError, InputError, StaleMetagraph
from tests.unit.arena.validators.fake_substrate import (
    MINERS,
    NETUID,
    NEURONS,
    VALIDATOR,
    FakeSubstrate,
    bittensor_home,  # noqa: F401 - a fixture
)


class World(ABC):
    """A chain that a test can push about."""

    @abstractmethod
    def chain(self) -> SubnetChain: ...
    @abstractmethod
    def advance(self, blocks: int) -> None: ...
    @abstractmethod
    def replace(self, uid: int, hotkey: str) -> None: ...
    @abstractmethod
    def winners(self) -> list[int]: ...


class LocalWorld(World):
    def __init__(self, ledger: Path | None) -> None:
        self.clock = ManualClock(1_000 * BLOCK_S)
        self.hotkeys = list(NEURONS)
        self.ledger = ledger
        self.chains: list[LocalChain] = []

    def chain(self) -> LocalChain:
        self.chains.append(
            LocalChain(
                hotkeys=self.hotkeys,
                hotkey=VALIDATOR.ss58_address,
                clock=self.clock,
                netuid=NETUID,
                ledger=self.ledger,
            )
        )
        return self.chains[-1]

    def advance(self, blocks: int) -> None:
        self.clock.advance(blocks * BLOCK_S)

    def replace(self, uid: int, hotkey: str) -> None:
        self.hotkeys[uid] = hotkey

    def winners(self) -> list[int]:
        chains = self.chains if self.ledger is None else self.chains[-1:]
        return [entry.uid for chain in chains for entry in chain.history()]


class BittensorWorld(World):
    def __init__(self) -> None:
        self.fake = FakeSubstrate()

    def chain(self) -> BittensorChain:
        return BittensorChain(network="local", netuid=NETUID, hotkey=VALIDATOR, substrate=self.fake)

    def advance(self, blocks: int) -> None:
        self.fake.height += blocks

    def replace(self, uid: int, hotkey: str) -> None:
        self.fake.hotkeys[uid] = hotkey

    def winners(self) -> list[int]:
        return [uid for submitted in self.fake.submitted for uid in submitted.params["dests"]]


@pytest.fixture(params=["memory", "file", "bittensor"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "bittensor":
        request.getfixturevalue("bittensor_home")
        return BittensorWorld()
    return LocalWorld(tmp_path / "chain" / "ledger.jsonl" if request.param == "file" else None)


def all_to(hotkey: str) -> dict[str, float]:
    return {miner: float(miner == hotkey) for miner in MINERS}


async def test_the_metagraph_has_a_row_for_each_uid(world: World) -> None:
    chain = world.chain()
    metagraph = await chain.metagraph()
    assert (metagraph.netuid, metagraph.block, metagraph.hotkeys) == (NETUID, 1_000, NEURONS)
    assert len(metagraph.validator_permits) == len(metagraph.stakes) == len(NEURONS)
    assert metagraph.uid(MINERS[2]) == 3
    world.advance(5)
    assert await chain.block() == (await chain.metagraph()).block == 1_005
    await chain.close()


@pytest.mark.parametrize("uid", [1, 3])
async def test_the_winner_takes_all(world: World, uid: int) -> None:
    chain = world.chain()
    receipt = await chain.set_weights(all_to(NEURONS[uid]), metagraph=await chain.metagraph())
    assert world.winners() == [uid]
    assert receipt.mode in {"plain", "local"} and receipt.reveal_round is None
    assert receipt.block is not None and (receipt.extrinsic or "").startswith(f"{receipt.block}-")


@pytest.mark.parametrize("age", [0, MAX_AGE_BLOCKS])
async def test_a_metagraph_may_be_as_old_as_is_allowed(world: World, age: int) -> None:
    chain = world.chain()
    metagraph = await chain.metagraph()
    world.advance(age)
    await chain.set_weights(all_to(MINERS[0]), metagraph=metagraph)
    assert world.winners() == [1]


@pytest.mark.parametrize("age", [-1, MAX_AGE_BLOCKS + 1])
async def test_an_older_metagraph_is_refused_and_so_is_one_from_the_future(world: World, age: int) -> None:
    chain = world.chain()
    metagraph = await chain.metagraph()
    metagraph = metagraph.model_copy(update={"block": metagraph.block - age})
    with pytest.raises(StaleMetagraph, match="read it again"):
        await chain.set_weights(all_to(MINERS[0]), metagraph=metagraph)
    assert world.winners() == []


@pytest.mark.parametrize("uid", range(4), ids=["own", "winner", "loser", "loser"])
async def test_a_uid_that_changed_hands_is_refused(world: World, uid: int) -> None:
    metagraph = await world.chain().metagraph()
    world.replace(uid, "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY")
    with pytest.raises(StaleMetagraph, match=f"uid {uid} is no longer held"):
        await world.chain().set_weights(all_to(MINERS[0]), metagraph=metagraph)
    assert world.winners() == []


async def test_hotkeys_that_are_not_in_the_metagraph_are_refused(world: World) -> None:
    chain = world.chain()
    metagraph = await chain.metagraph()
    stranger = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
    for weights in ({stranger: 1.0}, {**all_to(MINERS[0]), stranger: 0.0}):
        with pytest.raises(ChainError, match="not registered"):
            await chain.set_weights(weights, metagraph=metagraph)
    others = metagraph.model_copy(update={"hotkeys": (stranger, *NEURONS[1:])})
    with pytest.raises(ChainError, match="not registered"):
        await chain.set_weights(all_to(MINERS[0]), metagraph=others)
    with pytest.raises(ChainError, match="of subnet 8"):
        await chain.set_weights(all_to(MINERS[0]), metagraph=metagraph.model_copy(update={"netuid": 8}))
    assert world.winners() == []


@pytest.mark.parametrize(
    "shares",
    [(), (0.0, 0.0, 0.0), (1.0, 1.0, 0.0), (0.5, 0.5, 0.0), (0.5, 0.0, 0.0), (2.0, 0.0, 0.0), (1.0, -0.0, 1e-300)]
    + [(1.0, bad, 0.0) for bad in (math.nan, math.inf, -math.inf, -1.0)],
    ids=str,
)
async def test_weights_of_another_shape_are_refused(world: World, shares: tuple[float, ...]) -> None:
    chain = world.chain()
    metagraph = await chain.metagraph()
    with pytest.raises(ChainError):
        await chain.set_weights(dict(zip(MINERS, shares, strict=False)), metagraph=metagraph)
    assert world.winners() == []


@given(st.dictionaries(st.sampled_from(NEURONS), st.floats() | st.sampled_from([0.0, 1.0])))
def test_there_is_a_winner_exactly_if_one_has_all(weights: dict[str, float]) -> None:
    if sorted(weights.values()) == [0.0] * (len(weights) - 1) + [1.0]:
        assert weights[winner(weights)] == 1.0
    else:
        with pytest.raises(ChainError):
            winner(weights)


def test_a_metagraph_that_does_not_fit_together_is_refused() -> None:
    fields: dict[str, Any] = {"netuid": 1, "block": 1, "validator_permits": (True,) * 2, "stakes": (0,) * 2}
    Metagraph(hotkeys=NEURONS[:2], **fields)
    for hotkeys in (NEURONS[:1], NEURONS[:3], (NEURONS[0],) * 2, ("not a hotkey", NEURONS[0])):
        with pytest.raises(ValidationError):
            Metagraph(hotkeys=hotkeys, **fields)


class TestLocalChain:
    """The ledger: whole lines, added only, shared."""

    @staticmethod
    def chain(ledger: Path | None, hotkey: str = VALIDATOR.ss58_address, now_s: float = 1_200.0) -> LocalChain:
        return LocalChain(hotkeys=NEURONS, hotkey=hotkey, clock=ManualClock(now_s), ledger=ledger)

    async def test_several_validators_write_one_ledger_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        chains = [self.chain(path, hotkey) for hotkey in NEURONS]

        def write(chain: LocalChain) -> None:
            async def go() -> None:
                for _ in range(25):
                    await chain.set_weights(all_to(MINERS[1]), metagraph=await chain.metagraph())

            asyncio.run(go())

        await asyncio.gather(*(asyncio.to_thread(write, chain) for chain in chains))
        history = chains[0].history()
        assert sorted(entry.validator for entry in history) == sorted(NEURONS * 25)
        assert set(history) == {
            WeightsSet(netuid=0, block=100, validator=hotkey, uid=2, winner=MINERS[1]) for hotkey in NEURONS
        }
        assert path.stat().st_mode & 0o777 == 0o600

    async def test_a_writer_waits_for_the_one_before(self, tmp_path: Path) -> None:
        """Or two extrinsics would have one number."""
        path = tmp_path / "ledger.jsonl"
        chain = self.chain(path)
        metagraph = await chain.metagraph()
        with path.open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            writing = asyncio.create_task(
                asyncio.to_thread(asyncio.run, chain.set_weights(all_to(MINERS[1]), metagraph=metagraph))
            )
            await asyncio.wait([writing], timeout=0.3)
            assert not writing.done() and chain.history() == ()
        assert (await writing).extrinsic == "100-0000"

    async def test_extrinsics_are_numbered(self, tmp_path: Path) -> None:
        for ledger in (None, tmp_path / "ledger.jsonl"):
            chain = self.chain(ledger)
            receipts = [await chain.set_weights(all_to(MINERS[0]), metagraph=await chain.metagraph()) for _ in range(3)]
            assert [receipt.extrinsic for receipt in receipts] == ["100-0000", "100-0001", "100-0002"]

    @pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-9], lambda data: b"\xff\n" + data])
    async def test_a_damaged_ledger_is_refused(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        path = tmp_path / "ledger.jsonl"
        chain = self.chain(path)
        metagraph = await chain.metagraph()
        await chain.set_weights(all_to(MINERS[0]), metagraph=metagraph)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ChainError, match="is damaged"):
            chain.history()

    async def test_nothing_is_added_to_half_a_line(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.jsonl"
        path.write_bytes(b'{"netuid":0')
        chain = self.chain(path)
        with pytest.raises(ChainError, match="is damaged"):
            await chain.set_weights(all_to(MINERS[0]), metagraph=await chain.metagraph())
        assert path.read_bytes() == b'{"netuid":0'

    async def test_what_cannot_be_written_or_read_is_said(self, tmp_path: Path) -> None:
        chain = self.chain(tmp_path)
        with pytest.raises(ChainError, match="cannot be written"):
            await chain.set_weights(all_to(MINERS[0]), metagraph=await chain.metagraph())
        with pytest.raises(ChainError, match="cannot be read"):
            chain.history()

    async def test_neither_hotkeys_nor_time_are_taken_on_trust(self) -> None:
        with pytest.raises(InputError, match="no hotkey has two uids"):
            LocalChain(hotkeys=NEURONS + NEURONS, hotkey=NEURONS[0], clock=ManualClock())
        early = LocalChain(hotkeys=NEURONS, hotkey=NEURONS[0], clock=ManualClock(5.0), genesis_s=6.0)
        with pytest.raises(ChainError, match="has not begun"):
            await early.block()
