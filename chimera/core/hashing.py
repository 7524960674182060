"""Canonical JSON and digests: the same value has the same bytes in every process and under every PYTHONHASHSEED."""

from __future__ import annotations

import hashlib
import json

from pydantic import JsonValue


def canonical_json(value: JsonValue) -> str:
    """`value` as JSON with sorted keys and no spaces. Raises ValueError for NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: JsonValue, size_bytes: int = 16) -> str:
    """A hex BLAKE2b digest of the canonical JSON of `value` (RFC 7693)."""
    return hashlib.blake2b(canonical_json(value).encode(), digest_size=size_bytes).hexdigest()
