"""A chain in memory, for bittensor's own injection point (`bt.Subtensor(..., substrate=fake)`).

It answers what `bt.SetWeights` and the metagraph ask, and nothing else: an unexpected question fails the test. What is
submitted is kept as it was composed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bittensor_core
import pytest

NETUID = 7

BLOCK_HASH = "0x" + "ab" * 32

MINERS = tuple(bittensor_core.Keypair.create_from_uri(f"//miner{n}").ss58_address for n in range(3))

VALIDATOR = bittensor_core.Keypair.create_from_uri("//validator")

NEURONS = (VALIDATOR.ss58_address, *MINERS)


@dataclass
class Submitted:
    """A call as bittensor composed it, and who signed it."""

    function: str
    params: dict[str, Any]
    signer: str


class FakeSubstrate:
    def __init__(self, *, height: int = 1_000, commit_reveal: bool = False, netuid: int = NETUID) -> None:
        self.height = height
        self.hotkeys = list(NEURONS)
        self.netuid = netuid
        self.storage: dict[str, Any] = {
            "CommitRevealWeightsEnabled": commit_reveal,
            "WeightsSetRateLimit": 0,
            "LastUpdate": [0] * len(NEURONS),
            "MinAllowedWeights": 1,
            "MaxWeightsLimit": 65_535,
            "SubnetEpochConsensus": "Yuma",
            "Tempo": 360,
            "RevealPeriodEpochs": 1,
            "LastEpochBlock": 900,
            "PendingEpochAt": 0,
            "SubnetEpochIndex": 5,
            "BlocksSinceLastStep": 100,
        }
        self.seconds_a_block: Callable[[], float] = lambda: 12.0
        self.submitted: list[Submitted] = []
        self.refusal: str | None = None
        self.trouble: BaseException | None = None
        self.connected = False
        self.token_symbols: dict[int, str] = {}

    def balance(self, rao: int, netuid: int = 0) -> Any:
        from bittensor.balance import Balance

        return Balance(int(rao), netuid, None)

    async def connect(self) -> None:
        self.connected = True

    async def close(self) -> None:
        self.connected = False

    async def block_hash(self, block: int | None = None) -> str:
        return BLOCK_HASH

    async def block_number(self) -> int:
        if self.trouble is not None:
            raise self.trouble
        return self.height

    async def block_time(self) -> float:
        return self.seconds_a_block()

    async def query(
        self, module: str, storage_function: str, params: list[Any] | None = None, block_hash: str | None = None
    ) -> Any:
        assert module == "SubtensorModule"
        if storage_function == "Uids":
            netuid, hotkey = params or []
            assert netuid == self.netuid
            return self.hotkeys.index(hotkey) if hotkey in self.hotkeys else None
        assert params == [self.netuid]
        return self.storage[storage_function]

    async def query_map(
        self, module: str, storage_function: str, params: list[Any] | None = None, block_hash: str | None = None
    ) -> list[tuple[Any, Any]]:
        assert (module, storage_function) == ("SubtensorModule", "TokenSymbol")
        return [(self.netuid, b"\xce\xb1")]

    async def runtime_call(self, api: str, method: str, params: list[Any], block_hash: str | None = None) -> Any:
        assert (api, method, block_hash) == ("SubnetInfoRuntimeApi", "get_metagraph", BLOCK_HASH)
        if params != [self.netuid]:
            return None
        count = len(self.hotkeys)
        return {
            "netuid": self.netuid,
            "block": self.height,
            "tempo": 360,
            "last_step": 900,
            "blocks_since_last_step": 100,
            "owner_hotkey": self.hotkeys[0],
            "owner_coldkey": self.hotkeys[0],
            "network_registered_at": 1,
            "hotkeys": list(self.hotkeys),
            "validator_permit": [uid == 0 for uid in range(count)],
            "total_stake": [(count - uid) * 10**9 for uid in range(count)],
        }

    async def compose(self, call: Any) -> Any:
        assert call.module == "SubtensorModule"
        return call

    async def estimate_fee(self, call: Any, keypair: Any) -> Any:
        return self.balance(1)

    async def submit(self, call: Any, keypair: Any, **_options: Any) -> Any:
        from bittensor.result import ChainError, ExtrinsicResult

        if self.refusal is not None:
            return ExtrinsicResult(success=False, message=self.refusal, error=ChainError(self.refusal))
        self.submitted.append(Submitted(call.function, dict(call.params), keypair.ss58_address))
        self.height += 1
        return ExtrinsicResult(
            success=True, block_hash=BLOCK_HASH, extrinsic_id=f"{self.height}-{len(self.submitted):04d}"
        )


@pytest.fixture(scope="session")
def bittensor_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bittensor takes its paths from HOME when it is imported, and writes there when it connects."""
    folder = tmp_path_factory.mktemp("bittensor-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        import bittensor.config

        cache = bittensor.config.DEFAULT_TOKEN_SYMBOLS_PATH
    assert cache.parent.parent != Path.home(), "bittensor was imported with the real HOME: its cache would go there"
    return cache.parent.parent
