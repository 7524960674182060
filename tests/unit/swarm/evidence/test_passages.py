"""Sentences, cut where a reader would cut them and quoted word for word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.types import Quote
from chimera.swarm.evidence.documents import Document, DocumentRef, list_documents, read_document
from chimera.swarm.evidence.formats import Line
from chimera.swarm.evidence.passages import MAX_PASSAGE_CHARS, split_passages, stands_in


def document(text: str, *, page: int | None = None) -> Document:
    lines = tuple(Line(i, line, page) for i, line in enumerate(text.split("\n"), start=1))
    return Document(DocumentRef("/docs/a.txt", "a.txt", len(text)), lines)


def texts(text: str) -> list[str]:
    return [passage.text for passage in split_passages(document(text))]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One is here. Two is there.", ["One is here.", "Two is there."]),
        ("Is it? Yes! 24 of them.", ["Is it?", "Yes!", "24 of them."]),
        ("Dr. Smith met J. R. Tolkien. They spoke.", ["Dr. Smith met J. R. Tolkien.", "They spoke."]),
        ("The U.S. Army left, e.g. Berlin.", ["The U.S. Army left, e.g. Berlin."]),
        ("Creator: R.A. Fisher", ["Creator: R.A. Fisher"]),
        (
            "See fig. 3 and no. 7 there. Was it no. That is all.",
            ["See fig. 3 and no. 7 there.", "Was it no.", "That is all."],
        ),
        ("Costs rose 3.5 percent. approx. nothing else", ["Costs rose 3.5 percent. approx. nothing else"]),
        ('He said "Go." She went.', ['He said "Go."', "She went."]),
        ("(It ended.) (Then not.)", ["(It ended.)", "(Then not.)"]),
        ("Wait... what? No... Yes.", ["Wait... what?", "No...", "Yes."]),
        ("\u4e00\u4e8c\u3002\u4e09\u56db\u3002", ["\u4e00\u4e8c\u3002", "\u4e09\u56db\u3002"]),
        ("\u00c9tat un. \u00c9tat deux.", ["\u00c9tat un.", "\u00c9tat deux."]),
    ],
)
def test_cuts_sentences(text: str, sentences: list[str]) -> None:
    assert texts(text) == sentences


def test_a_sentence_over_two_lines_is_cited_where_it_starts() -> None:
    found = split_passages(document("First one.\nSecond goes\n   on. Third.\n\nFourth."))
    assert [(p.text, p.line, p.paragraph) for p in found] == [
        ("First one.", 1, 0),
        ("Second goes on.", 2, 0),
        ("Third.", 3, 0),
        ("Fourth.", 5, 1),
    ]


def test_markup_makes_passages_of_their_own_and_headings_are_context() -> None:
    text = """.. _label:

Trees
-----

Oaks live
long.

:Number of Oaks: 12
:Number of Elms: 7

- an item
  that goes on
* another

=====  =====  ====
name   size   age
=====  =====  ====
oak    20     300
elm    30     200

.. image:: oak.png

# Birds #
1. robin
> quoted"""
    found = split_passages(document(text))
    assert [(p.text, p.heading) for p in found] == [
        ("Oaks live long.", "Trees"),
        (":Number of Oaks: 12", "Trees"),
        (":Number of Elms: 7", "Trees"),
        ("an item that goes on", "Trees"),
        ("another", "Trees"),
        ("name size age", "Trees"),
        ("oak 20 300", "Trees"),
        ("elm 30 200", "Trees"),
        ("robin", "Birds"),
        ("quoted", "Birds"),
    ]


def test_a_passage_has_a_largest_length_and_loses_nothing() -> None:
    words = " ".join(f"word{i}" for i in range(1_000))
    found = texts(words)
    assert max(map(len, found)) <= MAX_PASSAGE_CHARS
    assert " ".join(found) == words
    assert "".join(texts("x" * 2_500)) == "x" * 2_500


@pytest.mark.parametrize(
    "text",
    [
        "=-" * 200_000 + "x",
        "." * 400_000 + "x",
        "a  " * 200_000,
        "# a" + " " * 400_000 + "x",
        "A." * 200_000,
        "<" * 400_000,
    ],
    ids=["rule", "dots", "columns", "heading", "initials", "brackets"],
)
@pytest.mark.timeout(20)
def test_no_line_takes_long(text: str) -> None:
    whole = document(text)
    assert all(stands_in(passage.quote, whole) for passage in split_passages(whole)[:3])


def test_what_is_only_punctuation_is_no_passage() -> None:
    assert texts("---\n\n***\n\n...\n\n| |") == []


def test_every_passage_of_real_documents_stands_in_them() -> None:
    refs, _ = list_documents("package:sklearn/datasets/descr")
    read = [read_document(ref) for ref in refs]
    found = [(passage.quote, document) for document in read for passage in split_passages(document)]
    assert len(found) > 300
    assert all(stands_in(quote, document) for quote, document in found)


@given(st.text(alphabet="ab .!?\n\t-=:#*>\u00a0\u3002\u00c9(\"'1", max_size=300))
def test_every_passage_of_any_text_stands_in_it(text: str) -> None:
    whole = document(text)
    for passage in split_passages(whole):
        assert stands_in(passage.quote, whole)
        assert passage.text == " ".join(passage.text.split())


@pytest.mark.parametrize(
    ("change", "stands"),
    [
        ({}, True),
        ({"text": "Elms  are\ntrees  too."}, True),
        ({"text": "Elms are"}, True),
        ({"text": "are trees too. Birches"}, False),
        ({"text": "elms are trees too."}, False),
        ({"text": "Elms are not trees too."}, False),
        ({"text": "Oaks are trees."}, False),
        ({"text": ""}, False),
        ({"line": 1}, False),
        ({"line": 9}, False),
        ({"file": "b.txt"}, False),
        ({"page": 2}, False),
    ],
)
def test_a_quote_stands_only_word_for_word_and_in_its_place(change: dict[str, object], stands: bool) -> None:
    source = document("Oaks are trees.\nElms are\ntrees too.\n\nBirches as well.")
    quote = Quote.model_validate({"text": "Elms are trees too.", "file": "a.txt", "line": 2} | change)
    assert stands_in(quote, source) is stands


def test_a_quote_from_a_page_stands_on_that_page() -> None:
    source = document("Oaks are trees.", page=3)
    (passage,) = split_passages(source)
    assert passage.quote.page == 3
    assert stands_in(passage.quote, source)
    assert not stands_in(passage.quote.model_copy(update={"page": 2}), source)
