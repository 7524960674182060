"""One validator's chain, read block by block: what is proved against it, or what its samples come to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, cast, get_args

from chimera.arena.canonical import MAX_INT
from chimera.arena.duel.types import Outcome, outcome
from chimera.arena.types import BlockHeader, Sample
from chimera.arena.validators.audit import Draws, FaultKind, Lookup, audit_sample, registered
from chimera.arena.validators.blocks import block_hash, block_key, check_link, index_of, read_block
from chimera.arena.validators.challenges import Shared, parse
from chimera.arena.validators.merged import LOSS, TIE, WIN, Offence, OffenceKind, Pairing, Tally
from chimera.arena.validators.record import Head
from chimera.arena.validators.trust import Bits
from chimera.core.errors import EvidenceError, StorageError, StorageUnavailable
from chimera.storage.objects import ObjectStore

MAX_GROUPS = 32_768
"""Duels of a validator, and shared slices of it, that are counted: some 10 MB at the most. What goes beyond is not."""

MAX_ROUNDS = 1_024
"""Beacon rounds of a validator whose shared challenges are counted."""

TALLIES: dict[Outcome, Tally] = {"win": WIN, "loss": LOSS, "tie": TIE}

BITS: tuple[Bits, ...] = ((False, False), (False, True), (True, False), (True, True))
"""What a byte of a shared slice says of the champion and the contender; any other byte that it does not count."""

UNCOUNTED = len(BITS)


class Slice(NamedTuple):
    """The shared challenges of one beacon round, between two miners in one environment."""

    pairing: Pairing
    round: int
    randomness: str


class Reading:
    """A chain in progress. Give it the bytes of each block, in order of their indices; several of one index are fine.

    Pairs in blocks from `since_s` on and before `until_s` (seconds since the epoch) are counted, up to `most` of a
    validator's own between two miners in one environment. `known` is the block that its chain had when it was last
    read. Reading ends with the first `offence`: a chain is good as a whole or not at all.
    """

    def __init__(
        self,
        hotkey: str,
        *,
        known: Head | None = None,
        since_s: int = 0,
        until_s: int = MAX_INT,
        most: int,
        lookup: Lookup = registered,
    ) -> None:
        self.hotkey = hotkey
        self.offence: Offence | None = None
        self.own: dict[Pairing, Tally] = {}
        self.shared: dict[Slice, bytearray] = {}
        self.rounds: dict[int, str] = {}
        self.samples = 0
        self._known = known
        self._since_s = since_s
        self._until_s = until_s
        self._most = most
        self._lookup = lookup
        self._draws = Draws(hotkey)
        self._last: BlockHeader | None = None
        self._last_hash = ""

    @property
    def head(self) -> Head | None:
        """The block to know the chain by from now on; that of an offender stays where it was."""
        if self.offence or self._last is None:
            return self._known
        return Head(index=self._last.block_index, hash=self._last_hash)

    def take(self, data: bytes) -> None:
        """Read the next block, unless there is an offence already."""
        if self.offence:
            return
        try:
            self._take(data)
        except EvidenceError as error:
            self.offend(cast(FaultKind, error.reason) if error.reason in get_args(FaultKind) else "undecodable", error)

    def end(self) -> None:
        """There are no more blocks."""
        known, last = self._known, -1 if self._last is None else self._last.block_index
        if known and not self.offence and last < known.index:
            self.offend("truncated", f"block {known.index} was there before, and only {last + 1} blocks are left")

    def offend(self, kind: OffenceKind, message: object) -> None:
        """This validator's evidence counts for nothing."""
        index = 0 if self._last is None else self._last.block_index + 1
        self.offence = Offence(kind=kind, hotkey=self.hotkey, block_index=index, message=str(message)[:1_000])
        self.own, self.shared, self.samples = {}, {}, 0

    def _take(self, data: bytes) -> None:
        block = read_block(data)
        header, hashed = block.header, block_hash(block.header)
        if header.validator_hotkey != self.hotkey:
            raise EvidenceError(f"it is a block of {header.validator_hotkey}, not of {self.hotkey}", "foreign")
        known = self._known.hash if self._known and self._known.index == header.block_index else hashed
        if self._last is not None and self._last.block_index == header.block_index:
            known = self._last_hash
        if hashed != known:
            self.offend("fork", f"it signed two blocks {header.block_index}: {known} and {hashed}")
            return
        if hashed == self._last_hash:
            return  # a copy
        check_link(self._last, header)
        counted = self._since_s <= header.timestamp < self._until_s
        for champion, contender in zip(block.samples[::2], block.samples[1::2], strict=True):
            self._draws.take(champion, contender)
            audit_sample(champion, lookup=self._lookup)
            audit_sample(contender, lookup=self._lookup)
            if counted:
                self._count(champion, contender)
        self._last, self._last_hash = header, hashed

    def _count(self, champion: Sample, contender: Sample) -> None:
        pairing = Pairing(champion.env_id, champion.miner_id, contender.miner_id)
        name = parse(champion.challenge_id)
        if isinstance(name, Shared):
            if self.rounds.get(name.round) is None and len(self.rounds) >= MAX_ROUNDS:
                return
            part = Slice(pairing, name.round, self.rounds.setdefault(name.round, name.randomness))
            if part not in self.shared and len(self.shared) >= MAX_GROUPS:
                return
            found = self.shared.setdefault(part, bytearray())
            found.extend([UNCOUNTED] * (name.index - len(found)))  # those of an earlier time
            found.append(2 * champion.verdict.ok + contender.verdict.ok)
        else:
            before = self.own.get(pairing, Tally())
            if before.total >= self._most or (not before.total and len(self.own) >= MAX_GROUPS):
                return
            self.own[pairing] = before.plus(TALLIES[outcome(champion.verdict, contender.verdict)])
        self.samples += 2


