"""The exact product is right, written in the one way; nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.envs import challenge as rules
from chimera.arena.envs.mult8 import LEAST, MOST, Mult8, Mult8Env
from chimera.arena.envs.numerals import whole_number
from chimera.arena.types import Verdict

LEFT, RIGHT = 12_345_678, 87_654_321
PRODUCT = "1082152022374638"


def judged(text: str, left: int = LEFT, right: int = RIGHT) -> Verdict:
    play = Mult8(left, right)
    play.reply(text)
    assert play.verdict is not None
    assert play.score == int(play.verdict.ok)
    return play.verdict


@pytest.mark.parametrize("text", [PRODUCT, f" {PRODUCT}", f"{PRODUCT}\n", f"\r\n\t{PRODUCT} \t"])
def test_the_product_is_right_with_white_space_around_it(text: str) -> None:
    assert judged(text) == Verdict(ok=True)


@pytest.mark.parametrize(
    "text",
    [
        *(f"+{PRODUCT}", f"-{PRODUCT}", f"0{PRODUCT}", f"{PRODUCT}.", f"{PRODUCT}.0", f"{PRODUCT}e0"),
        *("1_082_152_022_374_638", "1,082,152,022,374,638", "1 082 152 022 374 638", hex(int(PRODUCT))),
        *(
            "１０８２１５２０２２３７４６３８",
            "١٠٨٢١٥٢٠٢٢٣٧٤٦٣٨",
            f"\u00a0{PRODUCT}",
            f"{PRODUCT}\u2003",
            f"\x0b{PRODUCT}",
        ),
        *(f"{PRODUCT}\x00", f"\ufeff{PRODUCT}", f"{PRODUCT} {PRODUCT}", f"{PRODUCT}\n{PRODUCT}", f"= {PRODUCT}"),
        *(f"'{PRODUCT}'", f"[{PRODUCT}]", "1.082152022374638e15", "NaN", "inf", "", " ", "\ud800", "9" * 60_000),
    ],
)
def test_any_other_way_to_write_it_is_wrong(text: str) -> None:
    assert judged(text) == Verdict(ok=False, reason="the reply is not a whole number of up to 16 digits")


@pytest.mark.parametrize("text", ["0100000000000000", "00", "1０0000000000000", "10000000000000٠", "٤"])
def test_neither_a_leading_zero_nor_another_script_is_read(text: str) -> None:
    """Of few enough digits, so that it is not their number that is refused."""
    assert not judged(text, LEAST, LEAST).ok
    assert judged(str(LEAST * LEAST), LEAST, LEAST).ok
    assert whole_number(text, 16) is None


@given(st.integers(LEAST, MOST), st.integers(LEAST, MOST), st.integers(-(10**17), 10**17))
def test_only_the_product_is_right(left: int, right: int, other: int) -> None:
    assert judged(str(left * right), left, right).ok
    assert judged(str(other), left, right).ok == (other == left * right)
    for near in (left * right - 1, left * right + 1, int(float(left * right) * (1 + 2**-52))):
        assert judged(str(near), left, right).ok == (near == left * right)


@given(st.text())
def test_no_text_is_right_that_is_not_the_product(text: str) -> None:
    assert judged(text).ok == (text.strip(" \t\r\n") == PRODUCT)


def test_both_factors_have_eight_digits_and_the_id_settles_them() -> None:
    plays = [rules.deal(Mult8, f"own/x/{number}") for number in range(300)]
    factors = [(play.left, play.right) for play in plays if isinstance(play, Mult8)]
    assert all(len(str(factor)) == 8 for pair in factors for factor in pair)
    assert len(set(factors)) == 300
    assert factors[0] == (36586046, 23400662)


def test_the_prompt_is_what_miners_have_always_been_told() -> None:
    assert Mult8(LEFT, RIGHT).prompt() == (
        "Compute 12345678 * 87654321\nReply with the exact product and nothing else: digits only, without separators."
    )


def test_info_holds_the_factors_and_not_the_product() -> None:
    env = Mult8Env()
    observed, info = env.reset(seed=3)
    assert observed.tolist() == [info["left"], info["right"]]
    assert set(info) == {"challenge_id", "left", "right"}
    assert env.challenge.gold() in env.action_space


@given(st.integers(0, 10**40), st.integers(1, 40))
def test_a_numeral_is_read_up_to_its_most_digits(number: int, most: int) -> None:
    assert whole_number(str(number), most) == (number if len(str(number)) <= most else None)
