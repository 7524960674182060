"""A Merkle tree: one hash for a list, and short proofs that an entry is in it.

The tree of RFC 6962, section 2.1 (the same in RFC 9162): a leaf is hashed behind a zero byte and a node behind a one,
so that no node passes for a leaf; an odd node goes up as it is and is never doubled, so that no two lists share a root.
The hash is BLAKE3; it is a parameter so that the RFC's own vectors, which are for SHA-256, can be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from chimera.arena import canonical

Hash: TypeAlias = Callable[[bytes], bytes]

_LEAF, _NODE = b"\x00", b"\x01"


def leaf_hash(data: bytes, *, digest: Hash = canonical.digest) -> bytes:
    """The hash of one entry, 32 bytes."""
    return digest(_LEAF + data)


def root(leaves: Sequence[bytes], *, digest: Hash = canonical.digest) -> bytes:
    """The hash of a list of entries, 32 bytes. `leaves` are the entries themselves, not their hashes."""
    if not leaves:
        return digest(b"")
    level = [leaf_hash(leaf, digest=digest) for leaf in leaves]
    while len(level) > 1:
        level = _above(level, digest)
    return level[0]


def inclusion_proof(leaves: Sequence[bytes], index: int, *, digest: Hash = canonical.digest) -> list[bytes]:
    """The hashes beside the path from entry `index` to the root, lowest first: at most ceil(log2(len(leaves))).

    Raises IndexError when there is no such entry.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(f"there are {len(leaves)} entries, and none has index {index}")
    level = [leaf_hash(leaf, digest=digest) for leaf in leaves]
    proof = []
    while len(level) > 1:
        if index ^ 1 < len(level):
            proof.append(level[index ^ 1])
        level, index = _above(level, digest), index // 2
    return proof


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes, *, digest: Hash = canonical.digest
) -> bool:
    """Whether `proof` shows that entry `index` of the `size` entries behind `root` is `leaf` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    hashed, last = leaf_hash(leaf, digest=digest), size - 1
    beside = iter(proof)
    while last:
        if index % 2 or index < last:  # else it is the odd one out, and goes up as it is
            sibling = next(beside, None)
            if sibling is None:
                return False
            hashed = digest(_NODE + sibling + hashed) if index % 2 else digest(_NODE + hashed + sibling)
        index, last = index // 2, last // 2
    return next(beside, None) is None and hashed == root


def _above(level: Sequence[bytes], digest: Hash) -> list[bytes]:
    """The level above: each pair becomes a node, and an odd one goes up as it is."""
    nodes = [digest(_NODE + left + right) for left, right in zip(level[::2], level[1::2], strict=False)]
    return nodes if len(level) % 2 == 0 else [*nodes, level[-1]]