async def read_chain(store: ObjectStore, hotkey: str, mirrors: Sequence[ObjectStore] = ()) -> AsyncIterator[bytes]:
    """The blocks that a validator's store holds, in order of their index, one in memory at a time.

    `mirrors` are stores that may hold copies. One that differs, and that the validator has signed, comes as well: it
    shows a fork, or brings a block back that the validator's store has lost. What it has not signed is somebody else's
    garbage. Raises StorageError when the store cannot be read; mirrors that cannot are passed over.
    """
    own = set(await _indices(store, hotkey))
    copies = [(mirror, set(await _mirrored(mirror, hotkey))) for mirror in mirrors]
    for index in sorted(own.union(*(held for _, held in copies))):
        seen: set[bytes] = set()
        if index in own:
            data = await store.get(block_key(hotkey, index))
            seen.add(data)
            yield data
        for mirror, held in copies:
            if index in held and (copy := await _copy(mirror, hotkey, index)) and copy not in seen:
                seen.add(copy)
                yield copy


async def _indices(store: ObjectStore, hotkey: str) -> list[int]:
    """The indices of the blocks in a store. One that has no listing is asked for one block after another."""
    try:
        keys = await store.list(hotkey)
    except StorageUnavailable:
        raise
    except StorageError:
        index = 0
        while await store.exists(block_key(hotkey, index)):
            index += 1
        return list(range(index))
    return [found for key in keys if (found := index_of(key, hotkey)) is not None]


async def _mirrored(mirror: ObjectStore, hotkey: str) -> list[int]:
    try:
        return await _indices(mirror, hotkey)
    except StorageError:
        return []


async def _copy(mirror: ObjectStore, hotkey: str, index: int) -> bytes | None:
    """What a mirror holds as this block, if the validator has signed it as such."""
    try:
        data = await mirror.get(block_key(hotkey, index))
        header = read_block(data).header
    except (StorageError, EvidenceError):
        return None
    return data if (header.validator_hotkey, header.block_index) == (hotkey, index) else None
