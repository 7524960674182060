"""Blocks of evidence: samples under a Merkle root, each header signed and linked to the one before.

The signature is over `chimera.arena.block.v1` and a line feed, then the canonical bytes of the header without its
signature: no other message of a hotkey's begins so, and a transaction is never as long without being hashed first.
The hash of a block is that of the same bytes without the line in front: it is known before the block is signed, and
stays when it is signed again (sr25519 signatures are random).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from bittensor_core import Keypair
from pydantic import ValidationError

from chimera.arena import merkle
from chimera.arena.canonical import digest, encode, encode_info
from chimera.arena.types import MAX_BLOCK_BYTES, MAX_BLOCK_SAMPLES, Block, BlockHeader, Sample
from chimera.core.clock import Clock
from chimera.core.errors import EvidenceError, ObjectExists, StorageError
from chimera.storage.objects import ObjectStore

GENESIS_HASH = "0" * 64
"""`prev_hash` of a chain's first block."""

SIGNING_PREFIX = b"chimera.arena.block.v1\n"

HEADER_BYTES = 1_000
"""More than a header and what stands around it ever takes."""

MAX_SKEW_S = 300
"""How far ahead of the clock a chain's last block may be dated before nothing is appended any more."""

_KEY = re.compile(r"([1-9A-HJ-NP-Za-km-z]{46,50})/([0-9]{12})\.json")


class Signer(Protocol):
    """A hotkey that can sign: `bittensor_core.Keypair` is one."""

    @property
    def ss58_address(self) -> str:
        """The public key as an SS58 address of network 42."""
        ...

    def sign(self, message: bytes) -> bytes:
        """An sr25519 signature, 64 bytes."""
        ...


def block_key(hotkey: str, index: int) -> str:
    """The key of a block's object, such as `HOTKEY/000000000007.json`."""
    return f"{hotkey}/{index:012d}.json"


def index_of(key: str, hotkey: str) -> int | None:
    """The index of the block that is kept under `key`; None if it is none of this hotkey's."""
    found = _KEY.fullmatch(key)
    return int(found[2]) if found and found[1] == hotkey else None


def unsigned_bytes(header: BlockHeader) -> bytes:
    """The canonical bytes of a header without its signature."""
    return encode(header.model_dump(exclude={"signature"}))


def block_hash(header: BlockHeader) -> str:
    """The hash of a block, 64 hex digits: BLAKE3 of its unsigned header."""
    return digest(unsigned_bytes(header)).hex()


def seal(samples: Sequence[Sample], *, prev_hash: str, index: int, timestamp: int, signer: Signer) -> Block:
    """A signed block of whole pairs. Raises EvidenceError for samples that are none, too many, or too large."""
    _check_pairs(samples)
    header = BlockHeader(
        prev_hash=prev_hash,
        block_index=index,
        timestamp=timestamp,
        validator_hotkey=signer.ss58_address,
        merkle_root=merkle.root(_leaves(samples)).hex(),
    )
    signature = signer.sign(SIGNING_PREFIX + unsigned_bytes(header)).hex()
    return Block(header=header.model_copy(update={"signature": signature}), samples=tuple(samples))


def cut(samples: Sequence[Sample], most_pairs: int) -> Iterator[list[Sample]]:
    """Samples, which are pairs, in parts that fit into a block each: at most `most_pairs`, and not too many bytes."""
    part, size = list[Sample](), 0
    for champion, contender in zip(samples[::2], samples[1::2], strict=True):
        pair = [champion, contender]
        taken = sum(len(leaf) + 1 for leaf in _leaves(pair))
        if part and (len(part) >= 2 * most_pairs or size + taken > MAX_BLOCK_BYTES - HEADER_BYTES):
            yield part
            part, size = [], 0
        part += pair
        size += taken
    if part:
        yield part


def encode_block(block: Block) -> bytes:
    """The canonical bytes of a block. Raises EvidenceError for more than 16 MB of them."""
    return _encoded(block.header, _leaves(block.samples))


def decode_block(data: bytes) -> Block:
    """The block whose canonical bytes are `data`: of no other bytes, well formed, whole pairs, and not yet believed.

    Raises EvidenceError: `limit`, `encoding`, `schema`.
    """
    return _decoded(data)[0]


