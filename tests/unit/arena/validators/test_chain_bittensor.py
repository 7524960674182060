"""What bittensor is told to do: the exact calls in both modes. The sealed one opens with drand's signature."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import bittensor_core
import pytest

from chimera.arena.validators.beacon import current_round
from chimera.arena.validators.chain import Receipt
from chimera.arena.validators.chain_bittensor import BittensorChain
from chimera.core.errors import ChainError, InputError, MissingExtra
from tests.unit.arena.validators.fake_substrate import (
    MINERS,
    NETUID,
    VALIDATOR,
    FakeSubstrate,
    Submitted,
    bittensor_home,  # noqa: F401 - a fixture
)
from tests.unit.arena.validators.quicknet import PUBLISHED_1000_S, SIGNATURES

pytestmark = pytest.mark.usefixtures("bittensor_home")

VERSION_KEY = 2**40 + 7

WEIGHTS = {MINERS[0]: 0.0, MINERS[1]: 1.0, MINERS[2]: 0.0}

WINNER = 2
"""The uid of MINERS[1]."""

BLOCKS_TO_REVEAL = 263
"""From block 1,000, where the last epoch ran at 900 and the tempo is 360: the next epoch runs at 1,260, and three
blocks later its weights may be opened."""


def chain_over(fake: FakeSubstrate, mechid: int = 0) -> BittensorChain:
    return BittensorChain(
        network="local", netuid=NETUID, hotkey=VALIDATOR, version_key=VERSION_KEY, mechid=mechid, substrate=fake
    )


async def set_weights(fake: FakeSubstrate, mechid: int = 0) -> Receipt:
    chain = chain_over(fake, mechid)
    receipt = await chain.set_weights(WEIGHTS, metagraph=await chain.metagraph())
    await chain.close()
    return receipt


def sealed_payload(version_key: int) -> bytes:
    """What a commit seals, SCALE-encoded: the validator's public key, the uids, their weights, the version key."""
    one = b"\x04"  # the length 1, compact
    return (
        b"\x80"  # the length 32, compact
        + bytes(VALIDATOR.public_key)
        + one
        + WINNER.to_bytes(2, "little")
        + one
        + b"\xff\xff"
        + version_key.to_bytes(8, "little")
    )


def opened(commit: bytes, reveal_round: int, signature: str) -> bytes:
    """What `commit` seals. The chain keeps it bare; here its SCALE length goes before it and its round after."""
    envelope = (len(commit) << 2 | 1).to_bytes(2, "little") + commit + reveal_round.to_bytes(8, "little")
    return bytes(bittensor_core.decrypt_with_signature(envelope, signature))


async def test_the_call_in_the_clear() -> None:
    fake = FakeSubstrate()
    receipt = await set_weights(fake)
    assert fake.submitted == [
        Submitted(
            function="set_mechanism_weights",
            params={"netuid": NETUID, "mecid": 0, "dests": [WINNER], "weights": [65_535], "version_key": VERSION_KEY},
            signer=VALIDATOR.ss58_address,
        )
    ]
    assert receipt == Receipt(mode="plain", block=1_001, extrinsic="1001-0001")
    assert not fake.connected


async def test_the_sealed_call_opens_with_the_published_signature_of_its_round() -> None:
    """The round depends on this machine's clock and on how long the chain's blocks take. So this chain's blocks run
    backwards, just so that the round is one of four of 2023 whose signatures are known."""
    fake = FakeSubstrate(commit_reveal=True)
    middle_s = PUBLISHED_1000_S + 6
    fake.seconds_a_block = lambda: (middle_s - time.time()) / BLOCKS_TO_REVEAL
    receipt = await set_weights(fake)

    (submitted,) = fake.submitted
    commit, reveal_round = submitted.params.pop("commit"), submitted.params.pop("reveal_round")
    assert submitted == Submitted(
        function="commit_timelocked_mechanism_weights",
        params={"netuid": NETUID, "mecid": 0, "commit_reveal_version": 4},
        signer=VALIDATOR.ss58_address,
    )
    assert receipt == Receipt(mode="timelocked", block=1_001, extrinsic="1001-0001", reveal_round=reveal_round)
    assert opened(commit, reveal_round, SIGNATURES[reveal_round]) == sealed_payload(VERSION_KEY)
    for other in SIGNATURES.keys() - {reveal_round}:
        with pytest.raises(ValueError, match="InvalidSignature"):
            opened(commit, reveal_round, SIGNATURES[other])


