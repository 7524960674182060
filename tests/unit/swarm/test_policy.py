from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from chimera.core.errors import PolicyError, ReplyError
from chimera.core.types import AgentSpec, Alternative, Isolation, Reply, Task
from chimera.swarm.policy import Seat, check_reply


def test_a_named_policy_is_found() -> None:
    policy = Seat.of(AgentSpec(policy="chimera.swarm.roles:echo")).load()
    assert policy(Task(goal="hello"), None) == "hello"


def test_a_closure_travels_by_value() -> None:
    word = "inside"

    async def closure(task: Task, context: Any) -> str:
        return word

    seat = pickle.loads(pickle.dumps(Seat.of(AgentSpec(policy=closure))))
    coroutine = seat.load()(Task(goal="g"), None)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value == "inside"
    assert seat.label.endswith("closure")


def test_a_class_is_made_with_its_options() -> None:
    policy = Seat.of(AgentSpec(policy="tests.policies:Counting", options={"start": 5})).load()
    assert policy.calls == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("no_colon", "package.module:name"),
        ("chimera.nothing_here:echo", "ModuleNotFoundError"),
        ("chimera.swarm.roles:nothing_here", "AttributeError"),
        ("chimera.swarm.roles:METHODS", "not something that can be called"),
    ],
)
def test_a_policy_that_is_not_there_is_a_clear_error(policy: str, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        Seat.of(AgentSpec(policy=policy)).load()


def test_a_class_that_cannot_be_called_is_refused_before_it_is_made(tmp_path: Path) -> None:
    made = tmp_path / "made"
    spec = AgentSpec(policy="subprocess:Popen", options={"args": ["touch", str(made)]})
    with pytest.raises(PolicyError, match="without __call__"):
        Seat.of(spec).load()
    assert not made.exists()


def test_a_module_that_exits_on_import_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exits_on_import.py").write_text("import sys; sys.exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PolicyError, match="SystemExit"):
        Seat.of(AgentSpec(policy="exits_on_import:policy")).load()


def test_a_pickle_that_cannot_be_opened_here_is_a_clear_error() -> None:
    seat = Seat("a", "worker", "broken", Isolation.PACKED, {}, b"not a pickle")
    with pytest.raises(PolicyError, match="broken"):
        seat.load()


def test_options_for_a_function_are_refused() -> None:
    with pytest.raises(PolicyError, match="options are for classes"):
        Seat.of(AgentSpec(policy="chimera.swarm.roles:echo", options={"x": 1})).load()


def test_a_policy_that_cannot_be_pickled_is_a_clear_error() -> None:
    import threading

    lock = threading.Lock()
    with pytest.raises(PolicyError, match=r"package\.module:name"):
        Seat.of(AgentSpec(policy=lambda task, context: lock))


@pytest.mark.parametrize("value", [1, "a", [1, {"a": None}], True, 0.5])
def test_json_values_become_replies(value: Any) -> None:
    assert check_reply(value, max_bytes=1_000) == Reply(value=value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "returned nothing"),
        (object(), "not a JSON value"),
        ({1, 2}, "not a JSON value"),
        (float("nan"), "not a JSON value"),
        ({"deep": float("inf")}, "not a JSON value"),
        ("x" * 2_000, "the limit is 1000"),
        (b"bytes", "not a JSON value"),
        (Reply(value="x", alternatives=(Alternative(value="y" * 2_000, confidence=1.0),)), "the limit"),
    ],
)
def test_garbage_is_refused_with_the_reason(value: Any, said: str) -> None:
    with pytest.raises(ReplyError, match=said):
        check_reply(value, max_bytes=1_000)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ReplyError):
        check_reply(value, max_bytes=1_000)
