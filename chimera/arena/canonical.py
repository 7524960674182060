"""Canonical bytes and hashes: a value has one form, whoever writes it, and a hash of its own for each purpose.

RFC 8785 (`rfc8785`) over integers, strings, booleans and null: no floats, since they round. Integers beyond 2^53 are
kept as strings. Hashes are BLAKE3 (`blake3`), and there is no other.
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import rfc8785
from blake3 import blake3

from chimera.core.errors import EvidenceError

Plain: TypeAlias = bool | int | str | list["Plain"] | dict[str, "Plain"] | None
"""What canonical bytes can hold."""

MAX_DEPTH = 16

MAX_NODES = 65_536
"""Members of lists and objects in one value, unless told otherwise: many times those of a sample."""

MAX_INFO_NODES = 1_024

MAX_INFO_BYTES = 4_096
"""Canonical bytes of a sample's `info`."""

MAX_INT = 2**53 - 1
"""The greatest integer that RFC 8785 takes; a greater one is kept as a string."""


_PLAIN_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def encode(value: Any, *, most_nodes: int = MAX_NODES) -> bytes:
    """The canonical bytes of `value`.

    Raises EvidenceError for floats, huge integers, lone surrogates, deep nesting, and (`limit`) for more than
    `most_nodes` members of lists and objects, of which no more are looked at.
    """
    try:
        if _is_simple(
            value, MAX_DEPTH, _Count(most_nodes)
        ):  # the same bytes, five times as fast: RFC 8785 differs in floats and key order
            return _PLAIN_ENCODER.encode(value).encode()
        encoded: bytes = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError, ValueError, RecursionError) as error:
        raise EvidenceError(f"this cannot be evidence: {error}", "encoding") from error
    return encoded


def encode_info(info: Any) -> bytes:
    """The canonical bytes of a sample's `info`. Raises EvidenceError, as `encode` does, and for more than 4 KiB."""
    encoded = encode(info, most_nodes=MAX_INFO_NODES)
    if len(encoded) > MAX_INFO_BYTES:
        raise EvidenceError(f"an info has at most {MAX_INFO_BYTES} bytes, not {len(encoded)}", "limit")
    return encoded


def decode(data: bytes, *, most_nodes: int = MAX_NODES) -> Any:
    """The value whose canonical bytes are `data`, and none else's: read, written again, and compared.

    So a duplicate key, a float, a space or another order of keys is refused. Raises EvidenceError, as `encode` does.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        raise EvidenceError(f"this is not canonical JSON: {error}", "encoding") from error
    if encode(value, most_nodes=most_nodes) != data:
        raise EvidenceError("this is not canonical JSON: written again it has other bytes", "encoding")
    return value


def digest(data: bytes) -> bytes:
    """BLAKE3 of `data`, 32 bytes."""
    return blake3(data).digest()


def _no_float(text: str) -> float:
    raise ValueError(f"{text} is not an integer")


class _Count:
    """How many members of lists and objects may still come."""

    __slots__ = ("_left", "_most")

    def __init__(self, most: int) -> None:
        self._left = self._most = most

    def take(self, members: int) -> None:
        self._left -= members
        if self._left < 0:
            raise EvidenceError(f"this cannot be evidence: it has more than {self._most} members", "limit")


def _is_simple(value: Any, depth: int, count: _Count) -> bool:
    """Whether all keys are ASCII, which are in one order in UTF-8 and UTF-16, and all integers in RFC 8785's range.

    Raises EvidenceError for what is neither an integer, a string, a boolean, null, a list nor an object of them.
    """
    if value is None or isinstance(value, (bool, str)):
        return True
    if isinstance(value, int):
        return -MAX_INT <= value <= MAX_INT
    if depth == 0:
        raise EvidenceError(f"this cannot be evidence: nested deeper than {MAX_DEPTH}", "encoding")
    if isinstance(value, dict):
        count.take(len(value))
        simple = all(isinstance(key, str) and key.isascii() for key in value)
        for member in value.values():  # every one is looked at, for a float among them
            simple = _is_simple(member, depth - 1, count) and simple
        return simple
    if isinstance(value, (list, tuple)):
        count.take(len(value))
        simple = True
        for member in value:
            simple = _is_simple(member, depth - 1, count) and simple
        return simple
    raise EvidenceError(
        f"this cannot be evidence: {type(value).__name__} values are not exact; use integers and strings", "encoding"
    )
