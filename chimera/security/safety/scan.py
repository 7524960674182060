"""Everything that is looked for in a text, in each of its views."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from chimera.security.safety.findings import MediaType, Severity
from chimera.security.safety.licences import foreign_licences
from chimera.security.safety.markup import written
from chimera.security.safety.personal import PersonalDataFinder
from chimera.security.safety.policy import Action, PersonalData, SafetyPolicy
from chimera.security.safety.quotes import ProtectedTexts
from chimera.security.safety.rules import RuleBook
from chimera.security.safety.secret_shapes import SecretShapes
from chimera.security.safety.views import View, readings, wordings

Tick = Callable[[], None]

LABELS = {
    PersonalData.EMAIL: "e-mail",
    PersonalData.PHONE: "phone",
    PersonalData.CARD: "card",
    PersonalData.IBAN: "iban",
    PersonalData.IP: "ip",
    PersonalData.US_SSN: "ssn",
    PersonalData.CRYPTO: "wallet",
}

_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+")
_REORDERED = re.compile("[\u202a-\u202e\u2066-\u2069]+")
_SMUGGLED = re.compile("(?<![\U0001f3f4\U000e0000-\U000e007f])[\U000e0000-\U000e007f]+")
_BROKEN = re.compile("[\ud800-\udfff]+")
_INVISIBLE = re.compile("(?<=[A-Za-z0-9])[\u00ad\u180e\u200b-\u200f\u2060-\u2064\ufeff\u115f\u3164]+(?=[A-Za-z0-9])")
_ENCODINGS = (
    ("encoding.control", Severity.BLOCK, _CONTROLS, "take the control characters out"),
    (
        "encoding.reordered",
        Severity.BLOCK,
        _REORDERED,
        "take out what changes the direction of writing (CVE-2021-42574)",
    ),
    ("encoding.smuggled", Severity.BLOCK, _SMUGGLED, "take the invisible tag characters out"),
    ("encoding.surrogate", Severity.BLOCK, _BROKEN, "give text that can be written as UTF-8"),
    ("encoding.invisible", Severity.WARN, _INVISIBLE, "invisible characters stand inside words: write them plainly"),
)


@dataclass(frozen=True, slots=True)
class Hit:
    """Something found at `start:end` of the original. `label` names it where it is redacted."""

    rule: str
    severity: Severity
    start: int
    end: int
    advice: str
    label: str = ""


class Scanner:
    """A policy, ready to be applied. Raises InputError for one that cannot be, MissingExtra without Presidio."""

    def __init__(self, policy: SafetyPolicy) -> None:
        self._policy = policy
        self._rules = RuleBook(policy.rules, policy.names)
        canaries = [canary.get_secret_value() for canary in policy.canaries]
        self._secrets = SecretShapes(canaries, min_entropy_bits=policy.min_entropy_bits)
        sought = [kind for kind in PersonalData if policy.for_personal(kind) is not Action.ALLOW]
        self._personal = PersonalDataFinder(sought, own=policy.own_contacts, phone_regions=policy.phone_regions)
        self._quotes = ProtectedTexts((one.text for one in policy.protected), min_words=policy.max_quote_words)

    def scan(self, view: View, media_type: MediaType, tick: Tick) -> Iterator[Hit]:
        """All that is found, in the places of the original. `tick` is called again and again, and may raise."""
        read = readings(view)
        bare = written(view, media_type)
        if bare is not view:
            read += readings(bare)
        yield from self._encoding(view)
        for one in read:
            yield from self._secret(one, tick)
            yield from self._personal_data(one, tick)
        yield from self._licences(view, bare, tick)
        for one in wordings(read):
            for rule, start, end in self._rules.search(one, tick):
                yield Hit(rule.id, rule.severity, start, end, rule.advice)

    def _encoding(self, view: View) -> Iterator[Hit]:
        for rule, severity, pattern, advice in _ENCODINGS:
            for match in pattern.finditer(view.text):
                yield Hit(rule, severity, *view.span(*match.span()), advice)

    def _secret(self, view: View, tick: Tick) -> Iterator[Hit]:
        blocked = self._policy.secrets is Action.BLOCK
        for kind, start, end in self._secrets.search(view, tick):
            if kind == "canary":
                yield Hit("secret.canary", Severity.BLOCK, start, end, "find out how this got into an output")
            elif blocked:
                yield Hit(f"secret.{kind}", Severity.BLOCK, start, end, "take it out, and revoke it where it is used")
            else:
                advice = "it was taken out; revoke it, for whoever wrote this had it"
                yield Hit(f"secret.{kind}", Severity.REDACT, start, end, advice, "secret")

    def _personal_data(self, view: View, tick: Tick) -> Iterator[Hit]:
        for kind, start, end in self._personal.search(view, tick):
            rule, label = f"personal.{LABELS[kind]}", LABELS[kind]
            if self._policy.for_personal(kind) is Action.BLOCK:
                yield Hit(rule, Severity.BLOCK, start, end, "take it out, or allow it as the brand's own contact")
            else:
                yield Hit(
                    rule, Severity.REDACT, start, end, "it was taken out; own_contacts names what may stay", label
                )

    def _licences(self, view: View, bare: View, tick: Tick) -> Iterator[Hit]:
        for licence, start, end in foreign_licences(view, self._policy.licences):
            tick()
            advice = f"code under {licence[:60]} does not go out: the policy's licences do not name it"
            yield Hit("licence.header", Severity.BLOCK, start, end, advice)
        for number, start, end in self._quotes.search(bare, tick):
            advice = f"shorten the quote of {self._policy.protected[number].name} and name its source"
            yield Hit("licence.quote", Severity.BLOCK, start, end, advice)


def is_json(text: str) -> bool:
    """Whether it can be read as JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
