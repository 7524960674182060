"""Limits of what comes in: size, depth and count, known before anything is built."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.security.gateway.limits import Limits, strings

LIMITS = Limits(text_chars=50, json_bytes=200_000, depth=4, items=10, key_chars=5)

LEAVES = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", max_size=5), inner))


@given(VALUES)
def test_what_is_within_the_limits_is_read_as_it_is(value: object) -> None:
    assert Limits().json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"[[[[[1]]]]]", "deeper than 4"),
        (b'{"a":' * 5 + b"1" + b"}" * 5, "deeper than 4"),
        (b"[" * 100_000, "deeper than 4"),
        (b"[1,2,3,4,5,6,7,8,9,10,11]", "more than 10 values"),
        (b'["' + b"a" * 51 + b'"]', "too long"),
        (b'{"abcdef": 1}', "at most 5 characters"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "64 digits"),
        (b"[" + b"9" * 65 + b"]", "64 digits"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[1", "not JSON"),
        (b'["\\ud800"]', "surrogate"),
        (b" " * 200_001, "200001 bytes"),
        (b'"' + b'\\"' * 90_000, "not JSON"),
    ],
)
def test_what_passes_a_limit_is_refused_with_a_reason(document: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        LIMITS.json(document)


def test_brackets_in_a_string_are_no_depth() -> None:
    assert LIMITS.json(b'["[[[[[[{{{{{\\"[[[["]') == ['[[[[[[{{{{{"[[[[']


def test_a_text_is_taken_up_to_its_limit_and_never_cut() -> None:
    assert LIMITS.text("a" * 50) == "a" * 50
    with pytest.raises(InputError, match="51 characters"):
        LIMITS.text("a" * 51)
    with pytest.raises(InputError, match="surrogate"):
        LIMITS.text("a\udc00")


def test_every_text_of_a_value_is_found_names_too() -> None:
    assert sorted(strings({"a": ["b", {"c": 1, "d": "e"}]})) == ["a", "b", "c", "d", "e"]
