"""Ordinary posts are let be, sensitive ones wait for a person, and likeness is of messages and not of manners."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.content.rules.identity import IdentityCheck
from chimera.content.rules.injected import InjectedCheck
from chimera.content.rules.sensitive import SensitiveCheck
from chimera.content.rules.similarity import Likeness, alike, likeness
from chimera.security.safety.findings import Output, Severity
from tests.unit.content.publish_house import account

CHECKS = (SensitiveCheck(), InjectedCheck(), IdentityCheck({"acme": account()}))

ORDINARY = """
Our new museum opens on Tuesday with 40 paintings. Read more at https://example.org
Vote for your favourite flavour of ice cream!
Shares her story of a farm in the years of the Great Depression.
Invest time in reading: three books for the long evenings.
How to prompt a language model: five tips from our engineers.
We are Acme. Our shop opens at nine.
You should try the new bicycle path along the canal.
Do not miss the concert on Friday; tickets are at the door.
The theatre's ballet season begins in October with Swan Lake.
Version 2.4 is out: faster start, fewer crashes, dark mode at last.
A comet will be seen with the naked eye this week, says the observatory.
The bakery on the corner has baked rye bread since 1921.
Time to plant garlic: push the cloves five centimetres deep.
The bridge is closed for repairs until March; buses go round by the mill.
Support for older phones ends in June. Please update before then.
The river rose by two metres last night and is falling again.
Join us for a walk through the old harbour on Sunday.
The cat in the window has a name now: Herbert.
Researchers counted 312 species of moths in the city park.
The library lends out tools as well: drills, saws and a sewing machine.
Python 3.13 brings a better shell and clearer error messages.
The chess club has elected a new board.
Act two of the opera was sung by the understudy, to long applause.
Vote for your favourite cake at the fair.
Invest an afternoon in your garden: the hedges will thank you.
Our share prices for the community vegetable boxes stay the same.
Siri and Alexa can now tell the tide at our harbour.
Our bot reads the tide tables every hour.
Note for gardeners: give the roses water in the evening.
This recipe needs two cups of flour, one of milk and some patience.
""".strip().splitlines()

NEUTRAL = [
    ("The election is on 4 November; polling stations open at 7, says the electoral office.", "sensitive.political"),
    ("Election of the new club treasurer.", "sensitive.political"),
    ("Parliament passed the budget with 312 votes, the agency reports.", "sensitive.political"),
    ("According to the WHO, everyone should get a flu vaccine.", "sensitive.health"),
    ("The trial found fewer symptoms in the second group, researchers wrote.", "sensitive.health"),
    ("Bitcoin closed at 60,000 dollars, the exchange reports.", "sensitive.finance"),
]


def rules(text: str) -> dict[str, Severity]:
    output = Output(text=text, channel="acme", audience="public", author="content")
    return {one.rule: one.severity for check in CHECKS for one in check.findings(output)}


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_post_is_let_be(text: str) -> None:
    assert rules(text) == {}


@pytest.mark.parametrize(("text", "rule"), NEUTRAL)
def test_neutral_information_waits_for_a_person(text: str, rule: str) -> None:
    assert rules(text) == {rule: Severity.REVIEW}


def test_ordinary_posts_are_not_alike() -> None:
    known = [likeness(text) for text in ORDINARY]
    assert not [1 for at, one in enumerate(known) for other in known[:at] if alike(one, other)]


@given(st.text(max_size=300))
def test_a_likeness_is_kept_and_a_text_is_like_itself(text: str) -> None:
    one = likeness(text)
    assert Likeness.from_bytes(one.to_bytes()) == one
    assert alike(one, one) or not one.words


@given(st.permutations(ORDINARY[0].split()))
def test_the_order_of_words_does_not_hide_a_message(words: list[str]) -> None:
    assert alike(likeness(" ".join(words)), likeness(ORDINARY[0]))
