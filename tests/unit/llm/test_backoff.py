"""Pauses between rounds: within their bounds, spread over all of them, and never shorter than asked for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.llm.backoff import MAX_ROUNDS, Backoff

SECONDS = st.floats(0.0, 1e4)


@given(SECONDS, SECONDS, st.integers(2, MAX_ROUNDS), SECONDS, st.integers(), st.data())
def test_a_pause_is_within_its_bounds(
    base: float, more: float, rounds: int, asked: float, seed: int, data: st.DataObject
) -> None:
    backoff = Backoff(rounds=rounds, base_s=base, longest_s=base + more)
    failed = data.draw(st.integers(1, rounds - 1))
    pause = backoff.pause_s(failed, random.Random(seed), asked)
    assert pause is not None
    drawn = pause - asked
    assert -1e-9 <= drawn <= base + more + 1e-9
    assert drawn <= base * 2.0 ** (failed - 1) + 1e-9


@pytest.mark.parametrize("rounds", [1, 4, MAX_ROUNDS])
def test_there_is_an_end(rounds: int) -> None:
    backoff = Backoff(rounds=rounds)
    pauses = [backoff.pause_s(failed, random.Random(0)) for failed in range(1, rounds + 2)]
    assert [pause is None for pause in pauses] == [False] * (rounds - 1) + [True, True]


def test_jitter_is_full_and_grows_twofold() -> None:
    backoff, rng = Backoff(rounds=9, base_s=1.0, longest_s=8.0), random.Random(1)
    for failed, top in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0)):
        drawn = [backoff.pause_s(failed, rng) or 0.0 for _ in range(500)]
        assert min(drawn) < 0.05 * top
        assert 0.95 * top < max(drawn) <= top


@pytest.mark.parametrize(
    "bad", [{"rounds": 0}, {"rounds": MAX_ROUNDS + 1}, {"base_s": -1.0}, {"base_s": 9.0, "longest_s": 1.0}]
)
def test_bounds_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="rounds"):
        Backoff(**bad)  # type: ignore[arg-type]
