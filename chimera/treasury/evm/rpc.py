"""The chain over JSON-RPC (web3): with time limits, and a bounded number of tries for what only reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from chimera.core.errors import ChainError, ChainMissing, ChainReverts, ChainUnavailable, InputError, MissingExtra
from chimera.storage.url import hide_password
from chimera.treasury.evm.port import MAX_LOGS, Block, Log, Receipt

try:
    import aiohttp
    from eth_utils.address import to_checksum_address
    from hexbytes import HexBytes
    from web3 import AsyncHTTPProvider, AsyncWeb3
    from web3.exceptions import ContractLogicError, TransactionNotFound, Web3Exception, Web3RPCError
    from web3.middleware import ExtraDataToPOAMiddleware
except ImportError:
    raise MissingExtra("web3", "evm") from None

T = TypeVar("T")

TIMEOUT_S = 10.0
TRIES = 4
FIRST_PAUSE_S = 0.1
"""Doubled after each try."""
MAX_RANGE = 2_000
"""Blocks that one question for events spans: public nodes take no more."""
MAX_MESSAGE = 300
SENT_BEFORE = ("already known", "already imported", "already in mempool", "alreadyknown")
"""How geth, Nethermind, Besu and anvil say that they have a transaction already."""


class RpcChain:
    """The chain `chain_id` behind the node at `url` (http or https). Its secrets are shown in no message.

    Before the first thing is sent, the node is asked whether it is of that chain. Raises InputError for such a URL as
    cannot be one; every method raises ChainError.
    """

    def __init__(self, *, url: str, chain_id: int, timeout_s: float = TIMEOUT_S) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(f"{hide_password(url)} is no node: write http://HOST:PORT or https://HOST/…")
        self.chain_id = chain_id
        self._where = hide_password(url).partition("/")[0] + "//" + hide_password(url).split("/")[2]
        self._timeout_s = timeout_s
        self._provider = AsyncHTTPProvider(
            url, request_kwargs={"timeout": aiohttp.ClientTimeout(total=timeout_s)}, exception_retry_configuration=None
        )
        web3 = AsyncWeb3(self._provider)
        web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)  # Polygon's blocks hold more than Ethereum's
        self._eth = web3.eth
        self._checked = False

    async def head(self) -> Block:
        found = await self._read(lambda: self._eth.get_block("latest"))
        if "baseFeePerGas" not in found:
            raise ChainError(f"{self._where}: this chain has no base fee (EIP-1559), and is not one we can pay on")
        return Block(number=found["number"], hash=found["hash"].to_0x_hex(), base_fee=found["baseFeePerGas"])

    async def nonce(self, address: str, at: int | None = None) -> int:
        return int(await self._read(lambda: self._eth.get_transaction_count(_address(address), _block(at))))

    async def balance(self, address: str, at: int | None = None) -> int:
        return int(await self._read(lambda: self._eth.get_balance(_address(address), _block(at))))

    async def tip(self) -> int:
        return int(await self._read(lambda: self._eth.max_priority_fee))

    async def estimate(self, sender: str, to: str, data: str) -> int | None:
        call: Any = {"from": _address(sender), "to": _address(to), "data": data, "value": 0}
        try:
            return int(await self._read(lambda: self._eth.estimate_gas(call)))
        except ChainReverts:
            return None

    async def call(self, to: str, data: str, at: int | None = None) -> bytes:
        call: Any = {"to": _address(to), "data": data}
        return bytes(await self._read(lambda: self._eth.call(call, _block(at))))

    async def send(self, raw: str) -> str:
        await self._check()
        return str((await self._once(lambda: self._send(raw))).to_0x_hex())

    async def known(self, tx_hash: str) -> bool:
        try:
            await self._read(lambda: self._eth.get_transaction(_hash(tx_hash)))
        except ChainMissing:
            return False
        return True

    async def receipt(self, tx_hash: str) -> Receipt | None:
        try:
            found = await self._read(lambda: self._eth.get_transaction_receipt(_hash(tx_hash)))
        except ChainMissing:
            return None
        return Receipt(
            tx_hash=tx_hash,
            block=found["blockNumber"],
            block_hash=found["blockHash"].to_0x_hex(),
            ok=found["status"] == 1,
            cost=found["gasUsed"] * found["effectiveGasPrice"],
            logs=tuple(_log(log) for log in found["logs"]),
        )

    async def logs(self, address: str, topics: tuple[str, ...], since: int, until: int) -> list[Log]:
        found: list[Log] = []
        for first in range(since, until + 1, MAX_RANGE):
            wanted: Any = {
                "address": _address(address),
                "topics": [list(topics)],
                "fromBlock": first,
                "toBlock": min(first + MAX_RANGE - 1, until),
            }
            found += [_log(log) for log in await self._read(partial(self._eth.get_logs, wanted))]
            if len(found) > MAX_LOGS:
                raise ChainError(f"{self._where}: more than {MAX_LOGS} events of {address} are too many to look at")
        return found

    async def close(self) -> None:
        await self._provider.disconnect()

    async def _check(self) -> None:
        """Raises ChainError unless the node is of the chain that is meant."""
        if not self._checked:
            found = int(await self._read(lambda: self._eth.chain_id))
            if found != self.chain_id:
                raise ChainError(
                    f"{self._where} is a node of chain {found}, and not of {self.chain_id}: nothing was sent. Name"
                    " another node, or set the chain right"
                )
            self._checked = True

    async def _send(self, raw: str) -> HexBytes:
        try:
            return await self._eth.send_raw_transaction(HexBytes(raw))
        except Web3RPCError as error:
            from chimera.treasury.evm.types import Sealed

            if any(words in str(error).lower() for words in SENT_BEFORE):
                return HexBytes(Sealed(raw=raw).hash)
            raise

    async def _read(self, ask: Callable[[], Awaitable[T]]) -> T:
        pause_s = FIRST_PAUSE_S
        for _ in range(TRIES - 1):
            try:
                return await self._once(ask)
            except ChainUnavailable:
                await asyncio.sleep(pause_s)
                pause_s *= 2
        return await self._once(ask)

    async def _once(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await ask()
        except ContractLogicError as error:
            raise ChainReverts(f"{self._where}: it would revert: {_said(error)}") from None
        except TransactionNotFound:
            raise ChainMissing(f"{self._where} knows no such transaction") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ChainUnavailable(
                f"{self._where} does not answer ({type(error).__name__}): is it up, and is its address right?"
            ) from None
        except (Web3Exception, ValueError, KeyError, TypeError) as error:
            raise ChainError(f"{self._where}: {_said(error)}") from None


def _said(error: Exception) -> str:
    """What a node says, of one line, and no URL in it."""
    told = error.args[0] if error.args else type(error).__name__
    line = " ".join(str(told).split())
    return " ".join(word for word in line.split() if "://" not in word)[:MAX_MESSAGE]


def _log(log: Any) -> Log:
    return Log(
        address=log["address"],
        topics=tuple(topic.to_0x_hex() for topic in log["topics"]),
        data=log["data"].to_0x_hex(),
        block=log["blockNumber"],
        tx_hash=log["transactionHash"].to_0x_hex(),
    )


def _address(text: str) -> Any:
    return to_checksum_address(text)


def _hash(text: str) -> Any:
    return HexBytes(text)


def _block(at: int | None) -> Any:
    return "latest" if at is None else at
