"""Merkle trees: the vectors of Certificate Transparency, and proofs that hold for what is there and nothing else."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena import merkle

CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAF_2 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
LEAF_5 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
NODE_3_4 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
NODE_7_8 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
NODE_5_8 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
CT_PROOFS = [
    (0, 1, []),
    (0, 8, [LEAF_2, NODE_3_4, NODE_5_8]),
    (5, 8, [LEAF_5, NODE_7_8, CT_ROOTS[4]]),
    (2, 3, [CT_ROOTS[2]]),
    (1, 5, [CT_ROOTS[1], NODE_3_4, LEAF_5]),
]
"""Index from 0, size, and the path, as in the tests of google/certificate-transparency (there the index is from 1)."""

LEAVES = st.lists(st.binary(max_size=4), min_size=1, max_size=40)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def as_in_the_rfc(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word for word: split at the largest power of two smaller than n."""
    if len(leaves) < 2:
        return merkle.leaf_hash(leaves[0]) if leaves else merkle.root([])
    at = 1 << (len(leaves) - 1).bit_length() - 1
    return merkle.canonical.digest(b"\x01" + as_in_the_rfc(leaves[:at]) + as_in_the_rfc(leaves[at:]))


@pytest.mark.parametrize("size", range(9))
def test_published_roots(size: int) -> None:
    assert merkle.root(CT_LEAVES[:size], digest=sha256).hex() == CT_ROOTS[size]


@pytest.mark.parametrize(("index", "size", "path"), CT_PROOFS)
def test_published_proofs(index: int, size: int, path: list[str]) -> None:
    proof = merkle.inclusion_proof(CT_LEAVES[:size], index, digest=sha256)
    assert [each.hex() for each in proof] == path
    root = bytes.fromhex(CT_ROOTS[size])
    assert merkle.verify_inclusion(CT_LEAVES[index], index, size, proof, root, digest=sha256)


def test_the_default_hash_is_blake3() -> None:
    assert merkle.root([]).hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert merkle.leaf_hash(b"") == merkle.canonical.digest(b"\x00")


def test_an_odd_leaf_is_not_doubled() -> None:
    roots = {merkle.root(list(leaves)) for leaves in ([b"a", b"b", b"c"], [b"a", b"b", b"c", b"c"], [b"a", b"b"])}
    assert len(roots) == 3


def test_a_node_is_no_leaf() -> None:
    node = merkle.leaf_hash(b"a") + merkle.leaf_hash(b"b")
    assert merkle.root([node]) != merkle.root([b"a", b"b"])
    assert merkle.root([b"\x01" + node]) != merkle.root([b"a", b"b"])


@given(LEAVES)
def test_the_root_is_as_the_rfc_defines_it(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == as_in_the_rfc(leaves)


@given(LEAVES, LEAVES)
def test_other_entries_have_another_root(one: list[bytes], other: list[bytes]) -> None:
    assert (merkle.root(one) == merkle.root(other)) == (one == other)


@given(LEAVES, st.data())
def test_a_proof_holds_for_its_entry_and_nothing_else(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root, size = merkle.root(leaves), len(leaves)
    proof = merkle.inclusion_proof(leaves, index)
    assert merkle.verify_inclusion(leaves[index], index, size, proof, root)
    assert not merkle.verify_inclusion(leaves[index] + b"x", index, size, proof, root)
    assert not merkle.verify_inclusion(leaves[index], index, size, [*proof, root], root)
    assert not merkle.verify_inclusion(leaves[index], index, size, proof, merkle.leaf_hash(root))
    for other in range(-1, size + 1):
        if other != index:
            same = 0 <= other < size and leaves[other] == leaves[index]
            assert same or not merkle.verify_inclusion(leaves[index], other, size, proof, root)
    for at in range(len(proof)):
        assert not merkle.verify_inclusion(leaves[index], index, size, proof[:at] + proof[at + 1 :], root)
        changed = [*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]]
        assert not merkle.verify_inclusion(leaves[index], index, size, changed, root)


@pytest.mark.parametrize("index", [-1, 3])
def test_there_is_no_proof_of_what_is_not_there(index: int) -> None:
    with pytest.raises(IndexError, match="there are 3 entries"):
        merkle.inclusion_proof([b"a", b"b", b"c"], index)
    assert not merkle.verify_inclusion(b"a", index, 3, [], merkle.root([b"a"]))
