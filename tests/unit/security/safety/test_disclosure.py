"""A machine's text says that it is one, where a reader sees it; hiding the words does not count as saying them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, OutputBlocked
from chimera.security.safety.disclosure import disclosed, with_disclosure
from chimera.security.safety.findings import MediaType
from chimera.security.safety.gateway import SafetyGateway
from chimera.security.safety.markup import shown, tags, written
from chimera.security.safety.policy import Disclosure, SafetyPolicy
from chimera.security.safety.views import raw
from tests.unit.security.safety.gate import cleared, output, rules

WORDS = "AI-generated content."
START, END = Disclosure(words=WORDS), Disclosure(words=WORDS, place="end")
HTML: MediaType = "text/html"


def reason(text: str, media_type: MediaType = "text/plain", wanted: Disclosure = START, fold: int = 0) -> str:
    return disclosed(text, media_type, wanted, fold).reason


@pytest.mark.parametrize(
    ("text", "media_type", "expected"),
    [
        (f"{WORDS}\n\nHello", "text/plain", ""),
        ("ai-generated   content. Hello", "text/plain", ""),
        (f"# {WORDS}\nHello", "text/markdown", ""),
        ("Hello", "text/plain", "missing"),
        (f"Hello\n\n{WORDS}", "text/plain", "misplaced"),
        (f"This is no {WORDS}", "text/plain", "hidden"),
        ("AI\u200b-generated content. Hello", "text/plain", "hidden"),
        ("АI-generated content. Hello", "text/plain", "hidden"),
        (f"<!-- {WORDS} --> Hello", "text/markdown", "hidden"),
        (f"[x]: # ({WORDS})\nHello", "text/markdown", "hidden"),
        (f"![{WORDS}](x.png) Hello", "text/markdown", "hidden"),
        (f"[hi]({WORDS}) Hello", "text/markdown", "hidden"),
        (f"~~{WORDS}~~ Hello", "text/markdown", "hidden"),
        (f"<p>{WORDS}</p><p>Hello</p>", HTML, ""),
        (f"<html><body><p style='color: #333; font-size: 12px'>{WORDS}</p>Hello</body></html>", HTML, ""),
        ("<p>AI-generated&#32;content.</p>Hello", HTML, ""),
        (f"<!-- {WORDS} -->Hello", HTML, "hidden"),
        (f"<p style='color:white'>{WORDS}</p>Hello", HTML, "hidden"),
        (f"<p style='color:#fefefe;background:#FFF'>{WORDS}</p>Hello", HTML, "hidden"),
        (f"<div style='background:#000'><p>{WORDS}</p></div>Hello", HTML, "hidden"),
        (f"<font color=white>{WORDS}</font>Hello", HTML, "hidden"),
        (f"<p style='display:none'>{WORDS}</p>Hello", HTML, "hidden"),
        (f"<div style='display:none'><p>x</p>{WORDS}</div>Hello", HTML, "hidden"),
        (f"<p style='font-size:1px'>{WORDS}</p>Hello", HTML, "hidden"),
        (f"<p style='opacity:0'>{WORDS}</p>Hello", HTML, "hidden"),
        (f"<p style='position:absolute;left:-9999px'>{WORDS}</p>Hello", HTML, "hidden"),
        (f"<p hidden>{WORDS}</p>Hello", HTML, "hidden"),
        (f"<template>{WORDS}</template>Hello", HTML, "hidden"),
        (f"<title>{WORDS}</title>Hello", HTML, "hidden"),
        (f"<details>{WORDS}</details>Hello", HTML, "hidden"),
        (f"<img alt='{WORDS}'>Hello", HTML, "hidden"),
        (f"<style>p{{display:none}}</style><p>{WORDS}</p>Hello", HTML, "hidden"),
        (f"<link rel=stylesheet href=x.css><p>{WORDS}</p>Hello", HTML, "hidden"),
        (f"<script>document.body.innerHTML=''</script><p>{WORDS}</p>", HTML, "hidden"),
        (f"<a title='x>{WORDS}", HTML, "hidden"),
    ],
)
def test_what_counts_as_said(text: str, media_type: MediaType, expected: str) -> None:
    assert reason(text, media_type) == expected


def test_the_fold() -> None:
    assert reason(f"{WORDS} Hello", fold=21) == ""
    assert reason(f"{WORDS} Hello", fold=20) == "below-fold"
    assert reason("\n" * 30 + WORDS, fold=280) == "below-fold"
    assert reason("x" * 300 + "\n" + WORDS, wanted=END, fold=280) == "below-fold"


def test_the_end() -> None:
    assert reason(f"Hello\n\n{WORDS}\n#tea", wanted=END) == ""
    assert reason(f"{WORDS}\n" + "Hello " * 100, wanted=END) == "misplaced"


BITS = ["<p>", "</p>", "<b>", "<!--", "-->", "<div style='color:red'>", "hi", " ", "\n", "<", ">", "'", WORDS]
MEDIA: tuple[MediaType, ...] = ("text/plain", "text/markdown", "text/html")


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(BITS), max_size=10).map("".join),
    st.sampled_from(MEDIA),
)
def test_what_is_added_is_seen_or_the_output_is_held(text: str, media_type: MediaType) -> None:
    try:
        out = cleared(text, "post", media_type)
    except OutputBlocked:
        assert any(rule.startswith("disclosure.") for rule in rules(text, "post", media_type))
        return
    assert reason(out.text, media_type, fold=280) == ""
    assert cleared(out.text, "post", media_type).text == out.text


def test_missing_words_are_added_or_block() -> None:
    assert cleared("Hello", "post").text == f"{WORDS}\n\nHello"
    assert cleared("Hello", "post").disclosure == WORDS
    assert cleared("<html><body>Hello</body></html>", "post", HTML).text == (
        f"<html><body><p>{WORDS}</p>\nHello</body></html>"
    )
    assert cleared("x = 1", "post", "text/x-code").text == f"# {WORDS}\nx = 1"
    assert "disclosure.missing" in rules("Hello", "blocked")
    assert "disclosure.hidden" in rules(f"<!-- {WORDS} -->", "blocked", HTML)
    assert with_disclosure("<body>x</body>", HTML, END) == f"<body>x\n<p>{WORDS}</p></body>"
    assert "disclosure.missing" in rules('{"a": 1}', "post", "application/json")


def test_the_disclosure_counts_for_the_length() -> None:
    policy = SafetyPolicy.model_validate({"channels": {"short": {"max_chars": 40}}, "personal_data": ALLOWED})
    gateway = SafetyGateway(policy, ManualClock())
    assert len(gateway.review(output("x" * 17, "short")).text) == 40
    with pytest.raises(OutputBlocked, match=r"limits\.length"):
        gateway.review(output("x" * 18, "short"))


ALLOWED = dict.fromkeys(("EMAIL_ADDRESS PHONE_NUMBER CREDIT_CARD IBAN_CODE IP_ADDRESS US_SSN CRYPTO").split(), "allow")


def test_a_disclosure_that_would_not_pass_is_refused() -> None:
    policy = {"channels": {"post": {"disclosure": {"words": "I am a real person."}}}, "personal_data": ALLOWED}
    with pytest.raises(InputError, match="would not pass"):
        SafetyGateway(SafetyPolicy.model_validate(policy), ManualClock())


def test_text_of_html() -> None:
    text = "a<b>b</b><!-- c -->d<p>e</p><script>f</script>&amp;"
    assert written(raw(text), HTML).text == "abd\ne\n\n\n&"
    assert shown(raw("a<p hidden>b<i>c</i></p>d"), HTML).text.split() == ["a", "d"]
    assert [tag.name for tag in tags("<a b='>'>x</a><br/>")] == ["a", "a", "br"]


@given(st.text(st.sampled_from("<>ab/!-='\" &;#"), max_size=60))
def test_tags_never_overlap(text: str) -> None:
    at = 0
    for tag in tags(text):
        assert at <= tag.start <= tag.end <= len(text)
        at = tag.end
