"""`chimera review`: people and scripts work on a queue, each command in its own opening of it, as processes have it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from chimera.cli.review.main import review

POLICY = """
reviewers:
  ann: [leads]
  bob: [leads]
  cleo: []
kinds:
  contract: {four_eyes: true, group: leads}
check_automatic: 0
check_monitored: 0
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHIMERA_HOME", str(tmp_path))
    monkeypatch.delenv("CHIMERA_JOURNAL_URL", raising=False)
    (tmp_path / "review.yaml").write_text(POLICY)
    return tmp_path


def chimera(group: str, *words: str) -> tuple[int, str, str]:
    assert group == "review"
    done = CliRunner().invoke(review, list(words))
    return done.exit_code, done.stdout, done.stderr


def told(*words: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = chimera("review", *words, "--json")
    document: dict[str, Any] = json.loads(out)
    return code, document


def ask(key: str = "ticket-7", confidence: str = "0.5", *more: str) -> dict[str, Any]:
    words = ("ask", "Answer a ticket", "--confidence", confidence, "--key", key, "--by", "agent-1", *more)
    code, item = told(*words)
    assert code == (0 if item["may_go_on"] else 4)
    return item


def test_what_is_asked_waits_and_is_approved() -> None:
    item = ask()
    assert ask()["id"] == item["id"]
    code, out, _ = chimera("review", "list")
    assert code == 0 and item["id"][:12] in out and "Answer a ticket" in out
    assert chimera("review", "claim", item["id"][:6], "--as", "cleo")[0] == 0
    code, out, _ = chimera("review", "approve", item["id"][:6], "--as", "ann")
    assert code == 1 and "cleo has claimed it" in out
    assert chimera("review", "release", item["id"][:6], "--as", "cleo")[0] == 0
    assert chimera("review", "approve", item["id"][:6], "--as", "ann")[0] == 0
    assert chimera("review", "approve", item["id"][:6], "--as", "ann")[0] == 0, "again is fine"
    code, refused = told("reject", item["id"], "no", "--as", "ann")
    assert (code, refused["refused"]) == (1, "ended")
    assert ask()["may_go_on"]
    assert "nothing waits" in chimera("review", "list")[2]


def test_sure_ones_go_on_and_critical_ones_wait() -> None:
    assert ask("a", "0.95")["routing"]["route"] == "automatic"
    assert ask("b", "0.8")["routing"]["route"] == "monitored"
    assert not ask("c", "1.0", "--kind", "payment", "--usd", "50.01")["may_go_on"]
    assert not ask("d", "1.0", "--kind", "publish", "--audience", "new")["may_go_on"]
    code, rows, _ = chimera("review", "list", "--mine", "--as", "cleo", "--json")
    assert code == 0 and len(rows.splitlines()) == 2


def test_four_eyes_edits_and_versions(tmp_path: Path) -> None:
    item = ask("deal", "0.9", "--kind", "contract", "--payload", '{"text": "Hello", "price": 1}')
    (tmp_path / "new.json").write_text('{"text": "Dear customer", "price": 2}')
    words = ("edit", item["id"], f"@{tmp_path / 'new.json'}", "--reason", "politer")
    assert chimera("review", *words, "--as", "cleo")[0] == 1, "she is in another group"
    code, out, err = chimera("review", *words, "--as", "ann")
    assert code == 4 and "one more has to" in err, out
    code, out, _ = chimera("review", "approve", item["id"], "--as", "bob")
    assert code == 1 and "approve version 1" in out
    assert chimera("review", "approve", item["id"], "--as", "bob", "--version", "1")[0] == 0
    code, out, _ = chimera("review", "show", item["id"])
    assert code == 0 and "Dear customer" in out and "Hello" in out and "version 1, by ann" in out
    assert told("show", item["id"])[1]["state"] == "edited"


def test_reject_and_escalate_say_why() -> None:
    item = ask()
    assert chimera("review", "escalate", item["id"], "--to", "leads", "--reason", "?", "--as", "cleo")[0] == 0
    assert chimera("review", "reject", item["id"], "no", "--as", "cleo")[0] == 1
    code, _, err = chimera("review", "reject", item["id"], " ", "--as", "ann")
    assert code == 2 and "reason" in err
    assert chimera("review", "reject", item["id"], "It is \x1b[31mwrong", "--as", "ann")[0] == 0
    code, out, _ = chimera("review", "show", item["id"])
    assert "ann: It is \\x1b[31mwrong" in out
    assert told("ask", "Answer a ticket", "--confidence", "0.5", "--key", "ticket-7", "--by", "agent-1")[0] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "abc"), "at least 4"),
        (("show", ""), "at least 4"),
        (("show", "abcd1234"), "no item whose id begins"),
        (("approve", "../../etc", "--as", "ann"), "no id"),
        (("ask", "x", "--confidence", "1.5"), "confidence"),
        (("ask", "x", "--confidence", "nan"), "confidence"),
        (("ask", "x", "--confidence", "0.5", "--payload", "{"), "no JSON"),
        (("ask", "x", "--confidence", "0.5", "--payload", "@/nowhere"), "cannot be read"),
        (("ask", "x", "--confidence", "0.5", "--by", "a b"), "asker"),
        (("list", "--queue", "a b"), "no name for a review queue"),
        (("list", "--policy", "/nowhere.yaml"), "cannot be read"),
        (("calibrate", "--error", "0"), "between 0 and 1"),
    ],
)
def test_bad_input_says_what_is_wrong(words: tuple[str, ...], said: str) -> None:
    code, out, err = chimera("review", *words)
    assert code == 2 and said in err and out == "" and "Traceback" not in err


def test_the_policy_that_is_printed_can_be_used(tmp_path: Path) -> None:
    code, out, _ = chimera("review", "policy")
    assert code == 0 and yaml.safe_load(out)["person_below"] == 0.7
    (path := tmp_path / "mine.yaml").write_text(out)
    assert told("policy", "--policy", str(path)) == told("policy")


def test_calibrating_says_what_is_not_known_and_what_is(tmp_path: Path) -> None:
    code, found = told("calibrate")
    assert (code, found["labelled"], found["automatic"]["state"]) == (1, 0, "too_few")
    item = ask()
    chimera("review", "approve", item["id"], "--as", "ann")
    code, out, _ = chimera("review", "calibrate", "--plot", str(tmp_path / "it.png"))
    assert code == 1 and "1 of 1 proposals have been decided" in out and "not enough decisions" in out
    assert (tmp_path / "it.png").stat().st_size > 1_000


def test_one_round_of_watching_and_the_audit_log(home: Path) -> None:
    item = ask()
    chimera("review", "approve", item["id"], "--as", "bob")
    code, _, err = chimera("review", "watch", "--once")
    assert code == 0 and "0 wait" in err
    [log] = (home / "review" / "main" / "audit").glob("*.jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(each["action"], each["actor"]) for each in entries] == [
        ("review.asked", "agent-1"),
        ("review.decided", "bob"),
    ]
