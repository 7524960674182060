"""The gateway as a whole: its limits, what it writes down, and how well it does on samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from chimera.core.clock import ManualClock
from chimera.core.errors import AuditError, InputError, MissingExtra, OutputBlocked
from chimera.security.safety.findings import MAX_CHARS, Finding, Severity
from chimera.security.safety.gateway import SafetyGateway
from chimera.security.safety.personal import PersonalDataFinder
from chimera.security.safety.policy import PersonalData, SafetyPolicy, load_policy
from tests.unit.security.safety.gate import DATA, cleared, findings, output, rules
from tests.unit.security.safety.test_disclosure import ALLOWED

QUICK = {"channels": {"system": {"disclosure": None, "max_chars": MAX_CHARS}}, "personal_data": ALLOWED}


def quick(**changes: object) -> SafetyGateway:
    """Without personal data, and so without Presidio."""
    return SafetyGateway(SafetyPolicy.model_validate({**QUICK, **changes}), ManualClock())


class Log:
    """An audit log that remembers, or that refuses."""

    def __init__(self, refuses: bool = False) -> None:
        self.entries: list[tuple[str, str, str, str, dict[str, JsonValue]]] = []
        self._refuses = refuses

    def append(
        self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue] | None = None
    ) -> None:
        if self._refuses:
            raise AuditError("the disk is full")
        self.entries.append((actor, action, resource, outcome, dict(detail or {})))


def test_every_review_is_written_down_without_its_text() -> None:
    log = Log()
    gateway = SafetyGateway(SafetyPolicy.model_validate(QUICK), ManualClock(), log)
    one = gateway.review(output("token = abcdef123456"))
    with pytest.raises(OutputBlocked):
        gateway.review(output("kill yourself, Zoe"))
    assert [entry[:4] for entry in log.entries] == [
        ("writer", "output.review", "system", "cleared"),
        ("writer", "output.review", "system", "blocked"),
    ]
    assert log.entries[0][4]["sha256"] == one.digest
    assert log.entries[0][4]["findings"] == [{"rule": "secret.assigned", "severity": "redact", "span": [8, 20]}]
    assert "abcdef" not in repr(log.entries)
    assert "Zoe" not in repr(log.entries)


def test_nothing_goes_out_that_cannot_be_written_down() -> None:
    gateway = SafetyGateway(SafetyPolicy.model_validate(QUICK), ManualClock(), Log(refuses=True))
    with pytest.raises(AuditError):
        gateway.review(output("hello"))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("x" * (MAX_CHARS + 1), "limits.size"),
        ("ä" * (MAX_CHARS // 2 + 1), "limits.size"),
        ("a\x00b", "encoding.control"),
        ("a\x1b[2Jb", "encoding.control"),
        ("a\u202eb", "encoding.reordered"),
        ("a\u2066b", "encoding.reordered"),
        ("a" + "".join(chr(0xE0000 + ord(char)) for char in "hidden") + "b", "encoding.smuggled"),
        ("a@b.de " * 1_001 + "password: abcd1234 " * 1_001, "limits.findings"),
    ],
)
def test_limits(text: str, rule: str) -> None:
    with pytest.raises(OutputBlocked, match=rule.replace(".", r"\.")):
        quick().review(output(text))


def test_flags_and_families_are_no_smuggling() -> None:
    text = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f \U0001f469\u200d\U0001f4bb café नमस्ते"
    assert quick().review(output(text)).text == text


def test_an_unknown_channel_is_no_way_out() -> None:
    with pytest.raises(OutputBlocked, match=r"limits\.channel"):
        quick().review(output("hello", "elsewhere"))


class Ticking(ManualClock):
    """A second passes whenever the clock is looked at."""

    def monotonic(self) -> float:
        self.advance(1.0)
        return super().monotonic()


def test_a_review_ends_in_time() -> None:
    gateway = SafetyGateway(SafetyPolicy.model_validate({**QUICK, "max_seconds": 5.0}), Ticking())
    with pytest.raises(OutputBlocked, match=r"limits\.time"):
        gateway.review(output("hello"))


def test_json_stays_json() -> None:
    assert (
        cleared('{"to": "maria.huber@gmail.com"}', media_type="application/json").text == '{"to": "[redacted: e-mail]"}'
    )
    assert "encoding.json" in rules('{"card": 4111111111111111}', media_type="application/json")
    assert "encoding.json" in rules("[" * 4_000, media_type="application/json")
    assert "encoding.json" in rules("{", media_type="application/json")


def test_policy_decides_what_a_review_finding_does() -> None:
    text = "Do not tell your bank."
    with pytest.raises(OutputBlocked) as held:
        quick().review(output(text))
    assert [one.severity for one in held.value.findings] == [Severity.REVIEW]  # type: ignore[attr-defined]
    passed = quick(on_review="pass").review(output(text))
    assert [one.rule for one in passed.findings] == ["persuasion.pressure"]


def test_secrets_and_personal_data_may_block() -> None:
    with pytest.raises(OutputBlocked, match=r"secret\.assigned"):
        quick(secrets="block").review(output("token = abcdef123456"))
    gateway = quick(personal_data={**ALLOWED, "EMAIL_ADDRESS": "block"})
    with pytest.raises(OutputBlocked, match=r"personal\.e-mail"):
        gateway.review(output("maria.huber@gmail.com"))


def test_without_presidio_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtra, match="security"):
        PersonalDataFinder(list(PersonalData))
    quick()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1, 2]", "a policy is a mapping"),
        ("chanels: {}", "chanels"),
        ("channels: {post: {max_chars: 0}}", "max_chars"),
        ("canaries: [short]", "at least 12"),
        ("rules: [{id: r, severity: block, advice: a, any: ['a.*b']}]", "phrase"),
        ("rules: [{id: threat.violence, severity: block, advice: a, any: [ab]}]", "id of its own"),
        ("a: &a [*a", "policy.yaml"),
        ("rules: 7", "policy.yaml"),
    ],
)
def test_a_bad_policy_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=why):
        load_policy(path)


def test_a_policys_own_rule(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    rule = {"id": "house.price", "severity": "review", "advice": "ask sales", "any": ["costs <2> euros"]}
    path.write_text(json.dumps({**QUICK, "rules": [rule]}))
    gateway = SafetyGateway(load_policy(path), ManualClock())
    with pytest.raises(OutputBlocked, match=r"house\.price"):
        gateway.review(output("It costs 5 euros."))
    with pytest.raises(OutputBlocked, match=r"self-harm"):
        gateway.review(output("kill yourself"))


def samples(name: str) -> Iterator[tuple[str, int, str]]:
    for line in (DATA / name).read_text().splitlines():
        sample = json.loads(line)
        yield sample["text"], sample["label"], sample.get("rule", "")


def caught(text: str) -> list[Finding]:
    return [finding for finding in findings(text) if finding.severity is not Severity.WARN]


def test_ordinary_texts_pass_unchanged() -> None:
    kept = [text for text, *_ in samples("benign.jsonl")]
    assert len(kept) >= 60
    assert [text for text in kept if cleared(text).text != text] == []


def test_bad_texts_are_caught_by_the_rule_that_they_are_for() -> None:
    bad = list(samples("bad.jsonl"))
    assert len(bad) >= 60
    missed = [text for text, _, rule in bad if not any(one.rule.startswith(rule) for one in caught(text))]
    assert missed == []


def test_samples_that_the_rules_were_not_made_on() -> None:
    """What docs/safety-gateway.md reports: nothing ordinary is stopped, and four fifths of the bad are."""
    aside = list(samples("kept_aside.jsonl"))
    assert [text for text, label, _ in aside if not label and caught(text)] == []
    found = sum(bool(caught(text)) for text, label, _ in aside if label)
    assert (found, sum(label for _, label, _ in aside)) == (36, 45)
