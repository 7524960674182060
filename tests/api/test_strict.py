"""JSON that can be read in two ways is not read; and how deep it is, is told without reading it, in one pass."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.api import strict
from chimera.api.bounds import too_deep
from chimera.core.errors import InputError

DEEP = 64


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.mark.parametrize(
    "made",
    [
        lambda n: b"[]" * 65 + b'"' + b'\\"' * n,
        lambda n: b"[]" * 65 + b"\\" * 2 * n,
        lambda n: b"[]" * 65 + b'"a' * n,
        lambda n: b"[]" * n,
    ],
)
def test_how_deep_a_body_is_takes_as_long_as_it_is_long(made: Callable[[int], bytes]) -> None:
    """A quadratic search takes a hundred times as long for ten times as much: hours for what may be sent."""
    small = min(_seconds(lambda: too_deep(made(20_000), DEEP)) for _ in range(3))
    large = min(_seconds(lambda: too_deep(made(200_000), DEEP)) for _ in range(3))
    assert large < 40 * small + 0.05


Values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('[]{}\\"a', max_size=6),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text('[]{}\\"b', max_size=4), inside, max_size=3),
    max_leaves=12,
)


def _depth(value: Any) -> int:
    if isinstance(value, dict | list):
        return 1 + max((_depth(each) for each in (value.values() if isinstance(value, dict) else value)), default=0)
    return 0


@settings(deadline=None, max_examples=150)
@given(Values, st.integers(0, 6))
def test_depth_is_told_without_parsing_as_it_is_by_parsing(value: Any, most: int) -> None:
    assert too_deep(json.dumps(value).encode(), most) is (_depth(value) > most)


@settings(deadline=None, max_examples=150)
@given(Values)
def test_json_that_says_one_thing_is_read_as_ever(value: Any) -> None:
    assert strict.loads(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text", [b'{"a":1,"a":1}', b"NaN", b'"\\ud800"', b'{"\\udc00":1}', b"[" * 100_000, b"9" * 5_000, b"\xff"]
)
def test_json_that_may_be_read_in_two_ways_is_not(text: bytes) -> None:
    with pytest.raises(InputError):
        strict.loads(text)
