"""Canonical JSON and digests do not depend on the order of keys, on the process or on PYTHONHASHSEED."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from chimera.core.hashing import canonical_json, digest

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reordered(value: Any) -> Any:
    """The same value with every mapping built in the opposite order."""
    if isinstance(value, dict):
        return {key: reordered(inner) for key, inner in reversed(value.items())}
    return [reordered(inner) for inner in value] if isinstance(value, list) else value


@given(values)
def test_the_order_of_keys_does_not_count(value: Any) -> None:
    assert canonical_json(reordered(value)) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@given(st.lists(st.integers(), min_size=2, unique=True))
def test_the_order_of_a_list_counts(value: list[int]) -> None:
    assert digest(list[JsonValue](value)) != digest(list[JsonValue](value[::-1]))


def test_the_form_is_fixed() -> None:
    assert canonical_json({"b": [1, 2.0, None], "a": "é"}) == '{"a":"é","b":[1,2.0,null]}'
    assert digest({"b": 1, "a": 2}) == hashlib.blake2b(b'{"a":2,"b":1}', digest_size=16).hexdigest()
    assert len(digest("x", size_bytes=8)) == 16


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [{"a": -float("inf")}]])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(value)


def test_another_process_and_hash_seed_agree() -> None:
    code = "from chimera.core.hashing import digest; print(digest({k: [k] for k in {'one', 'two', 'three', 'four'}}))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()
        for seed in ("1", "2", "3")
    }
    assert seen == {digest({"one": ["one"], "two": ["two"], "three": ["three"], "four": ["four"]})}
