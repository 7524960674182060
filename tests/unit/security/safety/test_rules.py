"""Rules meet whole words in any disguise, say where, and cannot be made slow or unreadable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.security.safety.findings import Severity
from chimera.security.safety.rules import MAX_SLOTS, Rule, RuleBook
from chimera.security.safety.views import raw, readings, wordings
from tests.unit.security.safety.gate import findings, rules


def book(*phrases: str, unless: tuple[str, ...] = (), names: tuple[str, ...] = ()) -> RuleBook:
    rule = Rule(id="r", severity=Severity.BLOCK, advice="no", any=phrases, unless=unless)
    return RuleBook([rule], names)


def met(rule_book: RuleBook, text: str) -> list[str]:
    return [text[start:end] for _, start, end in rule_book.search(raw(text), lambda: None)]


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("buy now", "So BUY   now!", ["BUY   now"]),
        ("buy now", "buynow", []),
        ("buy now", "rebuy now", []),
        ("buy now", "buy nowhere", []),
        ("buy now", "buy it now", []),
        ("buy <2> now", "buy this thing now", ["buy this thing now"]),
        ("buy <2> now", "buy this very thing now", []),
        ("buy (it|the car) now", "buy the car now", ["buy the car now"]),
        ("buy* now", "buying now", ["buying now"]),
        ("we very? like it", "we like it, we very like it", ["we like it", "we very like it"]),
        ("we will not", "We'll not. We won't.", ["We'll not", "We won't"]),
        ("i am here", "I’m here", []),
        ("i am here", "I'm here", ["I'm here"]),
        ("straße", "straße", None),
        ("killer", "killlller", ["killlller"]),
        ("buy now", "buy. Now", ["buy. Now"]),
    ],
)
def test_phrases(phrase: str, text: str, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(ValidationError):
            book(phrase)
    else:
        assert met(book(phrase), text) == expected


def test_an_excuse_is_for_what_it_overlaps_only() -> None:
    one = book("kill (you|it)", unless=("do not kill you",))
    assert met(one, "kill you, do not kill you, kill it") == ["kill you", "kill it"]


def test_names_are_the_policys() -> None:
    one = book("this is {name}", "hello", names=("Acme Corp", "Jo"))
    assert met(one, "This is ACME corp, this is Jo, this is Joe") == ["This is ACME corp", "this is Jo"]
    assert met(book("this is {name}", "hello"), "this is name, hello") == ["hello"]


@pytest.mark.parametrize(
    "phrase",
    [
        "",
        "a",
        "<2> a",
        "a <2>",
        "a? b",
        "a b?",
        "a <7> b",
        "a <1> b <1> c <1> d <1> e",
        "(a|b",
        "a)b",
        "(a|)",
        "A b",
        "a.*b",
        "a+ b",
        "a b " + "c " * MAX_SLOTS,
        "[ab] c",
        "a {other}",
        "a*b c",
    ],
)
def test_a_phrase_that_cannot_be_read_says_so(phrase: str) -> None:
    with pytest.raises(ValidationError):
        book(phrase)


words = st.lists(st.sampled_from("buy now it a".split()), max_size=12)


@given(words)
def test_a_gap_is_what_counting_says(said: list[str]) -> None:
    """Against an oracle that tries every pair of words."""
    expected = any(
        said[i] == "buy" and said[j] == "now" for i in range(len(said)) for j in range(i + 1, min(i + 4, len(said)))
    )
    assert bool(met(book("buy <2> now"), " ".join(said))) == expected


@pytest.mark.parametrize(
    "text",
    [
        "kill yourself",
        "K1LL Y0UR$ELF",
        "k i l l  y o u r s e l f",
        "k i l l y o u r s e l f",
        "k.i.l.l yourself",
        "kіll уоursеlf",
        "ｋｉｌｌ ｙｏｕｒｓｅｌｆ",
        "ki\u200bll your\u00adself",
        "kill&nbsp;yourself",
        "killllll yourself",
        "kill\n\n  yourself",
    ],
)
def test_disguises_do_not_help(text: str) -> None:
    assert "self-harm.encouragement" in rules(f"so {text} now")
    [one] = [one for one in findings(f"so {text} now") if one.rule == "self-harm.encouragement"]
    assert one.span == (3, 3 + len(text))


@pytest.mark.parametrize(
    "text", ["kill <b>your</b>self", "ki<!-- x -->ll yourself", "k<i></i>ill your<span>self</span>"]
)
def test_tags_do_not_help(text: str) -> None:
    assert "self-harm.encouragement" in rules(text, media_type="text/html")


@pytest.mark.parametrize(
    "text", ["i will " * 20_000, "buy " * 40_000, "a" * 200_000, "i will " + "x" * 200_000, "k i " * 50_000]
)
def test_a_hostile_text_costs_few_steps(text: str) -> None:
    """Every word is looked at by a phrase at most as often as its gaps can be filled."""
    one = book("(i|we) will <6> (i|we) will <6> (i|we) nope", "buy <6> buy <6> buy <6> nope", "a b")
    for view in wordings(readings(raw(text))):
        assert list(one.search(view, lambda: None)) == []
