"""Names of challenges: one for each, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from chimera.arena.canonical import MAX_INT
from chimera.arena.types import ChallengeId
from chimera.arena.validators.challenges import MAX_SHARED, Own, Shared, own_id, parse, shared_id
from chimera.core.errors import InputError

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
RANDOM = "0123456789abcdef" * 4


@given(st.integers(0, MAX_INT))
def test_an_own_challenge_is_read_back(counter: int) -> None:
    name = own_id(HOTKEY, counter)
    assert parse(name) == Own(HOTKEY, counter)
    assert TypeAdapter(ChallengeId).validate_python(name) == name


@given(st.integers(0, MAX_INT), st.binary(min_size=32, max_size=32), st.integers(0, MAX_SHARED - 1))
def test_a_shared_challenge_is_read_back(round: int, randomness: bytes, index: int) -> None:
    name = shared_id(round, randomness.hex(), index)
    assert parse(name) == Shared(round, randomness.hex(), index)
    assert TypeAdapter(ChallengeId).validate_python(name) == name


@given(
    st.from_regex(r"(own/[5G]{46,48}/[0-9]{1,17}|beacon/[0-9]{1,17}/[0-9a-fA-F]{63,65}/[0-9]{1,4})\n?", fullmatch=True)
)
def test_a_challenge_has_one_name(text: str) -> None:
    match parse(text):
        case Own(hotkey, counter):
            assert own_id(hotkey, counter) == text
        case Shared(round, randomness, index):
            assert shared_id(round, randomness, index) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seed:1",
        "own/1",
        f"own/{HOTKEY}",
        f"own/{HOTKEY}/",
        f"own/{HOTKEY}/01",
        f"own/{HOTKEY}/-1",
        f"own/{HOTKEY}/+1",
        f"own/{HOTKEY}/1 ",
        f"own/{HOTKEY}/1\n",
        f"own/{HOTKEY}/١",
        f"own/{HOTKEY}/1/2",
        f"own/{HOTKEY[:40]}/1",
        f"own/{HOTKEY[:-1]}0/1",
        f"own/{HOTKEY}/{MAX_INT + 1}",
        f"OWN/{HOTKEY}/1",
        f"beacon/1/{RANDOM}",
        f"beacon/01/{RANDOM}/1",
        f"beacon/1/{RANDOM}/01",
        f"beacon/1/{RANDOM}/{MAX_SHARED}",
        f"beacon/1/{RANDOM.upper()}/1",
        f"beacon/1/{RANDOM[1:]}/1",
        f"beacon/{MAX_INT + 1}/{RANDOM}/1",
    ],
)
def test_nothing_else_is_a_name(text: str) -> None:
    assert parse(text) is None


def test_what_would_not_be_read_back_is_refused() -> None:
    for hotkey, counter in [("bob", 1), (HOTKEY, -1), (HOTKEY, MAX_INT + 1)]:
        with pytest.raises(InputError, match="names no challenge"):
            own_id(hotkey, counter)
    for round, randomness, index in [(-1, RANDOM, 0), (1, "ff", 0), (1, RANDOM, MAX_SHARED), (1, RANDOM, -1)]:
        with pytest.raises(InputError, match="names no challenge"):
            shared_id(round, randomness, index)
