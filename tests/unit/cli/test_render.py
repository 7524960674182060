"""What a person sees: documents and file names are written by strangers."""

from __future__ import annotations

import json

import pytest

from chimera.cli import render
from chimera.core.types import Consensus, Decision, MissionState, Outcome, Quote, TaskResult
from chimera.swarm.brief import Brief, Skipped

HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\u202ed [bold]e[/] \x7f"


def result(value: object) -> TaskResult:
    return TaskResult(mission_id="m", state=MissionState.ANSWERED, value=value)  # type: ignore[arg-type]


def brief(text: str) -> Brief:
    decision = Decision(outcome=Outcome.AGREED, method=Consensus.WEIGHTED, electorate=1, counted=1, explanation=text)
    quote = Quote(text=text, file=text, line=1)
    skipped = (Skipped(file=text, cause=text),)
    return Brief(
        question=text, answer=text, quotes=(quote,), confidence=1.0, decision=decision, skipped=skipped, note=text
    )


def test_a_terminal_obeys_nothing_that_stands_in_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    render.result(HOSTILE, result(brief(HOSTILE).model_dump(mode="json")))
    render.short(HOSTILE, result(brief(HOSTILE).model_dump(mode="json")))
    render.error(ValueError(HOSTILE), as_json=False)
    printed = "".join(capsys.readouterr())
    assert "\\x1b]0;owned\\x07b\\x9b2Jc\\x202ed [bold]e[/] \\x7f" in printed
    assert not any(character in printed for character in "\x1b\x07\x9b\x7f\u202e")


def test_json_of_hostile_text_is_plain_ascii_and_the_same_text() -> None:
    line = render.to_line(render.as_json("q", result(brief(HOSTILE).model_dump(mode="json"))))
    assert line.isascii() and line.isprintable()
    assert json.loads(line)["answer"] == HOSTILE


def test_only_voters_whose_reply_is_not_the_decisions_dissent() -> None:
    told = render.as_json(
        "q", TaskResult(mission_id="m", state=MissionState.ANSWERED, value="paris", supporters=("v1",))
    )
    assert told["dissent"] == []
