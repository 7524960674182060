"""Any choice that sums to the target is right, and no other: over all 4,096 choices, and over forged ones."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.envs import challenge as rules
from chimera.arena.envs.subset import SIZE, Subset, SubsetEnv

NUMBERS = [10, 20, 30, 40, 50, 60, 70, 80, 90, 11, 12, 13]


def judged(text: str, numbers: list[int] | None = None, planted: list[int] | None = None) -> str:
    play = Subset(numbers or NUMBERS, planted or [10, 20, 30])
    play.reply(text)
    assert play.verdict is not None and play.verdict.ok == (not play.verdict.reason)
    return play.verdict.reason


def dealt(seed: int) -> Subset:
    play = rules.deal(Subset, f"seed:{seed}")
    assert isinstance(play, Subset)
    return play


@pytest.mark.parametrize("seed", range(3))
def test_of_all_choices_those_are_right_that_sum_to_the_target(seed: int) -> None:
    numbers, target = dealt(seed).numbers, dealt(seed).target
    right = 0
    for size in range(1, SIZE + 1):
        for chosen in combinations(numbers, size):
            play = dealt(seed)
            play.reply(" ".join(map(str, chosen)))
            assert play.verdict is not None
            assert play.verdict.ok == (sum(chosen) == target)
            right += play.verdict.ok
    assert right > 1


def test_the_order_does_not_matter() -> None:
    assert judged("30 10 20") == judged("\n60 ") == judged("10 50") == ""


@pytest.mark.parametrize("text", ["30 30", "10 10 40", "20 20 20"])
def test_no_number_is_chosen_twice(text: str) -> None:
    assert judged(text) == "a number is chosen twice"


@pytest.mark.parametrize("text", ["25 35", "10 21 29"])
def test_no_number_is_brought_along(text: str) -> None:
    assert judged(text) == "a number is chosen that is not there"


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "10,50", "10  50", "10\n50", "10 + 50", "10 50.", "10 50 \x00"),
        *("010 50", "+10 50", "１０ 50", "0 60", "60 0", "-10 70"),
    ],
)
def test_there_is_one_way_to_write_a_choice(text: str) -> None:
    assert judged(text) == "the reply is not some of the numbers with one space between them"


@given(st.text(alphabet="0123456789 \n-+,") | st.text())
def test_no_text_is_right_that_is_not_a_choice_with_the_sum(text: str) -> None:
    if judged(text) == "":
        chosen = [int(number) for number in text.split()]
        assert len(chosen) == len(set(chosen)) and set(chosen) <= set(NUMBERS) and sum(chosen) == 60


@given(st.integers(0, 10**6))
def test_what_is_dealt_has_an_answer(seed: int) -> None:
    play = dealt(seed)
    assert len(set(play.numbers)) == SIZE
    assert all(10 <= number <= 99 for number in play.numbers)
    play.reply(play.gold())
    assert play.verdict is not None and play.verdict.ok
    assert set(play.public()) == {"numbers", "target"}


def test_an_action_chooses_by_place() -> None:
    env = SubsetEnv()
    observed, _ = env.reset(seed=1)
    chosen = [int(number) for number in env.challenge.gold().split()]
    action = env.action_space.sample() * 0
    for number in chosen:
        action[observed.tolist().index(number)] = 1
    assert env.step(action)[1] == 1.0
