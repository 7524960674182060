"""The gate for what goes out: looks, redacts, adds the disclosure, and seals; or refuses and says why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from pydantic import JsonValue

from chimera.core.clock import Clock
from chimera.core.errors import InputError, OutputBlocked
from chimera.security.safety.cleared import Cleared, clear
from chimera.security.safety.disclosure import disclosed, with_disclosure
from chimera.security.safety.findings import MAX_CHARS, MAX_FINDINGS, Finding, Output, Severity
from chimera.security.safety.policy import Channel, SafetyPolicy
from chimera.security.safety.scan import Hit, Scanner, Tick, is_json
from chimera.security.safety.views import View, raw, rebuilt

MAX_TOLD = 50
"""Findings that the audit log is told of one review."""

MAX_ROUNDS = 6
"""How often a text is looked through again after something was taken out, which can bring other things together."""


class Audit(Protocol):
    """Where reviews are written down: an `AuditLog`. If it raises, nothing goes out."""

    def append(
        self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue] | None = None
    ) -> object: ...


class Check(Protocol):
    """What looks at an output besides the policy: its limits, its account, what others said. A policy cannot drop it.

    It is asked for every review, in whatever thread; one that raises blocks the output.
    """

    @property
    def name(self) -> str: ...

    def findings(self, output: Output) -> Iterable[Finding]:
        """What is wrong with `output`; spans are of its text."""
        ...


class Approvals(Protocol):
    """Whom people have said yes to."""

    def approver(self, digest: str, rules: frozenset[str]) -> str:
        """Who let the output of this digest out in spite of these rules; nothing if nobody did."""
        ...


class _OutOfTime(Exception):
    """A review took longer than the policy allows."""


class SafetyGateway:
    """Reviews every public output by `policy` and `checks`. Threads may share it.

    What asks for a person's look goes out once `approvals` names one who approved this very output; what is blocked
    nobody can approve. Making it reads Presidio's recognisers, which takes seconds. Raises InputError for a policy that
    contradicts itself, MissingExtra without Presidio where the policy minds personal data.
    """

    def __init__(
        self,
        policy: SafetyPolicy,
        clock: Clock,
        audit: Audit | None = None,
        *,
        checks: Sequence[Check] = (),
        approvals: Approvals | None = None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._audit = audit
        self._checks = tuple(checks)
        self._names = frozenset(check.name for check in self._checks)
        self._approvals = approvals
        if len(self._names) < len(self._checks):
            raise InputError("every check has a name of its own")
        self._scanner = Scanner(policy)
        for name, channel in policy.channels.items():
            words = channel.disclosure.words if channel.disclosure else ""
            if any(hit.severity is not Severity.WARN for hit in self._scanner.scan(raw(words), "text/plain", _never)):
                raise InputError(f"the disclosure of channel {name} would not pass: choose other words")

    def review(self, output: Output) -> Cleared:
        """Clear `output`, redacted and with its disclosure, for its channel and audience.

        Takes time in proportion to the text, at most `max_seconds` of the policy. Raises OutputBlocked with the
        findings if it may not go out.
        """
        ends_at = self._clock.monotonic() + self._policy.max_seconds

        def tick() -> None:
            if self._clock.monotonic() > ends_at:
                raise _OutOfTime

        channel = self._policy.channels.get(output.channel)
        try:
            if channel is None:
                text, hits = "", [_whole("limits.channel", output, "name one of the policy's channels")]
            elif len(output.text) > MAX_CHARS or len(output.text.encode("utf-8", "replace")) > MAX_CHARS:
                text, hits = "", [_whole("limits.size", output, f"give at most {MAX_CHARS} bytes of text")]
            elif len(output.text) > channel.max_chars:
                text, hits = "", [_whole("limits.length", output, f"give at most {channel.max_chars} characters")]
            else:
                text, hits = self._reviewed(output, channel, tick)
                hits += self._attachments(output, tick)
                hits += self._checked(output, tick)
        except _OutOfTime:
            text, hits = "", [_whole("limits.time", output, "give a shorter text: this one takes too long to review")]
        findings = _findings(hits)
        holding = [finding for finding in findings if self._holds(finding)]
        approver = self._approver(output, holding)
        cleared = None
        if (approver or not holding) and channel is not None:
            words = channel.disclosure.words if channel.disclosure else ""
            cleared = clear(output.model_copy(update={"text": text}), findings, words, self._names)
        self._write_down(output, findings, cleared, approver)
        if cleared is None:
            raise OutputBlocked(_message(holding), findings)
        return cleared

    def _reviewed(self, output: Output, channel: Channel, tick: Tick) -> tuple[str, list[Hit]]:
        """What may go out if no hit holds it, and the hits."""
        view, hits = self._redacted(output, tick)
        text = view.text
        if any(hit.severity is Severity.BLOCK for hit in hits):
            return text, hits
        if channel.disclosure is not None:
            state = disclosed(text, output.media_type, channel.disclosure, channel.fold_chars)
            if state.reason and channel.disclosure.if_missing == "add" and output.media_type != "application/json":
                text = with_disclosure(text, output.media_type, channel.disclosure)
                state = disclosed(text, output.media_type, channel.disclosure, channel.fold_chars)
                hits.append(_whole("disclosure.added", output, "the disclosure was added", Severity.WARN))
            if state.reason:
                hits.append(_whole(f"disclosure.{state.reason}", output, state.advice))
        if len(text) > channel.max_chars:
            advice = f"shorten it by {len(text) - channel.max_chars} characters, the disclosure counts too"
            hits.append(_whole("limits.length", output, advice))
        if output.media_type == "application/json" and not is_json(text):
            hits.append(
                _whole("encoding.json", output, "give JSON with no personal data or secrets outside of strings")
            )
        if text != view.text and any(map(_stops, self._scanner.scan(raw(text), output.media_type, tick))):
            hits.append(_whole("limits.unstable", output, "the disclosure and the text together make something new"))
        return text, hits

    def _redacted(self, output: Output, tick: Tick) -> tuple[View, list[Hit]]:
        """The text without what is redacted: looked through until no view of it shows anything more."""
        whole = view = raw(output.text)
        hits: dict[tuple[str, int, int], Hit] = {}
        for _ in range(MAX_ROUNDS):
            seen = list(self._scanner.scan(view, output.media_type, tick))
            for hit in seen:
                hits.setdefault((hit.rule, hit.start, hit.end), hit)
            if len(hits) > MAX_FINDINGS:
                return view, [*hits.values(), _whole("limits.findings", output, "there is too much to redact")]
            if not any(hit.severity is Severity.REDACT for hit in seen):
                return view, list(hits.values())
            view = rebuilt(whole, _cuts(hits.values()))
        return view, [*hits.values(), _whole("limits.unstable", output, "what is redacted comes back in another place")]

    def _attachments(self, output: Output, tick: Tick) -> Iterator[Hit]:
        """What must not be in the words for a picture. Nothing is taken out there: they are to be written anew."""
        for picture in output.attached:
            for hit in self._scanner.scan(raw(picture.alt), "text/plain", tick):
                severity = Severity.BLOCK if hit.severity is Severity.REDACT else hit.severity
                yield _whole(hit.rule, output, f"in the words for a picture: {hit.advice}", severity)

    def _checked(self, output: Output, tick: Tick) -> Iterator[Hit]:
        for check in self._checks:
            tick()
            try:
                for one in check.findings(output):
                    yield Hit(one.rule, one.severity, *one.span, one.advice)
            except Exception as error:  # whatever it was, nobody has looked at this output
                advice = f"the check {check.name} could not be made ({type(error).__name__}): {str(error)[:200]}"
                yield _whole("check.failed", output, advice)

    def _approver(self, output: Output, holding: Sequence[Finding]) -> str:
        if not holding or self._approvals is None or any(one.severity is not Severity.REVIEW for one in holding):
            return ""
        return self._approvals.approver(output.digest, frozenset(one.rule for one in holding))

    def _holds(self, finding: Finding) -> bool:
        held = finding.severity is Severity.REVIEW and self._policy.on_review == "hold"
        return held or finding.severity is Severity.BLOCK

    def _write_down(self, output: Output, findings: Sequence[Finding], cleared: Cleared | None, approver: str) -> None:
        if self._audit is None:
            return
        detail: dict[str, JsonValue] = {
            "audience": output.audience,
            "sha256": "" if cleared is None else cleared.digest,
            "findings": [
                {"rule": finding.rule, "severity": finding.severity.value, "span": list(finding.span)}
                for finding in findings[:MAX_TOLD]
            ],
        }
        if self._checks:
            detail |= {
                "checks": list[JsonValue](sorted(self._names)),
                "key": output.key,
                "pictures": len(output.attached),
            }
        if approver:
            detail["approved_by"] = approver
        outcome = "blocked" if cleared is None else "cleared"
        self._audit.append(output.author, "output.review", output.channel, outcome, detail)


def _never() -> None:
    """A deadline that is never over."""


def _stops(hit: Hit) -> bool:
    return hit.severity in (Severity.BLOCK, Severity.REDACT)


def _whole(rule: str, output: Output, advice: str, severity: Severity = Severity.BLOCK) -> Hit:
    return Hit(rule, severity, 0, len(output.text), advice)


def _cuts(hits: Iterable[Hit]) -> list[tuple[int, int, str]]:
    """The edits that take out what is to be redacted; places that overlap or touch become one."""
    cuts: list[tuple[int, int, str]] = []
    for hit in sorted((hit for hit in hits if hit.severity is Severity.REDACT), key=lambda hit: (hit.start, -hit.end)):
        if cuts and hit.start <= cuts[-1][1]:
            start, end, label = cuts.pop()
            cuts.append((start, max(end, hit.end), label))
        else:
            cuts.append((hit.start, hit.end, f"[redacted: {hit.label}]"))
    return cuts


def _findings(hits: Sequence[Hit]) -> tuple[Finding, ...]:
    """In the order of their places. Of one rule, a place within another is not told again."""
    told: dict[str, int] = {}
    found = []
    for hit in sorted(hits, key=lambda hit: (hit.start, -hit.end, hit.rule)):
        if hit.end > told.get(hit.rule, -1):
            told[hit.rule] = hit.end
            found.append(Finding(rule=hit.rule, severity=hit.severity, span=(hit.start, hit.end), advice=hit.advice))
    return tuple(found[:MAX_FINDINGS])


def _message(holding: Sequence[Finding]) -> str:
    rules = sorted({finding.rule for finding in holding})
    more = f" and {len(rules) - 5} more" if len(rules) > 5 else ""
    return f"this may not go out: {', '.join(rules[:5])}{more}. {holding[0].advice}"
