"""Which patch is meant by the beginning of an id: never one that nobody named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.cli.heart_reviews import the_one
from chimera.core.errors import InputError

IDS = ("0123abcd" * 4, "0123ffff" * 4, "fedc0000" * 4)


@pytest.mark.parametrize("beginning", ["fedc", "FEDC0", "fedc0000" * 4])
def test_the_beginning_of_an_id_will_do(beginning: str) -> None:
    assert the_one(beginning, IDS) == IDS[2]


@pytest.mark.parametrize(
    ("beginning", "said"),
    [
        ("", "give at least 4 of its 32 hex digits"),
        ("fed", "give at least 4"),
        ("../x", "is no id"),
        ("fedc0000" * 5, "is no id"),
        ("0123", "2 patches begin with 0123: 0123abcd.*give more"),
        ("aaaa", "no patch whose id begins with aaaa waits: 0123abcd"),
    ],
)
def test_whatever_names_none_or_several_says_so(beginning: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        the_one(beginning, IDS)


def test_an_empty_variable_agrees_to_nothing_though_just_one_waits() -> None:
    with pytest.raises(InputError):
        the_one("", IDS[:1])
    with pytest.raises(InputError, match="none does"):
        the_one("0123", ())


@given(st.text(max_size=40), st.lists(st.text("0123456789abcdef", min_size=32, max_size=32), max_size=4, unique=True))
def test_what_is_meant_waits_and_begins_so(beginning: str, ids: list[str]) -> None:
    try:
        found = the_one(beginning, ids)
    except InputError:
        return
    assert found in ids and found.startswith(beginning.lower()) and len(beginning) >= 4
