"""Claims need a source: every sentence that says how the world is, its numbers and its names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.content.create.brief import Source
from chimera.content.create.claims import is_claim, normal, sentences, unsourced
from chimera.content.create.item import Claim
from chimera.content.create.length import length

QUOTE = "Solar generation rose by 24% in the first half of the year, the agency said on Monday."
SOURCE = Source(id="s1", url="https://example.org/a", title="Energy Weekly", quote=f"It was sunny. {QUOTE} Wind fell.")


def claim(text: str, quote: str = QUOTE, source: str = "s1") -> Claim:
    return Claim(text=text, source_ids=(source,), quote=quote)


@pytest.mark.parametrize(
    "sentence",
    [
        "Solar rose by a quarter.",
        "Prices were 3 dollars.",
        "The minister of Freedonia resigned.",
        "Tesla cut its prices.",
        "Researchers found a new way.",
        "It causes cancer.",
        "Everyone agrees with it.",
        "“It was a lie,” she told us.",
        "NASA is closing.",
        "Nobody was hurt on Friday.",
        "Twice as many are sick.",
        "The mayor took bribes.",
        "The vaccine makes people sterile.",
        "This drug kills children.",
        "It is safe for babies.",
        "Vaccines kill.",
        "Did you know the vaccine makes people sterile?",
        "Read how the vaccine makes people sterile.",
        "Good morning, the mayor took bribes.",
        "The mayor took bribes, right?",
        "Think the mayor is honest?",
    ],
)
def test_a_sentence_that_says_how_the_world_is_needs_a_source(sentence: str) -> None:
    assert is_claim(sentence)
    assert "needs a source" in (unsourced([sentence], [], [SOURCE]) or "")


@pytest.mark.parametrize(
    "sentence",
    "What do you think?|Read more below.|Worth a look!|#solar|🙂|Why so?|Tell us in the comments.|Come along!|Join us.|"
    "Good morning, neighbours!|Thanks for reading.|Would you like a tram to the harbour?|"
    "Have a look, and share it with a friend.".split("|"),
)
def test_questions_and_invitations_need_none(sentence: str) -> None:
    assert unsourced([sentence], [], [SOURCE]) is None


def test_a_claim_whose_quote_stands_in_its_source_passes() -> None:
    assert unsourced(["Solar grew by 24%. What do you think?"], [claim("Solar grew by 24%.")], [SOURCE]) is None


def test_white_space_and_typography_of_a_quote_do_not_matter() -> None:
    spaced = QUOTE.replace(" ", "\n ")
    assert unsourced(["Solar grew by 24%."], [claim("Solar grew by 24%.", spaced)], [SOURCE]) is None


@pytest.mark.parametrize(
    ("parts", "made", "why"),
    [
        (["Solar grew by 42%."], claim("Solar grew by 42%."), "the number 42"),
        (["Solar grew, says Smith."], claim("Solar grew, says Smith."), "the name Smith"),
        (["Solar grew by 24%."], claim("Solar grew by 24%.", QUOTE.replace("rose", "fell")), "does not stand"),
        (["Solar grew by 24%."], claim("Solar grew by 24%.", "rose by"), "too short"),
        (["Solar grew by 24%."], claim("Solar grew by 24%.", "lar generation rose by"), "does not stand"),
        (["Solar grew by 24%."], claim("Solar grew by 24%.", QUOTE, "s9"), "no source 's9'"),
        (["Solar grew by 24% and Jones was jailed."], claim("Solar grew by 24%"), "needs a source"),
        (["Solar grew by 24%.", "Wind won the war."], claim("Solar grew by 24%."), "needs a source"),
        (["Source: Some Other Paper"], claim("Nothing of it."), "needs a source"),
    ],
)
def test_what_goes_beyond_its_source_is_refused_with_the_sentence(parts: list[str], made: Claim, why: str) -> None:
    assert why in (unsourced(parts, [made], [SOURCE]) or "")


def source(quote: str, title: str = "The Daily", id: str = "s1") -> Source:
    return Source(id=id, url="https://example.org/b", title=title, quote=quote)


@pytest.mark.parametrize(
    ("text", "quote", "whole"),
    [
        ("Tesla recalled 300 cars in May.", "Ford recalled 300 cars in May", "Ford recalled 300 cars in May."),
        (
            "Tesla again recalled 300 red cars and vans.",
            "recalled 300 red cars",
            "Ford again recalled 300 red cars and vans.",
        ),
        ("The drug is approved for children.", "approved for children", "The drug is not approved for children."),
        ("The drug is approved for children.", "approved for children", "The drug isn’t approved for children."),
        ("The drug is not approved for adults.", "is approved for adults", "The drug is approved for adults."),
        (
            "Solar panels did cause the fire.",
            "cause the fire, they said",
            "Solar panels did not cause the fire, they said.",
        ),
        ("Anna won 3 games, Ben 2 games.", "Anna won 2 games, Ben 3 games", "Anna won 2 games, Ben 3 games."),
        ("The bank cut its rate by 5%.", "The bank raised its rate by 5%", "The bank raised its rate by 5%."),
        ("The central bank of Norway cut its key rate by 5% again on Monday.",)
        + ("The central bank of Norway raised its key rate by 5% again on Monday.",) * 2,
        ("Aspirin cures every known form of cancer within a week.",) + ("The drug is not approved.",) * 2,
        ("Aspirin cures every known form of cancer within a week.",) + ("The drug is approved.",) * 2,
        ("The town bought trees.", "trees. The town bought", "It has no trees. The town bought buses."),
    ],
)
def test_a_claim_that_twists_its_quote_is_refused(text: str, quote: str, whole: str) -> None:
    assert unsourced([text], [claim(text, quote)], [source(f"Some words come first. {whole} More of it.")])


@pytest.mark.parametrize(
    ("text", "quote"),
    [
        ("The bank increased its rate by 5%.", "The bank raised its rate by 5% on Friday, more than expected."),
        ("Ford has recalled 300 cars.", "Ford recalled 300 cars in May"),
        ("In May, Ford’s recall hit 300 cars and 20 new vans.", "Ford's recalls hit 300 cars and, in May, 20 vans."),
        ("It isn't approved for children.", "The drug is not approved for children."),
        ("The Daily says the mayor opened a school for 400 children.", "The mayor opens a school for 400 children"),
        ("Orders are delivered in five days.", "Orders are delivered within Europe in five days."),
    ],
)
def test_a_claim_in_other_words_that_says_the_same_passes(text: str, quote: str) -> None:
    assert unsourced([text], [claim(text, quote)], [source(f"Some words come first. {quote}")]) is None


def test_a_line_that_breaks_within_a_sentence_does_not_cut_its_negation_off() -> None:
    broken = source("The drug is not\napproved for children, they wrote.")
    assert unsourced(
        ["It is approved for children."], [claim("It is approved for children.", "approved for children")], [broken]
    )


def test_a_quote_must_stand_in_every_source_that_is_named() -> None:
    other = SOURCE.model_copy(update={"id": "s2", "quote": "Quite another text stands here."})
    both = Claim(text="Solar grew by 24%.", source_ids=("s1", "s2"), quote=QUOTE)
    assert "does not stand in source 's2'" in (unsourced(["Solar grew by 24%."], [both], [SOURCE, other]) or "")


def test_the_line_that_names_the_source_is_no_claim() -> None:
    assert unsourced([f"“{QUOTE}”\nSource: Energy Weekly"], [claim(f"“{QUOTE}”")], [SOURCE]) is None


@given(st.integers(100, 10**9))
def test_no_number_from_elsewhere_passes(number: int) -> None:
    text = f"Solar grew by {number} units."
    assert unsourced([text], [claim(text)], [SOURCE]) is not None
    assert unsourced([text], [], [SOURCE]) is not None


@given(st.text(max_size=300))
def test_sentences_lose_nothing_but_white_space(text: str) -> None:
    text = text.replace("\ue000", "").replace("\ue001", "")
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


def test_a_quotation_and_an_abbreviation_are_not_divided() -> None:
    assert sentences("“One. Two.” Three. Dr. Who came.") == ["“One. Two.”", "Three.", "Dr. Who came."]


@given(st.text(max_size=100), st.text(max_size=100))
def test_length_is_never_less_than_its_letters(one: str, other: str) -> None:
    assert length(one + other) <= length(one) + length(other)
    assert length(one) >= len([c for c in normal(one) if c.isalnum() and len(c.encode()) == 1 and c in one])


def test_a_short_link_counts_as_the_platform_counts_it() -> None:
    assert length("https://a.example/x", 23) == 23
    assert length("e\u0301") == 1