async def test_weights_are_sealed_until_after_the_next_epoch() -> None:
    fake = FakeSubstrate(commit_reveal=True)
    before = current_round(time.time())
    receipt = await set_weights(fake)
    after = current_round(time.time())
    assert receipt.reveal_round is not None
    waits = BLOCKS_TO_REVEAL * 12 // 3
    assert before + waits - 1 <= receipt.reveal_round <= after + waits + 1


async def test_another_mechanism_is_named() -> None:
    fake = FakeSubstrate()
    fake.storage["LastUpdate"] = None
    fake_query = fake.query

    async def query(module: str, name: str, params: list[int], block_hash: str | None = None) -> object:
        if name == "LastUpdate":  # kept under the mechanism's own number
            assert params == [2 * 4_096 + NETUID]
            return []
        return await fake_query(module, name, params, block_hash)

    fake.query = query  # type: ignore[assignment, method-assign]
    await set_weights(fake, mechid=2)
    assert fake.submitted[0].params["mecid"] == 2


async def test_a_limit_on_one_weight_never_spreads_it() -> None:
    """bittensor fits weights to the limit by sharing them out, over the zeros too: it is shown no others."""
    fake = FakeSubstrate()
    fake.storage["MaxWeightsLimit"] = 65_535 // 4
    await set_weights(fake)
    assert (fake.submitted[0].params["dests"], fake.submitted[0].params["weights"]) == ([WINNER], [65_535])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WeightsSetRateLimit", 100, "rate limit is 100 blocks"),
        ("MinAllowedWeights", 2, "at least 2 weights"),
    ],
)
async def test_what_bittensor_refuses_is_a_chain_error(name: str, value: int, said: str) -> None:
    fake = FakeSubstrate()
    fake.storage["LastUpdate"] = [990] * 4
    fake.storage[name] = value
    with pytest.raises(ChainError, match=said):
        await set_weights(fake)
    assert fake.submitted == []


async def test_what_the_chain_refuses_is_a_chain_error() -> None:
    fake = FakeSubstrate()
    fake.refusal = "NeuronNoValidatorPermit"
    with pytest.raises(ChainError, match="NeuronNoValidatorPermit"):
        await set_weights(fake)


@pytest.mark.parametrize("trouble", [ConnectionResetError("gone"), TimeoutError(), TypeError("not what was meant")])
async def test_a_chain_that_cannot_be_asked_is_a_chain_error(trouble: Exception) -> None:
    fake = FakeSubstrate()
    fake.trouble = trouble
    chain = chain_over(fake)
    for asked in (chain.block, chain.metagraph):
        with pytest.raises(ChainError, match="reading"):
            await asked()


async def test_a_subnet_that_is_not_there_is_a_chain_error() -> None:
    with pytest.raises(ChainError, match="no subnet 7"):
        await chain_over(FakeSubstrate(netuid=8)).metagraph()


async def test_the_metagraph_is_read_at_one_block() -> None:
    metagraph = await chain_over(FakeSubstrate()).metagraph()
    assert metagraph.validator_permits == (True, False, False, False)
    assert metagraph.stakes == (4 * 10**9, 3 * 10**9, 2 * 10**9, 10**9)


def test_unknown_networks_and_version_keys_are_refused() -> None:
    with pytest.raises(InputError, match="Unknown network"):
        BittensorChain(network="nowhere", netuid=NETUID, hotkey=VALIDATOR)
    for key in (-1, 2**64):
        with pytest.raises(InputError, match="version key"):
            BittensorChain(network="local", netuid=NETUID, hotkey=VALIDATOR, version_key=key)


def test_without_bittensor_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bittensor", None)
    with pytest.raises(MissingExtra, match=r"chimera\[chain\]"):
        BittensorChain(network="local", netuid=NETUID, hotkey=VALIDATOR)


def test_bittensor_is_imported_late_and_writes_under_home_alone(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from chimera.arena.validators import chain_bittensor\n"
        "assert 'bittensor' not in sys.modules\n"
        "from tests.unit.arena.validators.fake_substrate import NETUID, VALIDATOR, FakeSubstrate\n"
        "chain = chain_bittensor.BittensorChain(\n"
        "    network='local', netuid=NETUID, hotkey=VALIDATOR, substrate=FakeSubstrate())\n"
        "print(asyncio.run(chain.block()))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={"HOME": str(tmp_path), "PYTHONPATH": ".", "PATH": ""},
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == "1000\n", ran.stderr
    assert [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.json")] == [".bittensor"]
