"""Challenges are the same everywhere: published vectors, fixed draws, and no number likelier than another."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.randomness import MAX_SEED, Stream, seed_of


class Fed(Stream):
    """A stream of given bytes."""

    def __init__(self, data: bytes) -> None:
        super().__init__("fed-v0", 0)
        self.data = data

    def bytes(self, count: int) -> bytes:
        if len(self.data) < count:
            raise EOFError
        drawn, self.data = self.data[:count], self.data[count:]
        return drawn


def test_the_extendable_output_has_the_published_vector() -> None:
    """From test_vectors.json of the BLAKE3 reference implementation, input_len 0, derive_key."""
    context = "BLAKE3 2019-12-27 16:29:52 test vectors context"
    published = (
        "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d905630c8be290dfcf3e6842f13bddd57"
        "3c098c3f17361f1f206b8cad9d088aa4a3f746752c6b0ce6a83b0da81d59649257cdf8eb3e9f7d4998e41021fac119de"
        "efb896224ac99f860011f73609e6e0e4540f93b273e56547dfd3aa1a035ba6689d89a0"
    )
    hasher = blake3(b"", derive_key_context=context)
    assert hasher.digest(131).hex() == published
    assert hasher.digest(31, seek=100).hex() == published[200:]


def test_draws_are_what_they_have_always_been() -> None:
    """To change these is to change every challenge there ever was."""
    stream = Stream("mult8-v0", 42)
    assert stream.bytes(8).hex() == "19caeabd659155b2"
    assert [stream.below(10) for _ in range(8)] == [2, 4, 2, 5, 7, 8, 1, 7]
    assert stream.shuffled("abcdef") == ["a", "b", "e", "f", "c", "d"]
    assert seed_of("own/5F3sa2TJAWMqDhXG6jhV4N8ko9SxwGy8TpaNS1repo5EYjQX/0") == 2552220312034206650


def test_a_draw_does_not_depend_on_how_the_bytes_before_were_asked_for() -> None:
    one, other = Stream("a-v0", 7), Stream("a-v0", 7)
    assert one.bytes(3) + one.bytes(200) + one.bytes(1) == other.bytes(204)


@pytest.mark.parametrize(("env_id", "seed"), [("a-v0", 8), ("b-v0", 7)])
def test_other_environments_and_other_seeds_have_other_streams(env_id: str, seed: int) -> None:
    assert Stream("a-v0", 7).bytes(32) != Stream(env_id, seed).bytes(32)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 10, 200, 257, 511])
def test_every_number_comes_of_equally_many_bytes(limit: int) -> None:
    """All 65,536 draws of two bytes: those that would make some numbers likelier are drawn again."""
    found: Counter[int] = Counter()
    for value in range(2**16):
        try:
            found[Fed(value.to_bytes(2, "big")).below(limit)] += 1
        except EOFError:
            continue
    assert sorted(found) == list(range(limit))
    assert set(found.values()) == {2**16 // limit}


def test_every_order_is_as_likely() -> None:
    found: Counter[tuple[str, ...]] = Counter()
    for first in range(3):
        for second in range(2):
            found[tuple(Fed(bytes([0, first, 0, second])).shuffled("abc"))] += 1
    assert found == Counter(permutations("abc"))


@given(st.integers(1, 10**40), st.integers(0, MAX_SEED))
def test_a_draw_is_below_its_limit(limit: int, seed: int) -> None:
    assert 0 <= Stream("a-v0", seed).below(limit) < limit


@given(st.integers(-(10**9), 10**9), st.integers(0, 10**6))
def test_bounds_are_included(low: int, width: int) -> None:
    assert low <= Stream("a-v0", 1).between(low, low + width) <= low + width
    assert Stream("a-v0", 1).between(low, low) == low


@pytest.mark.parametrize("limit", [0, -1])
def test_nothing_can_be_drawn_below_nothing(limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Stream("a-v0", 1).below(limit)


@given(st.integers(0, MAX_SEED))
def test_a_seed_names_a_challenge(seed: int) -> None:
    assert seed_of(f"seed:{seed}") == seed


@pytest.mark.parametrize(
    "challenge_id",
    [
        *("seed:007", "seed:", "seed:-1", "seed:+7", "seed:7 ", "seed:٧", "seed:1_0", "Seed:7"),
        *(f"seed:{MAX_SEED + 1}", f"seed:{7:0>40}"),
    ],
)
def test_any_other_id_is_hashed(challenge_id: str) -> None:
    """So no two ids that people could write for the same number deal the same challenge."""
    assert seed_of(challenge_id) not in (7, 10, MAX_SEED + 1)
    assert 0 <= seed_of(challenge_id) <= MAX_SEED


@given(st.sets(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:/\-]{0,40}", fullmatch=True), min_size=2, max_size=20))
def test_different_ids_have_different_seeds(ids: set[str]) -> None:
    assert len({seed_of(challenge_id) for challenge_id in ids}) == len(ids)
