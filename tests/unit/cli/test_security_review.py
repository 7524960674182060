"""`chimera security review` prints what the gate says, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from chimera.cli.security_review import review
from tests.conftest import ROOT

SAMPLES = ROOT / "tests/data/safety"
PLAIN = (
    "channels: {post: {disclosure: {words: AI-generated content.}}}\n"
    "personal_data: {EMAIL_ADDRESS: allow, PHONE_NUMBER: allow, CREDIT_CARD: allow, IBAN_CODE: allow,"
    " IP_ADDRESS: allow, US_SSN: allow, CRYPTO: allow}\n"
)

app = typer.Typer()
app.command()(review)


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """Without personal data, whose recognisers take seconds to load."""
    path = tmp_path / "policy.yaml"
    path.write_text(PLAIN)
    return str(path)


def run(*arguments: str, given: str | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments), input=given)
    return done.exit_code, done.stdout, done.stderr


def test_a_text_that_may_go_out(policy: str) -> None:
    code, out, _ = run("-", "--policy", policy, given="Hello.\nsecret: abcd1234efgh\n")
    assert code == 0
    assert "redact  line 2: secret.assigned" in out
    assert out.endswith("AI-generated content.\n\nHello.\nsecret: [redacted: secret]\n\n")
    assert "abcd1234" not in out


def test_a_text_that_may_not(policy: str) -> None:
    code, out, _ = run("-", "--policy", policy, "--json", given="Hello.\nKill yourself.")
    told: dict[str, Any] = json.loads(out)
    assert (code, told["cleared"]) == (1, False)
    assert [(one["rule"], one["span"]) for one in told["findings"]] == [("self-harm.encouragement", [7, 20])]


def test_labelled_texts_are_measured(policy: str, tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    texts = [("kill yourself", 1), ("hello there", 1), ("good morning", 0), ("we go home", 0)]
    file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in texts))
    code, out, _ = run(str(file), "--policy", policy, "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["bad"], told["benign"], told["caught"], told["false_alarms"]) == (2, 2, 1, 0)
    assert told["recall"]["value"] == 0.5
    assert told["precision"]["value"] == 1.0
    assert told["recall"]["low"] < 0.5 < told["recall"]["high"]
    assert "recall: 0.500 (0." in run(str(file), "--policy", policy)[1]


@pytest.mark.parametrize(
    ("name", "content", "arguments", "why"),
    [
        ("a.jsonl", b'{"text": "x"}\n', (), "line 1: give"),
        ("a.jsonl", b"[" * 100_000, (), "line 1: give"),
        ("a.txt", b"\xff", (), "not UTF-8"),
        ("a.txt", b"x", ("--channel", "nowhere"), "no channel nowhere"),
        ("a.txt", b"x", ("--audience", ""), "this is no output"),
        ("gone.txt", None, (), "No such file"),
    ],
)
def test_bad_input(
    policy: str, tmp_path: Path, name: str, content: bytes | None, arguments: tuple[str, ...], why: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    code, out, err = run(str(file), "--policy", policy, *arguments)
    assert (code, out) == (2, "")
    assert why in err


def test_the_samples_are_what_the_page_says() -> None:
    """The numbers of docs/safety-gateway.md, from the command that it names."""
    page = (ROOT / "docs/safety-gateway.md").read_text(encoding="utf-8")
    for name in ("bad", "benign", "kept_aside"):
        arguments = (str(SAMPLES / f"{name}.jsonl"), "--channel", "system", "--policy", str(SAMPLES / "policy.yaml"))
        code, out, _ = run(*arguments, "--json")
        told = json.loads(out)
        assert code == 0
        row = f"| {name}.jsonl | {told['bad']} | {told['benign']} | {told['caught']} | {told['false_alarms']} |"
        assert row in page
