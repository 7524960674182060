"""Secrets and personal data are found by their shape, in disguise too, and nothing of them is left."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.errors import InputError, OutputBlocked
from chimera.security.safety.findings import MediaType, Severity
from chimera.security.safety.gateway import _cuts
from chimera.security.safety.markup import written
from chimera.security.safety.personal import WINDOW_CHARS, PersonalDataFinder
from chimera.security.safety.policy import PersonalData, SafetyPolicy
from chimera.security.safety.scan import Hit
from chimera.security.safety.secret_shapes import entropy_bits
from chimera.security.safety.views import raw, readings
from tests.unit.security.safety.gate import CANARY, cleared, findings, gateway, output, rules

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"


def shape(prefix: str, chars: int) -> str:
    """A key that is none: in pieces here, so that no scanner of repositories takes it for one."""
    return prefix + (ALPHABET * 6)[7 : 7 + chars]


SECRETS = {
    "aws-access-key": shape("AKI" + "A", 0) + "IOSFODNN7EXAMPLE",
    "github-token": shape("gh" + "p_", 36),
    "gitlab-token": shape("glp" + "at-", 20),
    "slack-token": shape("xo" + "xb-1234567890-", 24),
    "slack-webhook": "hooks.slack" + ".com/services/T00000000/B00000000/abcdefghij",
    "anthropic-key": shape("sk-" + "ant-api03-", 40),
    "openai-key": shape("sk-" + "proj-", 48),
    "stripe-key": shape("sk_" + "live_", 24),
    "google-key": shape("AI" + "za", 35),
    "huggingface-token": shape("h" + "f_", 34),
    "npm-token": shape("np" + "m_", 36),
    "chimera-key": shape("chi" + "m_", 43),
    "jwt": "ey" + "JhbGciOiJFZERTQSJ9.ey" + "JzdWIiOiJib2IifQ." + shape("", 43),
    "private-key": "-----BEGIN PRIVATE" + " KEY-----\n" + shape("", 64) + "\n-----END PRIVATE KEY-----",
}
PERSONAL = {
    "e-mail": "maria.huber@gmail.com",
    "phone": "+1 212 555 0147",
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "ip": "81.2.69.160",
    "ssn": "219-09-9999",
    "wallet": "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2",
}

Disguise = Callable[[str], str]
DISGUISES: dict[str, Disguise] = {
    "none": lambda text: text,
    "zero width": "\u200b".join,
    "soft hyphens": "\u00ad".join,
    "full width": lambda text: "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text),
    "look-alikes": lambda text: text.translate(str.maketrans("AEKMOCTXaeopcx", "АЕКМОСТХаеорсх")),
    "references": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "escapes": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "percent": lambda text: "".join(f"%{ord(char):02X}" for char in text),
}
disguises = st.sampled_from(sorted(DISGUISES))
every = st.sampled_from(sorted({**SECRETS, **PERSONAL}.items()))
around = st.text(st.sampled_from("ab \n.,:\"'([-_\u200bä\U0001f600"), max_size=12)


def core(text: str) -> str:
    return re.sub(r"[\W_]", "", text)


@pytest.mark.parametrize("disguise", sorted(DISGUISES))
@pytest.mark.parametrize("kind", sorted(SECRETS))
def test_a_secret_is_found_in_every_disguise(kind: str, disguise: str) -> None:
    hidden = DISGUISES[disguise](SECRETS[kind])
    text = f"see {hidden} there"
    spans = [text[slice(*one.span)] for one in findings(text) if one.rule == f"secret.{kind}"]
    assert spans == [hidden]
    assert cleared(text).text == "see [redacted: secret] there"


@pytest.mark.parametrize("disguise", sorted(DISGUISES))
@pytest.mark.parametrize("kind", sorted(PERSONAL))
def test_personal_data_is_found_in_every_disguise(kind: str, disguise: str) -> None:
    hidden = DISGUISES[disguise](PERSONAL[kind])
    text = f"see {hidden} there"
    assert hidden in [text[slice(*one.span)] for one in findings(text) if one.rule == f"personal.{kind}"]
    assert cleared(text).text == f"see [redacted: {kind}] there"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(around, every, disguises), min_size=1, max_size=3), around, st.booleans())
def test_nothing_found_is_left_in_any_view(parts: list[tuple[str, tuple[str, str], str]], end: str, web: bool) -> None:
    media_type: MediaType = "text/html" if web else "text/plain"
    text = "".join(f"{before} {DISGUISES[how](secret)} " for before, (_, secret), how in parts) + end
    try:
        out = gateway().review(output(text, media_type=media_type))
    except OutputBlocked:
        return
    for view in (*readings(raw(out.text)), written(raw(out.text), "text/html")):
        for _, (_, secret), _ in parts:
            assert core(secret) not in core(view.text)
    again = gateway().review(output(out.text, media_type=media_type))
    assert again.text == out.text
    assert [one for one in again.findings if one.severity is not Severity.WARN] == []


@settings(max_examples=150, deadline=None)
@given(around, every, disguises, around)
def test_spans_are_right(before: str, what: tuple[str, str], how: str, after: str) -> None:
    kind, secret = what
    hidden = DISGUISES[how](secret)
    text = f"{before} {hidden} {after}"
    spans = [one.span for one in findings(text) if one.rule.endswith("." + kind)]
    start = len(before) + 1
    assert any(first <= start and start + len(hidden) <= last for first, last in spans)
    assert all(0 <= first < last <= len(text) for first, last in spans)


@given(every, disguises)
@settings(max_examples=50, deadline=None)
def test_a_finding_never_repeats_what_it_found(what: tuple[str, str], how: str) -> None:
    text = f"kill yourself, {DISGUISES[how](what[1])}"
    with pytest.raises(OutputBlocked) as caught:
        cleared(text)
    told = str(caught.value) + repr(caught.value) + "".join(str(one) for one in caught.value.findings)
    assert core(what[1]) not in core(told)


def test_what_becomes_a_secret_when_something_is_taken_out_is_taken_out_too() -> None:
    text = f"b o b @ w e b . d e and {shape('gh' + 'p_', 18)}\u200b{shape('', 18)}"
    assert cleared(text).text == "[redacted: e-mail] and [redacted: secret]"


@pytest.mark.parametrize(
    "text",
    [
        'password = "tr0ub4dor-and-3"',
        "DB_PASSWORD: Zk9pLw3xQv",
        "the password is hunter2x9",
        "postgresql://app:s3cr3tpw@db.corp.example/main",
        "Authorization: Bearer abcdef0123456789abcdef",
    ],
)
def test_what_is_assigned_to_a_telling_word(text: str) -> None:
    out = cleared(text).text
    assert "[redacted: secret]" in out
    assert cleared(out).text == out


@pytest.mark.parametrize(
    "text",
    [
        'password = os.environ["DB"]',
        "password: ${PASSWORD}",
        "The password is required.",
        "token: <your-token>",
        "api_key = 'your-api-key-here'",
        "The secret is patience.",
        "password: aaaaaaaa1",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    assert cleared(text).text == text


def test_entropy() -> None:
    assert entropy_bits("aaaa") == 0.0
    assert entropy_bits("abcd") == pytest.approx(2.0)


@pytest.mark.parametrize("text", [CANARY, CANARY.upper(), " ".join(CANARY), CANARY.replace("-", " / "), f"x{CANARY}y"])
def test_a_canary_stops_everything(text: str) -> None:
    found = findings(f"so {text} it is")
    assert {one.rule for one in found if one.severity is Severity.BLOCK} == {"secret.canary"}
    assert CANARY not in repr(gateway()._policy)


@pytest.mark.parametrize("own", ["press@chimera.dev", "PRESS@chimera.dev", "+49 30 12345678", "+49 (0)30 12345678"])
def test_the_brands_own_contacts_stay(own: str) -> None:
    assert cleared(f"Write to {own}.").text == f"Write to {own}."
    assert "personal.e-mail" in rules("Write to xpress@chimera.dev.")


def test_actions_are_the_policys() -> None:
    text = "maria.huber@gmail.com and 81.2.69.160"
    policy = {"channels": {"system": {"disclosure": None}}, "personal_data": {"IP_ADDRESS": "allow"}}
    kinds = [kind for kind in PersonalData if SafetyPolicy.model_validate(policy).for_personal(kind) != "allow"]
    assert PersonalData.IP not in kinds
    found = [kind for kind, *_ in PersonalDataFinder(kinds).search(raw(text), lambda: None)]
    assert found == [PersonalData.EMAIL]


def test_private_addresses_name_nobody() -> None:
    assert cleared("127.0.0.1, 10.0.0.1 and ::1").text == "127.0.0.1, 10.0.0.1 and ::1"


@given(st.integers(WINDOW_CHARS - 60, WINDOW_CHARS + 10))
@settings(max_examples=30, deadline=None)
def test_no_window_hides_what_it_cuts(before: int) -> None:
    finder = PersonalDataFinder([PersonalData.EMAIL, PersonalData.CARD])
    text = "x " * (before // 2) + " " * (before % 2) + "maria.huber@gmail.com 4111 1111 1111 1111" + " x" * 3_000
    found = {(kind, text[start:end]) for kind, start, end in finder.search(raw(text), lambda: None)}
    assert found == {(PersonalData.EMAIL, "maria.huber@gmail.com"), (PersonalData.CARD, "4111 1111 1111 1111")}


def test_what_no_window_holds_is_not_let_through() -> None:
    finder = PersonalDataFinder([PersonalData.EMAIL])
    text = "a" * 2 * WINDOW_CHARS + "@web.de"
    assert list(finder.search(raw(text), lambda: None)) != []


def test_cuts_that_meet_are_one() -> None:
    places = [(3, 9), (0, 5), (9, 10), (1, 2), (20, 21)]
    hits = [Hit("r", Severity.REDACT, start, end, "", "x") for start, end in places]
    assert [cut[:2] for cut in _cuts(hits)] == [(0, 10), (20, 21)]


def test_a_region_must_be_one() -> None:
    with pytest.raises(InputError, match="no such region: ZQ"):
        PersonalDataFinder([PersonalData.PHONE], phone_regions=("US", "ZQ"))
