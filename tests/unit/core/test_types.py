"""Shared models refuse what makes no sense, are immutable, and pass through JSON and pickle unchanged."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from chimera.core.events import Event, EventKind
from chimera.core.types import (
    MAX_REPLICAS,
    AgentSpec,
    Consensus,
    Decision,
    Equality,
    EqualityKind,
    FailureKind,
    Frozen,
    MissionState,
    Name,
    Outcome,
    Quote,
    Reply,
    Task,
    TaskResult,
    Vote,
)

WHOLE: list[Frozen] = [
    Task(goal="count", inputs={"file": "a.txt"}, replicas=5, consensus=Consensus.QUORUM, threshold=0.6),
    Reply(value={"rows": [1, None, "x"]}, confidence=0.25),
    Vote(voter="t1/0", reply=Reply(value=4)),
    Vote(voter="t1/1", failure=FailureKind.TIMEOUT, detail="after 3 s"),
    Decision(outcome=Outcome.TIE, method=Consensus.MAJORITY, electorate=2, counted=2),
    TaskResult(mission_id="m1", state=MissionState.FAILED, error={"kind": "GraphError", "message": "a cycle"}),
    AgentSpec(role="judge", options={"seed": 3}),
    Quote(text="so", file="a.pdf", line=2, page=1),
    Event(mission_id="m1", seq=1, kind=EventKind.MISSION_ADMITTED, at_s=12.5),
]


@pytest.mark.parametrize("model", WHOLE, ids=lambda model: type(model).__name__)
def test_a_model_travels_unchanged(model: Frozen) -> None:
    assert type(model).model_validate_json(model.model_dump_json()) == model
    assert pickle.loads(pickle.dumps(model)) == model


@pytest.mark.parametrize("model", WHOLE, ids=lambda model: type(model).__name__)
def test_a_model_is_frozen_and_closed(model: Frozen) -> None:
    field = next(iter(type(model).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, field, getattr(model, field))
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(model).model_validate({**model.model_dump(), "surprise": 1})


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (Task, {"goal": ""}, "at least 1 character"),
        (Task, {"goal": "x" * 20_001}, "at most 20000"),
        (Task, {"goal": "x", "replicas": 0}, "greater than or equal to 1"),
        (Task, {"goal": "x", "replicas": MAX_REPLICAS + 1}, "less than or equal to 64"),
        (Task, {"goal": "x", "max_attempts": 11}, "less than or equal to 10"),
        (Task, {"goal": "x", "threshold": 0.5}, "only for quorum"),
        (Task, {"goal": "x", "consensus": "quorum", "threshold": 0.0}, "greater than 0"),
        (Task, {"goal": "x", "deadline_s": 0}, "greater than 0"),
        (Task, {"goal": "x", "deadline_s": float("inf")}, "finite"),
        (Task, {"goal": "x", "deadline_s": 86_401}, "less than or equal to 86400"),
        (Task, {"goal": "x", "role": "a b"}, "match pattern"),
        (Task, {"goal": "x", "inputs": {"at": object()}}, "valid JSON"),
        (Equality, {"kind": "text", "tolerance": 0.1}, "only for numeric"),
        (Equality, {"kind": "numeric", "tolerance": -1}, "greater than or equal to 0"),
        (Reply, {"value": 1, "confidence": 1.1}, "less than or equal to 1"),
        (Reply, {"value": 1, "confidence": float("nan")}, "finite"),
        (Reply, {"value": 1, "alternatives": [{"value": 2, "confidence": 0.1}] * 65}, "at most 64"),
        (Vote, {"voter": "v"}, "a reply or a failure"),
        (Vote, {"voter": "v", "reply": {"value": 1}, "failure": "raised"}, "a reply or a failure"),
        (
            Decision,
            {"outcome": "agreed", "method": "majority", "electorate": -1, "counted": 0},
            "greater than or equal",
        ),
        (Quote, {"text": "so", "file": "a.txt", "line": 0}, "greater than or equal to 1"),
        (Event, {"mission_id": "m", "seq": 0, "kind": "task_started", "at_s": 1.0}, "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(model: type[Frozen], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        model.model_validate(fields)


def test_what_the_refusals_stand_beside_is_allowed() -> None:
    assert Task(goal="x", consensus=Consensus.QUORUM, threshold=1.0).threshold == 1.0
    assert Equality(kind=EqualityKind.NUMERIC, tolerance=0.1).tolerance == 0.1
    assert Task(goal="x", replicas=MAX_REPLICAS, deadline_s=86_400).replicas == 64


@pytest.mark.parametrize("name", ["a", "worker-1", "t[3]/0", "a.b:c_d", "x" * 128])
def test_names_that_are_safe_everywhere(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".hidden", "a b", "a\n", "a;b", "é", "a'b", "x" * 129])
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


def test_a_citation_names_the_page_where_there_is_one() -> None:
    assert Quote(text="so", file="a.txt", line=7).citation == "[a.txt:7]"
    assert Quote(text="so", file="a.pdf", line=7, page=3).citation == "[a.pdf:p3:7]"


def test_a_mission_has_five_ends() -> None:
    assert [state.value for state in MissionState if state.ended] == [
        "answered",
        "undecided",
        "expired",
        "cancelled",
        "failed",
    ]
    assert Decision(outcome=Outcome.AGREED, method=Consensus.MAJORITY, electorate=1, counted=1).agreed
    assert not Decision(outcome=Outcome.NO_QUORUM, method=Consensus.QUORUM, electorate=1, counted=0).agreed