def check_block(block: Block) -> None:
    """Raises EvidenceError unless the samples are pairs, and root (`merkle`) and signature (`signature`) are theirs."""
    _check_pairs(block.samples)
    _check_seal(block.header, _leaves(block.samples))


def read_block(data: bytes) -> Block:
    """`decode_block` and `check_block` at once, for less than the two of them. Raises EvidenceError as they do."""
    block, leaves = _decoded(data)
    _check_seal(block.header, leaves)
    return block


def check_signature(header: BlockHeader) -> None:
    """Raises EvidenceError (`signature`) unless the validator signed this header."""
    try:
        key = Keypair(ss58_address=header.validator_hotkey)
        named = key.ss58_address == header.validator_hotkey  # a key has an address for each network: only one counts
        signed = named and key.verify(SIGNING_PREFIX + unsigned_bytes(header), bytes.fromhex(header.signature))
    except ValueError:
        signed = False
    if not signed:
        raise EvidenceError(f"the signature is not that of {header.validator_hotkey}", "signature")


def check_link(previous: BlockHeader | None, header: BlockHeader) -> None:
    """Raises EvidenceError unless `header` may follow `previous`; None is before the first block.

    Reasons: `foreign` (another validator's), `gap` and `replay` (the index is too high, or was there before), `chain`
    (it follows another block), `time` (it is older than the one before).
    """
    index = 0 if previous is None else previous.block_index + 1
    if previous is not None and header.validator_hotkey != previous.validator_hotkey:
        raise EvidenceError(f"it is of {header.validator_hotkey}, the one before of another validator", "foreign")
    if header.block_index != index:
        reason = "gap" if header.block_index > index else "replay"
        raise EvidenceError(f"it says that it is block {header.block_index}; block {index} is due", reason)
    if header.prev_hash != (GENESIS_HASH if previous is None else block_hash(previous)):
        raise EvidenceError(f"its prev_hash is not the hash of the block before block {index}", "chain")
    if previous is not None and header.timestamp < previous.timestamp:
        raise EvidenceError(f"it is older, at {header.timestamp}, than the one before, at {previous.timestamp}", "time")


class Chain:
    """A validator's own chain in a store. Nothing in it is ever overwritten, so two processes cannot fork it.

    `clock` gives the blocks' times, which never go back.
    """

    def __init__(self, signer: Signer, store: ObjectStore, clock: Clock) -> None:
        self.hotkey = signer.ss58_address
        self._signer = signer
        self._store = store
        self._clock = clock
        self._head: BlockHeader | None = None
        self._opened = False
        self._unsettled: Block | None = None
        self._one_by_one = asyncio.Lock()

    @property
    def head(self) -> BlockHeader | None:
        """The last block's header; None in a chain that is empty, or was not opened yet."""
        return self._head

    @property
    def next_index(self) -> int:
        return 0 if self._head is None else self._head.block_index + 1

    async def open(self) -> None:
        """Find the head in the store, and read it. Raises EvidenceError when blocks are missing, or it is no block."""
        keys = await self._store.list(self.hotkey)
        indices = [index for key in keys if (index := index_of(key, self.hotkey)) is not None]
        for expected, index in enumerate(indices):
            if index != expected:
                raise EvidenceError(f"block {expected} of {self.hotkey} is missing: bring it back", "gap")
        self._head = (await self.read(len(indices) - 1)).header if indices else None
        self._unsettled = None
        self._opened = True

    async def read(self, index: int) -> Block:
        """The block of that index, checked. Raises EvidenceError, ObjectMissing."""
        block = read_block(await self._store.get(block_key(self.hotkey, index)))
        if (block.header.validator_hotkey, block.header.block_index) != (self.hotkey, index):
            raise EvidenceError(f"what is kept as block {index} of {self.hotkey} is another block", "chain")
        return block

    async def append(self, samples: Sequence[Sample]) -> Block:
        """Seal the samples, link the block to the head, and store it.

        After StorageUnavailable the block may be stored or not: append the same samples again, which never stores them
        twice. Anything else is refused until then. Raises EvidenceError for samples that make no block, StorageError,
        and ObjectExists when another process writes this chain: what is next is in its blocks, read them again.
        """
        async with self._one_by_one:
            if not self._opened:
                await self.open()
            block = self._unsettled or self._sealed(samples)
            if block.samples != tuple(samples):
                raise StorageError(f"block {self.next_index} may be stored or not: append its samples again first")
            data = encode_block(block)
            self._unsettled = block
            await self._create(self.next_index, data)
            self._unsettled, self._head = None, block.header
            return block

    def _sealed(self, samples: Sequence[Sample]) -> Block:
        now, head = int(self._clock.now()), self._head
        if head is not None and head.timestamp > now + MAX_SKEW_S:
            raise EvidenceError(
                f"the last block of {self.hotkey} is dated {head.timestamp - now} s ahead of this machine's clock:"
                " set the clock, or wait; a block that follows it would count in no round before",
                "time",
            )
        return seal(
            samples,
            prev_hash=GENESIS_HASH if head is None else block_hash(head),
            index=self.next_index,
            timestamp=now if head is None else max(now, head.timestamp),
            signer=self._signer,
        )

    async def _create(self, index: int, data: bytes) -> None:
        key = block_key(self.hotkey, index)
        try:
            await self._store.create(key, data)
        except ObjectExists:
            if await self._store.get(key) != data:  # else an earlier try was stored, and only its answer was lost
                self._unsettled, self._opened = None, False
                raise ObjectExists(f"another process writes the chain of {self.hotkey}: stop one of them") from None


