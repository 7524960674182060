"""Compound questions and what their parts ask for."""

from __future__ import annotations

import pytest

from chimera.swarm.evidence.kinds import Kind, asked_kind, things
from chimera.swarm.evidence.question import MAX_PARTS, split_question
from chimera.swarm.evidence.words import content_stems, stems


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "Which dataset came from a study of diabetes patients, and how many features has it?",
            ("Which dataset came from a study of diabetes patients", "how many features has it?"),
        ),
        ("Who wrote it, and when, and where?", ("Who wrote it", "when", "where?")),
        ("How and when did it start?", ("How and when did it start?",)),
        ("Who fought the French, and lost?", ("Who fought the French, and lost?",)),
        ("What is bread, and whatever is wine?", ("What is bread, and whatever is wine?",)),
        ("  Why?  ", ("Why?",)),
        ("", ("",)),
    ],
)
def test_splits_only_what_is_plainly_joined(text: str, parts: tuple[str, ...]) -> None:
    assert split_question(text) == parts


def test_the_last_part_keeps_what_is_over_the_limit() -> None:
    parts = split_question(", and what ".join("abcdefghijkl"))
    assert len(parts) == MAX_PARTS
    assert parts[-1].endswith("what l")


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("When was it built?", Kind.DATE),
        ("In what year did she die?", Kind.DATE),
        ("How old was he when he won?", Kind.NUMBER),
        ("how many features has it?", Kind.NUMBER),
        ("What is the population of Warsaw?", Kind.NUMBER),
        ("Who came first?", Kind.NAME),
        ("Where is it?", Kind.NAME),
        ("What happens when it rains?", None),
        ("Why did they leave?", None),
        ("Tell me.", None),
    ],
)
def test_knows_what_kind_is_asked_for(question: str, kind: Kind | None) -> None:
    assert asked_kind(question) == kind


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        (Kind.DATE, "On 6 October 1973, in the 1950s and the 19th century", {"october", "1973", "1950", "century"}),
        (Kind.DATE, "They may go in May 2013", {"may", "2013"}),
        (Kind.DATE, "It has 1,200 parts", set()),
        (Kind.NUMBER, "In 1973 twelve men paid 3.5 of 1,200 on 12 May 1705", {"twelve", "3.5", "1,200"}),
        (Kind.NUMBER, "a dinner for 2000 guests", {"2000"}),
        (Kind.NUMBER, "One often eaten", set()),
        (Kind.NAME, "The first was James Dewar. Later it was Linde", {"james", "dewar", "linde"}),
    ],
)
def test_finds_things_of_a_kind(kind: Kind, text: str, found: set[str]) -> None:
    assert things(kind, text) == found


def test_stems_fold_case_accents_and_endings() -> None:
    assert stems("Z\u00dcRICH's Banks banking 1,200") == ["zurich", "s", "bank", "bank", "1,200"]


def test_content_stems_leave_stop_words_out_unless_there_is_nothing_else() -> None:
    assert content_stems("What is the name of the Bank of banks?") == ["name", "bank"]
    assert content_stems("Who is it?") == ["who", "is", "it"]
