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

HASH_BYTES = 32


def encode(value: Any) -> bytes:
    """The canonical bytes of `value`. Raises EvidenceError for floats, huge integers, lone surrogates, deep nesting."""
    _refuse_floats(value, MAX_DEPTH)
    try:
        encoded: bytes = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError, ValueError, RecursionError) as error:
        raise EvidenceError(f"this cannot be evidence: {error}", "encoding") from error
    return encoded


def decode(data: bytes) -> Any:
    """The value whose canonical bytes are `data`, and none else's: read, written again, and compared.

    So a duplicate key, a float, a space or another order of keys is refused. Raises EvidenceError.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        raise EvidenceError(f"this is not canonical JSON: {error}", "encoding") from error
    if encode(value) != data:
        raise EvidenceError("this is not canonical JSON: written again it has other bytes", "encoding")
    return value


def digest(data: bytes) -> bytes:
    """BLAKE3 of `data`, 32 bytes."""
    return blake3(data).digest()


def _no_float(text: str) -> float:
    raise ValueError(f"{text} is not an integer")


def _refuse_floats(value: Any, depth: int) -> None:
    if value is None or isinstance(value, (bool, int, str)):
        return
    if depth == 0:
        raise EvidenceError(f"this cannot be evidence: nested deeper than {MAX_DEPTH}", "encoding")
    if isinstance(value, dict):
        for member in value.values():
            _refuse_floats(member, depth - 1)
    elif isinstance(value, (list, tuple)):
        for member in value:
            _refuse_floats(member, depth - 1)
    else:
        raise EvidenceError(
            f"this cannot be evidence: {type(value).__name__} values are not exact; use integers and strings",
            "encoding",
        )