def _decoded(data: bytes) -> tuple[Block, list[bytes]]:
    """A block, and the canonical bytes of its samples."""
    if len(data) > MAX_BLOCK_BYTES:
        raise EvidenceError(f"a block has at most {MAX_BLOCK_BYTES} bytes, not {len(data)}", "limit")
    try:
        block = Block.model_validate_json(data)
    except ValidationError as error:
        first: Any = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        reason = "encoding" if first["type"] == "json_invalid" else "schema"
        raise EvidenceError(f"this is not a block: {where:.200}: {first['msg']:.200}", reason) from None
    leaves = _leaves(block.samples)
    if _encoded(block.header, leaves) != data:
        raise EvidenceError("this is not a block's canonical JSON: written again it has other bytes", "encoding")
    _check_pairs(block.samples)
    return block, leaves


def _leaves(samples: Sequence[Sample]) -> list[bytes]:
    """The entries of the Merkle tree: each sample's canonical bytes."""
    for sample in samples:
        encode_info(sample.info)
    return [encode(sample.plain()) for sample in samples]


def _encoded(header: BlockHeader, leaves: Sequence[bytes]) -> bytes:
    """RFC 8785 of the two members, in order; the samples' bytes are taken as they are, to write them only once."""
    data = b'{"header":%b,"samples":[%b]}' % (encode(header.model_dump()), b",".join(leaves))
    if len(data) > MAX_BLOCK_BYTES:
        raise EvidenceError(f"a block has at most {MAX_BLOCK_BYTES} bytes, not {len(data)}: put fewer samples", "limit")
    return data


def _check_seal(header: BlockHeader, leaves: Sequence[bytes]) -> None:
    if merkle.root(leaves).hex() != header.merkle_root:
        raise EvidenceError("the Merkle root is not that of the samples", "merkle")
    check_signature(header)


def _check_pairs(samples: Sequence[Sample]) -> None:
    """Raises EvidenceError (`schema`, `limit`) unless the samples are pairs: champion, contender, one challenge."""
    if not 2 <= len(samples) <= MAX_BLOCK_SAMPLES or len(samples) % 2:
        raise EvidenceError(f"a block has 1..{MAX_BLOCK_SAMPLES // 2} pairs, not {len(samples)} samples", "limit")
    for index, (champion, contender) in enumerate(zip(samples[::2], samples[1::2], strict=True)):
        if (
            (champion.role, contender.role) != ("champion", "contender")
            or (champion.env_id, champion.challenge_id) != (contender.env_id, contender.challenge_id)
            or champion.miner_id == contender.miner_id
        ):
            raise EvidenceError(
                f"pair {index} is not a champion's and a contender's response to the same challenge", "schema"
            )
