"""Phrases looked for in everything of an output that people read, in each view of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chimera.security.safety.findings import Finding, Output, Severity
from chimera.security.safety.rules import Rule, RuleBook
from chimera.security.safety.views import raw, readings, wordings


class Phrases:
    """Rules in the language of `chimera.security.safety.rules`, against every disguise that it sees through."""

    def __init__(self, rules: Iterable[Rule], names: Iterable[str] = ()) -> None:
        self._book = RuleBook(rules, names)

    def search(self, text: str) -> Iterator[tuple[Rule, int, int]]:
        """Each rule that the text breaks, and where; a place is told once for each rule."""
        told = set()
        for view in wordings(readings(raw(text))):
            for rule, start, end in self._book.search(view, _no_limit):
                if (rule.id, start, end) not in told:
                    told.add((rule.id, start, end))
                    yield rule, start, end

    def findings(self, output: Output) -> Iterator[Finding]:
        for rule, start, end in self.search(output.text):
            yield Finding(rule=rule.id, severity=rule.severity, span=(start, end), advice=rule.advice)
        for alt in alts(output):
            for rule, _, _ in self.search(alt):
                yield whole(rule.id, output, f"in the words for a picture: {rule.advice}", rule.severity)


def alts(output: Output) -> tuple[str, ...]:
    """What stands for its pictures."""
    return tuple(picture.alt for picture in output.attached)


def whole(rule: str, output: Output, advice: str, severity: Severity = Severity.BLOCK) -> Finding:
    """A finding about all of the output."""
    return Finding(rule=rule, severity=severity, span=(0, len(output.text)), advice=advice)


def _no_limit() -> None:
    """The text of a post is short: nothing here takes long."""
