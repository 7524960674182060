"""A view shows what a reader sees, and every character of it knows where it stood."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.security.safety.views import View, decoded, joined, plain, raw, readings, rebuilt, unleet, wordings

DISGUISED = "ab 1.-@\n&#64;%40\\u0061КіаеΑ\u200b\u00ad\u0301éﬁ１＠𝐚\u202e"
tricky = st.text(st.sampled_from(DISGUISED), max_size=40) | st.text(max_size=40)


@given(tricky)
def test_every_character_has_a_place(text: str) -> None:
    for view in wordings(readings(raw(text))):
        assert len(view.text) == len(view.starts) == len(view.ends)
        assert all(0 <= start < end <= len(text) for start, end in zip(view.starts, view.ends, strict=True))
        assert list(view.starts) == sorted(view.starts)
        assert list(view.ends) == sorted(view.ends)
        assert all(0 <= start < end <= len(view.text) for start, end in view.runs)


@given(tricky)
def test_what_a_view_keeps_stood_where_it_says(text: str) -> None:
    for view in readings(raw(text)):
        for at, char in enumerate(view.text):
            source = text[view.starts[at] : view.ends[at]]
            assert source == char or len(source) > 1 or plain(raw(source)).text.find(char) >= 0


@given(st.text("abc def", max_size=30))
def test_plain_letters_are_left_alone(text: str) -> None:
    view = raw(text)
    assert plain(view) is view
    assert decoded(view) is view


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("k\u200bi\u00adl\u2060l", "kill"),
        ("КІLL", "KILL"),
        ("ｋｉｌｌ", "kill"),
        ("𝓴𝒾𝔩𝕝", "kill"),
        ("ki\u0336l\u0336l\u0336", "kill"),
        ("４１１１", "4111"),
        ("٤١", "41"),
        ("bob＠corp․com", "bob@corp.com"),
        ("a\u3164b", "ab"),
        ("don’t", "don't"),
        ("a\u2014b", "a-b"),
    ],
)
def test_disguises(written: str, read: str) -> None:
    assert plain(raw(written)).text == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("a&#64;b &#x40; &amp;", "a@b @ &"),
        ("a%40b", "a@b"),
        (r"a\u0040b", "a@b"),
        ("tom (at) web [dot] de", "tom@web.de"),
        ("100% sure & 5%", "100% sure & 5%"),
    ],
)
def test_encodings(written: str, read: str) -> None:
    assert decoded(raw(written)).text == read


@pytest.mark.parametrize(
    ("written", "read", "runs"),
    [
        ("k i l l", "kill", ((0, 4),)),
        ("k.i.l.l me", "kill me", ((0, 4),)),
        ("k i l l  y o u", "kill  you", ((0, 4), (6, 9))),
        ("so k-i-l-l-e-r", "so killer", ((3, 9),)),
        ("I a mother", "I a mother", ()),
        ("to be or", "to be or", ()),
        ("a b", "a b", ()),
    ],
)
def test_letters_set_apart(written: str, read: str, runs: tuple[tuple[int, int], ...]) -> None:
    view = joined(raw(written))
    assert (view.text, view.runs) == (read, runs)


@pytest.mark.parametrize(
    ("written", "one", "read"),
    [
        ("k1ll y0u!", "i", "kill you!"),
        ("e1se", "l", "else"),
        ("p@$$w0rd", "i", "password"),
        ("in 2027, 404", "i", "in 2027, 404"),
        ("stop!", "i", "stop!"),
    ],
)
def test_digits_for_letters(written: str, one: str, read: str) -> None:
    assert unleet(raw(written), one).text == read


def test_a_span_is_of_the_original_through_several_views() -> None:
    text = "he said: k\u200b i l\u00ad l &amp; left"
    view = joined(plain(decoded(raw(text))))
    at = view.text.index("kill")
    start, end = view.span(at, at + 4)
    assert text[start:end] == "k\u200b i l\u00ad l"


def test_what_was_resolved_stood_where_its_code_stood() -> None:
    view = decoded(raw("a&#64;b"))
    assert [view.span(at, at + 1) for at in range(3)] == [(0, 1), (1, 6), (6, 7)]


def test_edits_compose() -> None:
    once = rebuilt(raw("abcdef"), [(1, 3, "X")])
    twice = rebuilt(once, [(0, 2, ""), (3, 4, "YZ")])
    assert twice.text == "dYZf" == View(twice.text, twice.starts, twice.ends).text
    assert [twice.span(at, at + 1) for at in range(4)] == [(3, 4), (4, 5), (4, 5), (5, 6)]
