from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from chimera.core.errors import ReplyError
from chimera.core.types import Equality, EqualityKind
from chimera.swarm.equality import anchors, canonical, key, number

EXACT, JSON, TEXT, NUMERIC = (
    Equality(kind=kind) for kind in (EqualityKind.EXACT, EqualityKind.JSON, EqualityKind.TEXT, EqualityKind.NUMERIC)
)

SAME = [
    (EXACT, {"a": 1, "b": [None]}, {"b": [None], "a": 1}),
    (JSON, 1, 1.0),
    (JSON, 0, -0.0),
    (JSON, 2**60, float(2**60)),
    (JSON, {"a": [1, {"b": 2.0}]}, {"a": [1.0, {"b": 2}]}),
    (TEXT, "Yes", "  yes\n"),
    (TEXT, "STRASSE", "straße"),
    (TEXT, "the  red\tfox", "The Red Fox"),
    (TEXT, "\uff39\uff25\uff33", "yes"),
    (TEXT, "caf\u00e9", "CAFE\u0301"),
    (TEXT, "\ufb01ne", "fine"),
    (TEXT, True, "TRUE"),
    (TEXT, 12, "12"),
    (TEXT, None, "null"),
    (NUMERIC, 42, "42"),
    (NUMERIC, 42.0, " +42.00\n"),
    (NUMERIC, 0.1, "0.10"),
    (NUMERIC, 1000, "1e3"),
    (NUMERIC, 0, "-0.0"),
    (NUMERIC, 2**70 + 1, str(2**70 + 1)),
]

DIFFERENT = [
    (EXACT, 1, 1.0),
    (EXACT, 1, True),
    (EXACT, 1, "1"),
    (EXACT, 0.0, -0.0),
    (EXACT, "yes", "Yes"),
    (EXACT, [1, 2], [2, 1]),
    (JSON, 1, True),
    (JSON, 0, False),
    (JSON, [1], [True]),
    (JSON, 1, "1"),
    (JSON, None, "null"),
    (JSON, {"a": None}, {}),
    (JSON, 2**53, 2**53 + 1),
    (JSON, float(2**53), 2**53 + 1),
    (TEXT, "yes", "yes."),
    (TEXT, "a b", "ab"),
    (NUMERIC, 2**53, 2**53 + 1),
    (NUMERIC, 0.1, 0.1 + 2**-56),
]

NOT_COMPARABLE = [
    (EXACT, float("nan")),
    (EXACT, "\ud800"),
    (JSON, float("inf")),
    (JSON, {"a": [float("nan")]}),
    (TEXT, ["a"]),
    (TEXT, {"a": 1}),
    (TEXT, float("nan")),
    (NUMERIC, True),
    (NUMERIC, None),
    (NUMERIC, [1]),
    (NUMERIC, float("nan")),
    (NUMERIC, float("-inf")),
    (NUMERIC, "about 3"),
    (NUMERIC, "1,000"),
    (NUMERIC, "1_000"),
    (NUMERIC, "0x10"),
    (NUMERIC, "nan"),
    (NUMERIC, ""),
    (NUMERIC, "."),
    (NUMERIC, "1e999999999"),
    (NUMERIC, "9" * 5000),
    (NUMERIC, "\u0663"),
]


def form(value: JsonValue, equality: Equality) -> str:
    return key(canonical(value, equality))


@pytest.mark.parametrize(("equality", "one", "other"), SAME)
def test_spellings_of_one_value_are_the_same(equality: Equality, one: JsonValue, other: JsonValue) -> None:
    assert form(one, equality) == form(other, equality)


@pytest.mark.parametrize(("equality", "one", "other"), DIFFERENT)
def test_different_values_stay_apart(equality: Equality, one: JsonValue, other: JsonValue) -> None:
    assert form(one, equality) != form(other, equality)


@pytest.mark.parametrize(("equality", "value"), NOT_COMPARABLE)
def test_what_cannot_be_compared_is_a_reply_error(equality: Equality, value: JsonValue) -> None:
    with pytest.raises(ReplyError, match=f"under {equality.kind.value} equality"):
        canonical(value, equality)


def test_an_integer_too_long_to_write_down_is_a_reply_error() -> None:
    with pytest.raises(ReplyError):
        canonical(10**5000, NUMERIC)


def test_nesting_without_end_is_a_reply_error() -> None:
    value: JsonValue = 1
    for _ in range(200_000):
        value = [value]
    with pytest.raises(ReplyError):
        canonical(value, JSON)


def test_the_canonical_form_is_what_people_read() -> None:
    assert canonical("  The ANSWER ", TEXT) == "the answer"
    assert canonical({"b": 2.0, "a": [1.5, True]}, JSON) == {"a": [1.5, True], "b": 2}
    assert [canonical(value, NUMERIC) for value in ("3.50", 3.0, "12")] == [3.5, 3, 12]
    assert type(canonical(3.0, JSON)) is int
    assert type(canonical(3.0, EXACT)) is float


def test_the_canonical_form_shares_nothing_with_the_reply() -> None:
    inner: list[JsonValue] = [1]
    kept = canonical({"a": inner}, EXACT)
    inner.append(2)
    assert kept == {"a": [1]}


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(documents, scalars, numbers)
def test_a_canonical_form_is_its_own_canonical_form(document: JsonValue, scalar: JsonValue, figure: JsonValue) -> None:
    for value, equality in [(document, EXACT), (document, JSON), (scalar, TEXT), (figure, NUMERIC)]:
        once = canonical(value, equality)
        assert form(once, equality) == key(once)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.lists(numbers, min_size=2, max_size=6))
def test_numbers_are_compared_without_rounding(figures: list[float]) -> None:
    points = [number(canonical(figure, NUMERIC)) for figure in figures]
    for one, a in zip(figures, points, strict=True):
        for other, b in zip(figures, points, strict=True):
            assert (a == b) == (one == other)  # Python compares int with float exactly
            assert (a < b) == (one < other)


def groups(weights: dict[str, int], reach: str) -> dict[str, str]:
    return anchors(weights, {name: Fraction(name) for name in weights}, Fraction(reach))


def test_the_heaviest_number_absorbs_its_neighbours_and_the_rest_form_their_own_groups() -> None:
    assert groups({"1.0": 1, "1.1": 2, "1.2": 1, "1.3": 1}, "0.1") == {
        "1.0": "1.1",
        "1.1": "1.1",
        "1.2": "1.1",
        "1.3": "1.3",
    }


def test_a_number_exactly_as_far_away_as_the_tolerance_is_near() -> None:
    assert groups({"0.1": 2, "0.3": 1}, "0.2") == {"0.1": "0.1", "0.3": "0.1"}


def test_of_equally_heavy_numbers_the_smallest_is_the_anchor() -> None:
    assert groups({"3": 1, "2": 1, "1": 1}, "1") == {"1": "1", "2": "1", "3": "3"}
