"""One validator's chain, read block by block: what is proved against it, or what its samples come to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Sequence
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
from chimera.core.errors import EvidenceError, ObjectMissing, StorageError, StorageUnavailable
from chimera.storage.objects import ObjectStore

MAX_GROUPS = 32_768
"""Duels of a validator, and as many shared slices of it, that are counted: 65 MB at the most. What goes beyond is not.

So much takes miners' ids of 256 characters, and is claimed by nobody where a merge is told the miners.
"""

MAX_ROUNDS = 1_024
"""Beacon rounds of a validator whose shared challenges are counted."""

TALLIES: dict[Outcome, Tally] = {"win": WIN, "loss": LOSS, "tie": TIE}

BITS: tuple[Bits, ...] = ((False, False), (False, True), (True, False), (True, True))
"""What a byte of a shared slice says of the champion and the contender; any other byte that it does not count."""

UNCOUNTED = len(BITS)


MAX_BLOCKS = 1_000_000
"""Blocks of one chain that are fetched."""

MAX_COPIES = 1_024
"""Copies of one block that are read."""

MAX_SAMPLES = 4_000_000
"""Samples in one chain, unless told otherwise: some five minutes of a core."""

MAX_BYTES = 8_000_000_000
"""Bytes of all blocks of one chain, unless told otherwise."""


class Slice(NamedTuple):
    """The shared challenges of one beacon round, between two miners in one environment."""

    pairing: Pairing
    round: int
    randomness: str


class Reading:
    """A chain in progress. Give it the bytes of each block, in order of their indices; several of one index are fine.

    Pairs in blocks from `since_s` on and before `until_s` (seconds since the epoch) are counted, up to `most` of a
    validator's own between two miners in one environment. `known` is the block that its chain had when it was last
    read. Reading ends with the first `offence`: a chain is good as a whole or not at all. One of more than
    `most_samples`, or `most_bytes`, is an offence: whoever reads it meets the same limit at the same block.

    Only `env_ids` and `miners` are judged and counted (default: all). Of any other pair the form and its turn are
    checked, and nothing of its environment, which need not be installed here.
    """

    def __init__(
        self,
        hotkey: str,
        *,
        known: Head | None = None,
        since_s: int = 0,
        until_s: int = MAX_INT,
        most: int,
        most_samples: int = MAX_SAMPLES,
        most_bytes: int = MAX_BYTES,
        env_ids: Collection[str] | None = None,
        miners: Collection[str] | None = None,
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
        self._samples_left = most_samples
        self._bytes_left = most_bytes
        self._env_ids = env_ids
        self._miners = miners
        self._lookup = lookup
        self._draws = Draws(hotkey)
        self._last: BlockHeader | None = None
        self._last_hash = ""
        self._copies = 0

    @property
    def head(self) -> Head | None:
        """The block to know the chain by from now on; that of an offender stays where it was."""
        if self.offence or self._last is None:
            return self._known
        return Head(index=self._last.block_index, hash=self._last_hash)

    def take(self, data: bytes) -> None:
        """Read the next block, unless there is an offence already. Raises StorageError for copies without end."""
        if self.offence:
            return
        try:
            self._take(data)
        except EvidenceError as error:
            self.offend(cast(FaultKind, error.reason) if error.reason in get_args(FaultKind) else "undecodable", error)

    def end(self) -> None:
        """There are no more blocks. What was drawn is forgotten, and only counts are kept."""
        self._draws = Draws(self.hotkey)
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
            self._take_copy(header)
            return
        check_link(self._last, header)
        self._copies = 0
        self._spend(len(block.samples), len(data))
        counted = self._since_s <= header.timestamp < self._until_s
        for champion, contender in zip(block.samples[::2], block.samples[1::2], strict=True):
            self._draws.take(champion, contender)
            if self._concerns(champion, contender):
                audit_sample(champion, lookup=self._lookup)
                audit_sample(contender, lookup=self._lookup)
                if counted:
                    self._count(champion, contender)
        self._last, self._last_hash = header, hashed

    def _take_copy(self, header: BlockHeader) -> None:
        self._copies += 1
        if self._copies > MAX_COPIES:
            raise StorageError(
                f"there are more than {MAX_COPIES} copies of block {header.block_index} of {self.hotkey}"
            )

    def _spend(self, samples: int, size: int) -> None:
        self._samples_left -= samples
        self._bytes_left -= size
        if self._samples_left < 0 or self._bytes_left < 0:
            raise EvidenceError("the chain is longer than a merge reads: go on under another hotkey", "limit")

    def _concerns(self, champion: Sample, contender: Sample) -> bool:
        return (self._env_ids is None or champion.env_id in self._env_ids) and (
            self._miners is None or (champion.miner_id in self._miners and contender.miner_id in self._miners)
        )

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


class _Shelf:
    """The blocks of one hotkey in one store. One that has no listing is asked for one block after another."""

    def __init__(self, store: ObjectStore, hotkey: str) -> None:
        self._store = store
        self._hotkey = hotkey
        self._indices: list[int] | None = None
        self._ended = False

    async def open(self) -> None:
        """Raises StorageUnavailable."""
        try:
            keys = await self._store.list(self._hotkey)
        except StorageUnavailable:
            raise
        except StorageError:
            return
        self._indices = sorted(found for key in keys if (found := index_of(key, self._hotkey)) is not None)

    def after(self, index: int) -> int | None:
        """The next index that may be here; None if there is none."""
        if self._ended:
            return None
        if self._indices is None:
            return index + 1
        place = bisect_right(self._indices, index)
        return self._indices[place] if place < len(self._indices) else None

    def end(self) -> None:
        """Expect no more."""
        self._ended = True

    async def get(self, index: int) -> bytes | None:
        """What is stored as this block; None where it need not be. Raises StorageError."""
        if self.after(index - 1) != index:
            return None
        try:
            return await self._store.get(block_key(self._hotkey, index))
        except ObjectMissing:
            if self._indices is not None:
                raise
            self.end()
            return None

    async def copy(self, index: int) -> bytes | None:
        """What is stored as this block, if the validator has signed it as such. A store without any ends there."""
        try:
            data = await self.get(index)
            if data is None:
                return None
            header = read_block(data).header
            if (header.validator_hotkey, header.block_index) == (self._hotkey, index):
                return data
        except (StorageError, EvidenceError):
            pass
        if self._indices is None:
            self.end()
        return None


async def read_chain(store: ObjectStore, hotkey: str, mirrors: Sequence[ObjectStore] = ()) -> AsyncIterator[bytes]:
    """The blocks that a validator's store holds, in order of their index, one in memory at a time.

    `mirrors` are stores that may hold copies. One that differs, and that the validator has signed, comes as well: it
    shows a fork, or brings a block back that the validator's store has lost. What it has not signed is somebody else's
    garbage. Raises StorageError when the store cannot be read, or holds more than MAX_BLOCKS; mirrors that cannot be
    read are passed over.
    """
    own, copies = _Shelf(store, hotkey), [_Shelf(mirror, hotkey) for mirror in mirrors]
    await own.open()
    for mirror in copies:
        try:
            await mirror.open()
        except StorageError:
            mirror.end()
    index, fetched = -1, 0
    while following := [found for shelf in (own, *copies) if (found := shelf.after(index)) is not None]:
        index, fetched = min(following), fetched + 1
        if fetched > MAX_BLOCKS:
            raise StorageError(f"there are more than {MAX_BLOCKS} blocks of {hotkey}, and no more are read")
        seen: set[bytes] = set()
        if data := await own.get(index):
            seen.add(data)
            yield data
        for mirror in copies:
            if (copy := await mirror.copy(index)) and copy not in seen:
                seen.add(copy)
                yield copy
