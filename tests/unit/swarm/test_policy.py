from __future__ import annotations

import math
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import BudgetExceeded, PolicyError, ReplyError
from chimera.core.types import AgentSpec, Alternative, Budget, Isolation, Reply, Spend, Task
from chimera.swarm.policy import Meter, Seat, check_reply


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
    reply, encoded = check_reply(value, max_bytes=1_000)
    assert reply == Reply(value=value) == Reply.model_validate_json(encoded)


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


AMOUNTS = st.floats(0.0, 2.0) | st.sampled_from([0.1, 0.2, 0.3])


@given(
    st.lists(st.tuples(AMOUNTS, st.integers(0, 9), st.integers(0, 3))),
    st.none() | AMOUNTS,
    st.none() | st.integers(0, 30),
    st.none() | st.integers(0, 10),
)
def test_a_meter_never_counts_more_than_its_grant(
    wishes: list[tuple[float, int, int]], usd: float | None, tokens: int | None, calls: int | None
) -> None:
    meter = Meter(Budget(usd=usd, tokens=tokens, calls=calls))
    counted = (0.0, 0, 0)
    for wish in wishes:
        after = (counted[0] + wish[0], counted[1] + wish[1], counted[2] + wish[2])
        fits = all(
            limit is None or amount <= limit * (1 + 1e-9)
            for amount, limit in zip(after, (usd, tokens, calls), strict=True)
        )
        try:
            meter.spend(usd=wish[0], tokens=wish[1], calls=wish[2])
        except BudgetExceeded:
            assert not all(
                limit is None or amount <= limit for amount, limit in zip(after, (usd, tokens, calls), strict=True)
            )
        else:
            assert fits
            counted = after
    assert meter.total(2.5) == Spend(usd=counted[0], tokens=counted[1], calls=counted[2], seconds=2.5)


def test_tenths_of_a_cent_add_up_to_the_whole_grant() -> None:
    meter = Meter(Budget(usd=0.3))
    for _ in range(3):
        meter.spend(usd=0.1)
    with pytest.raises(BudgetExceeded, match=r"0\.301 usd would be spent; 0\.3 are reserved for this attempt"):
        meter.spend(usd=0.001)


@pytest.mark.parametrize(
    "amount",
    [
        *({"usd": bad} for bad in (-0.1, math.nan, math.inf, 1e300)),
        *({name: bad} for name in ("tokens", "calls") for bad in (-1, 0.9, math.nan, 1 << 70)),
    ],
    ids=str,
)
def test_what_is_no_amount_is_refused_and_not_counted(amount: dict[str, Any]) -> None:
    meter = Meter(Budget(usd=1.0, tokens=10))
    with pytest.raises(ValueError, match="not an amount to spend"):
        meter.spend(**amount)
    assert meter.total(0.0) == Spend()


def test_after_the_end_nothing_is_spent() -> None:
    meter = Meter(Budget())
    meter.spend(usd=1.0)
    meter.close()
    with pytest.raises(BudgetExceeded, match="has ended"):
        meter.spend(calls=1)
    assert meter.total(0.0).usd == 1.0


def test_threads_together_spend_no_more_than_the_grant() -> None:
    meter = Meter(Budget(tokens=3_000))
    spent: list[int] = []
    before = sys.getswitchinterval()

    def spend() -> None:
        try:
            while True:
                meter.spend(tokens=1)
                spent.append(1)
        except BudgetExceeded:
            return

    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=spend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(spent) == 3_000 == meter.total(0.0).tokens
