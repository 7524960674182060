"""Canonical bytes: BLAKE3's and RFC 8785's own vectors, one form for each value, and nothing else is read."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import rfc8785
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.canonical import (
    MAX_DEPTH,
    MAX_INFO_BYTES,
    MAX_INFO_NODES,
    MAX_NODES,
    decode,
    digest,
    encode,
    encode_info,
)
from chimera.core.errors import EvidenceError

CONTEXT = "BLAKE3 2019-12-27 16:29:52 test vectors context"

XOF_BYTES = 131

VECTORS = [
    (
        0,
        ("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262", "9a31c5363165421cce14d"),
        ("2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d", "aa1a035ba6689d89a0"),
    ),
    (
        1,
        ("2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213", "f1351f3f1da786545e5"),
        ("b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c", "bc9ae973a64f0c76551"),
    ),
    (
        1023,
        ("10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11", "cc09b6522d9c8d822f2f28f485"),
        ("74a16c1c3d44368a86e1ca6df64be6a2f64cce8f09220787450722d85725dea5", "b858f329c44ee64b884ef00d"),
    ),
    (
        1024,
        ("42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7", "ca170ba441427ed9afa684e"),
        ("7356cd7720d5b66b6d0697eb3177d9f8d73a4a5c5e968896eb6a689684302706", "e80a227251808d8ce5bad"),
    ),
    (
        1025,
        ("d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444", "d9595adb992ae68ff12800ab67a"),
        ("effaa245f065fbf82ac186839a249707c3bddf6d3fdda22d1b95a3c970379bcb", "8217cca46defa2751e7f3ad"),
    ),
]
"""From BLAKE3's test_vectors.json: the input's length, and for `hash` and `derive_key` the first 32 of 131 bytes and
the last digits of them."""

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(("length", "hashed", "derived"), VECTORS)
def test_published_blake3_vectors(length: int, hashed: tuple[str, str], derived: tuple[str, str]) -> None:
    data = bytes(i % 251 for i in range(length))
    assert digest(data).hex() == hashed[0]
    for start, (first, last) in ((blake3(data), hashed), (blake3(data, derive_key_context=CONTEXT), derived)):
        whole = start.digest(XOF_BYTES)
        assert whole.hex()[:64] == first
        assert whole.hex().endswith(last)
        assert b"".join(start.digest(1, seek=at) for at in range(XOF_BYTES)) == whole


def test_the_rfc_sorts_keys_by_utf_16() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    encoded = encode(dict.fromkeys(keys, 0))
    order = ["\\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert encoded.decode() == "{" + ",".join(f'"{key}":0' for key in order) + "}"


def test_the_rfc_escapes_what_it_must_and_nothing_else() -> None:
    assert encode('\u20ac$\u000f\nA\'B"\\"/\x7f') == b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\"/\x7f"'


@given(PLAIN)
def test_what_goes_in_comes_out_in_its_one_form(value: Any) -> None:
    encoded = encode(value)
    assert decode(encoded) == value
    assert encode(decode(encoded)) == encoded


@given(PLAIN)
def test_the_quick_way_is_the_rfc_s(value: Any) -> None:
    assert encode(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [0.0, 1.5, [float("nan")], {"a": float("inf")}, 2**53, -(2**53), "\ud800", {"\udfff": 1}, b"x", {1: 2}, {1, 2}],
    ids=str,
)
def test_what_is_not_exact_is_refused(value: Any) -> None:
    with pytest.raises(EvidenceError, match="cannot be evidence") as refusal:
        encode(value)
    assert refusal.value.reason == "encoding"


def test_nesting_has_a_limit() -> None:
    value: Any = 0
    for _ in range(MAX_DEPTH):
        value = [value]
    assert decode(encode(value)) == value
    with pytest.raises(EvidenceError, match="nested deeper"):
        encode([value])
    with pytest.raises(EvidenceError):
        decode(b"[" * 100_000 + b"]" * 100_000)


def test_members_have_a_limit_and_none_beyond_it_is_looked_at() -> None:
    for value in ([[]] * MAX_NODES, {"é": [0] * (MAX_NODES - 1)}, [[0]] * (MAX_NODES // 2)):
        assert decode(encode(value)) == value
        assert decode(encode([value], most_nodes=MAX_NODES + 1), most_nodes=MAX_NODES + 1) == [value]
        for refused in (partial(encode, [value]), partial(decode, encode([value], most_nodes=2 * MAX_NODES))):
            with pytest.raises(EvidenceError, match="more than 65536 members") as refusal:
                refused()
            assert refusal.value.reason == "limit"

    class Long(list[Any]):
        def __len__(self) -> int:
            return MAX_NODES + 1

        def __iter__(self) -> Any:
            raise AssertionError("looked at")

    with pytest.raises(EvidenceError, match="members"):
        encode(Long())


def test_an_info_is_small() -> None:
    fits = {"a": "x" * (MAX_INFO_BYTES - len('{"a":""}'))}
    assert encode_info(fits) == encode(fits)
    for info in ({"a": fits["a"] + "x"}, {"a": "é" * (MAX_INFO_BYTES // 2)}, {"a": [0] * MAX_INFO_NODES}):
        with pytest.raises(EvidenceError, match=r"at most 4096 bytes|more than 1024 members") as refusal:
            encode_info(info)
        assert refusal.value.reason == "limit"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"01",
        b"-0",
        b"1.0",
        b"1e3",
        b"1E400",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"9007199254740992",
        b"1" * 5_000,
        b" 1",
        b"1\n",
        b'{"a":1,"a":1}',
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'"\\u0041"',
        b'"\\/"',
        b'"\\u000F"',
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b"\xef\xbb\xbf1",
        b'"\n"',
        b"'a'",
        b"[1,]",
        b"1 2",
    ],
)
def test_no_other_form_is_read(data: bytes) -> None:
    with pytest.raises(EvidenceError, match=r"not canonical JSON|cannot be evidence") as refusal:
        decode(data)
    assert refusal.value.reason == "encoding"
