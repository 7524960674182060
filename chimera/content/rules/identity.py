"""Who speaks: a declared account, as itself, about what it is for; no second identity and no made-up person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from chimera.content.accounts import Account
from chimera.content.rules.phrases import Phrases, alts, whole
from chimera.security.safety.findings import Finding, Output, Severity
from chimera.security.safety.rules import Rule
from chimera.security.safety.views import decoded, joined, plain, raw

_OTHER = "(other|second|real|main|personal|private|alt|alternate|backup|secret)"
_PERSON = (
    "(mother|mom|mum|father|dad|parent|nurse|doctor|teacher|veteran|student|engineer|lawyer|farmer|customer|patient"
    "|voter|taxpayer|resident|local|grandmother|grandfather|woman|man|girl|guy|survivor|journalist|scientist)"
)

RULES: tuple[Rule, ...] = (
    Rule(
        id="identity.second",
        severity=Severity.BLOCK,
        advice="an account has one identity: speak as the declared account only",
        any=(
            f"(my|our) {_OTHER} (account|accounts|profile|handle|page)",
            "(this is|i am|we are) <1> (alt|alternate|backup|second|secret) account",
            "(speaking|posting|writing|replying|here) (as|for|on behalf of) <1> {name}",
            "(i am|we are|this is|it is) <1> {name}",
            "{name} (here|speaking)",
        ),
        unless=("not {name}", "(is|are|am) not"),
    ),
    Rule(
        id="identity.person",
        severity=Severity.BLOCK,
        advice="no made-up people: an automated account has no life of its own to tell of",
        any=(
            "my name is",
            f"(i am|as) (a|an|just a) <2> {_PERSON}",
            "(my|our) (husband|wife|kids|son|daughter|children|mom|mum|dad|boyfriend|girlfriend|grandmother|childhood)",
            "(when i was|i grew up|i was born|i remember when i|last night i|this morning i|on my way to work)",
            "i (woke|ate|drank|cried|married|slept|drove|cooked|swam|tasted|smelled|felt)",
        ),
        unless=(f"as (a|an) <2> {_PERSON} (said|says|told|put)",),
    ),
    Rule(
        id="identity.testimonial",
        severity=Severity.REVIEW,
        advice="what customers say needs a source: a person is to look at it",
        any=("(customer|customers|client|clients|user|users) <1> (say|says|said|love|loves|rave|raves|told us)",),
    ),
)

_SIGNED = re.compile(
    r"[\"'”’»]\s*(?:[-–—~]|by)\s*[A-ZÀ-Þ][\w'’-]+(?:\s+[A-ZÀ-Þ][\w.'’-]*)?\s*,?\s*(?:\(?(?:aged?\s)?\d{2}\)?(?!\d)"
    r"|(?:happy|verified|satisfied)\s)",
)


class IdentityCheck:
    """Asks that an output is a declared account's, that it speaks as that account, and of what it is for."""

    name = "identity"

    def __init__(self, accounts: Mapping[str, Account]) -> None:
        self._accounts = dict(accounts)
        self._phrases = {name: Phrases(RULES, _others(one, accounts.values())) for name, one in accounts.items()}

    def findings(self, output: Output) -> Iterator[Finding]:
        account = self._accounts.get(output.channel)
        if account is None:
            yield whole("identity.undeclared", output, "declare the account, and who answers for it, before it speaks")
            return
        yield from self._phrases[account.name].findings(output)
        words = " ".join((output.text, *alts(output)))
        seen = plain(decoded(raw(words)))
        if _SIGNED.search(seen.text):
            yield whole("identity.testimonial", output, "no invented testimonials: quote only what has a source")
        yield from self._off_topic(output, account, joined(seen).text.casefold())

    def _off_topic(self, output: Output, account: Account, words: str) -> Iterator[Finding]:
        if _names(account.topics.forbidden, words):
            yield whole("topic.forbidden", output, f"{account.name} is not to speak of this: see its topics")
        if account.topics.allowed and not output.reply_to and not _names(account.topics.allowed, words):
            advice = f"this is none of the topics of {account.name}: a person is to look at it"
            yield whole("topic.other", output, advice, Severity.REVIEW)


def _others(account: Account, accounts: Iterable[Account]) -> list[str]:
    """The names that this account must not take: those of others, less its own."""
    own = {account.brand.casefold(), account.operator.name.casefold()}
    names = {name for one in accounts for name in (one.brand, one.operator.name)}
    handles = {one.handle.lstrip("@") for one in accounts if one.name != account.name and one.handle != account.handle}
    return sorted({name for name in names if name.casefold() not in own} | handles)


def _names(topics: Iterable[str], words: str) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(topic.casefold())}", words) for topic in topics)
