"""A subnet in a file or in memory, for demos, dry runs and tests: nothing leaves this machine.

Its blocks come from the clock, 12 s each, as Bittensor's do. What validators set is appended to a ledger, a JSON object
a line, which several processes may share.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from chimera.arena.types import Hotkey
from chimera.arena.validators.chain import MAX_AGE_BLOCKS, Height, Metagraph, Receipt, SubnetChain
from chimera.core.clock import Clock
from chimera.core.errors import ChainError, InputError
from chimera.core.types import Frozen

BLOCK_S = 12
"""Seconds between two blocks, as on Bittensor."""

MAX_LEDGER_BYTES = 64_000_000


class WeightsSet(Frozen):
    """A line of the ledger: at `block`, `validator` gave all its weight to `winner`, which held `uid`."""

    netuid: int
    block: Height
    validator: Hotkey
    uid: int
    winner: Hotkey


class LocalChain(SubnetChain):
    """A subnet whose neurons are `hotkeys`, each a validator with no stake, seen by `hotkey`.

    The ledger is kept in memory if `ledger` is None. Block 0 began at `genesis_s`, in seconds since the epoch.
    """

    def __init__(
        self,
        *,
        hotkeys: Sequence[str],
        hotkey: str,
        clock: Clock,
        netuid: int = 0,
        ledger: Path | None = None,
        genesis_s: float = 0.0,
        max_age_blocks: int = MAX_AGE_BLOCKS,
    ) -> None:
        super().__init__(netuid=netuid, hotkey=hotkey, max_age_blocks=max_age_blocks)
        self._hotkeys = tuple(hotkeys)
        self._clock = clock
        self._ledger = ledger
        self._genesis_s = genesis_s
        self._memory: list[WeightsSet] = []
        try:
            self._seen_at(0)
        except ValidationError as error:
            raise InputError(f"these cannot be the neurons of a subnet: {error.errors()[0]['msg']}") from error

    async def metagraph(self) -> Metagraph:
        return self._seen_at(await self.block())

    async def block(self) -> int:
        elapsed_s = self._clock.now() - self._genesis_s
        if elapsed_s < 0:
            raise ChainError("this chain has not begun: its genesis is ahead of the clock")
        return int(elapsed_s // BLOCK_S)

    def history(self) -> tuple[WeightsSet, ...]:
        """All that was set, oldest first. Raises ChainError for a ledger that is damaged, too large or unreadable."""
        if self._ledger is None:
            return tuple(self._memory)
        try:
            with self._ledger.open("rb") as file:
                data = file.read(MAX_LEDGER_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ChainError(f"the ledger cannot be read: {error}") from error
        if len(data) > MAX_LEDGER_BYTES:
            raise ChainError(f"{self._ledger} is longer than {MAX_LEDGER_BYTES} bytes: begin another")
        return tuple(self._entry(line, number) for number, line in enumerate(data.splitlines(keepends=True), 1))

    async def _give_all_to(self, uid: int, hotkey: str) -> Receipt:
        entry = WeightsSet(netuid=self.netuid, block=await self.block(), validator=self.hotkey, uid=uid, winner=hotkey)
        if self._ledger is None:
            self._memory.append(entry)
            index = len(self._memory) - 1
        else:
            line = entry.model_dump_json().encode() + b"\n"
            index = await asyncio.to_thread(_append, self._ledger, line)  # it may wait for another process
        return Receipt(mode="local", block=entry.block, extrinsic=f"{entry.block}-{index:04d}")

    def _seen_at(self, block: int) -> Metagraph:
        count = len(self._hotkeys)
        return Metagraph(
            netuid=self.netuid,
            block=block,
            hotkeys=self._hotkeys,
            validator_permits=(True,) * count,
            stakes=(0,) * count,
        )

    def _entry(self, line: bytes, number: int) -> WeightsSet:
        try:
            if not line.endswith(b"\n"):
                raise ValueError("it is cut short")
            return WeightsSet.model_validate_json(line)
        except ValueError as error:  # a ValidationError is one
            raise ChainError(f"line {number} of {self._ledger} is damaged: take it out") from error


def _append(path: Path, line: bytes) -> int:
    """Add `line` to the file at `path`, durably, and return how many came before it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # let go of with the file
            file.seek(0)
            before = file.read(MAX_LEDGER_BYTES + 1)
            if len(before) + len(line) > MAX_LEDGER_BYTES:
                raise ChainError(f"{path} is full: begin another")
            if before and not before.endswith(b"\n"):
                raise ChainError(f"the last line of {path} is damaged: take it out")
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ChainError(f"the ledger cannot be written: {error}") from error
    return before.count(b"\n")
