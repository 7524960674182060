"""What is done about what was noticed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError
from chimera.core.watching import AnomalyDetected, AnomalyKind, FailurePredicted
from chimera.healing.failure import Failure
from chimera.system.metacognition import MAX_SUBJECTS, Decision, MetacognitionOptions, MetacognitiveEngine

OPTIONS = MetacognitionOptions(cooldown_s=100.0, attempts=3, window_s=1_000.0)
OWNERS = {"shop.*": "shop.prices"}


def anomaly(score: float = 9.0, metric: str = "shop.latency", **changes: Any) -> AnomalyDetected:
    told = {"timestamp": 5.0, "value": 3.0, "kind": AnomalyKind.SPIKE, "since": 4.0, "expected": 1.0, **changes}
    return AnomalyDetected(metric=metric, score=score, **told)


def failure(module: str = "shop.prices") -> Failure:
    return Failure(kind="traceback", module=module, text="ZeroDivisionError: division by zero")


def engine(clock: ManualClock | None = None) -> MetacognitiveEngine:
    return MetacognitiveEngine(OWNERS, clock=clock or ManualClock(), options=OPTIONS)


@pytest.mark.parametrize(
    ("event", "action", "module"),
    [
        (anomaly(4.0), "ignore", "shop.prices"),
        (anomaly(5.0), "learn", "shop.prices"),
        (anomaly(6.0), "patch", "shop.prices"),
        (anomaly(6.0, "disk.used"), "learn", None),
        (failure("till"), "patch", "till"),
    ],
)
def test_what_is_weak_or_nobodys_is_no_reason_for_a_patch(event: Any, action: str, module: str | None) -> None:
    decision = engine().consider(event)
    assert (decision.action, decision.module) == (action, module)
    assert decision.reason


def test_a_prediction_is_a_reason_as_an_anomaly_is() -> None:
    warned = FailurePredicted(
        metric="shop.memory", timestamp=1, value=80, limit=90, side="above", in_s=400, earliest_s=300, forecast=91
    )
    assert engine().consider(warned).action == "patch"


def test_while_a_patch_is_in_hand_or_has_just_ended_there_is_no_other() -> None:
    clock = ManualClock()
    brain = engine(clock)
    first = brain.consider(anomaly())
    assert (first.action, first.attempt) == ("patch", 1)
    assert "in hand" in brain.consider(failure()).reason, "the module is the subject, whoever complains about it"
    brain.settled(first, kept=False)
    clock.advance(99.0)
    assert brain.consider(anomaly()).action == "ignore"
    clock.advance(1.0)
    assert brain.consider(anomaly()).attempt == 2


def test_an_escalated_anomaly_is_heeded_after_a_fifth_of_the_time() -> None:
    clock = ManualClock()
    brain = engine(clock)
    brain.settled(brain.consider(anomaly()), kept=False)
    clock.advance(19.0)
    assert brain.consider(anomaly(escalated=True)).action == "ignore"
    clock.advance(2.0)
    assert brain.consider(anomaly()).action == "ignore"
    assert brain.consider(anomaly(escalated=True)).action == "patch"


def test_what_patches_do_not_mend_goes_to_a_person_once() -> None:
    clock = ManualClock()
    brain = engine(clock)
    for _ in range(OPTIONS.attempts):
        brain.settled(brain.consider(anomaly()), kept=False)
        clock.advance(OPTIONS.cooldown_s)
    assert [brain.consider(anomaly()).action for _ in range(3)] == ["ask", "ignore", "ignore"]
    clock.advance(OPTIONS.window_s)
    assert brain.consider(anomaly()).action == "patch"


def test_a_patch_that_was_kept_clears_the_count() -> None:
    clock = ManualClock()
    brain = engine(clock)
    for _ in range(10):
        decision = brain.consider(anomaly())
        assert (decision.action, decision.attempt) == ("patch", 1)
        brain.settled(decision, kept=True)
        clock.advance(OPTIONS.cooldown_s)


def test_where_patches_seldom_help_a_person_is_asked_first() -> None:
    brain = engine()
    assert brain.consider(anomaly(), success_rate=0.1).action == "ask"
    assert brain.consider(anomaly(), success_rate=0.3).action == "patch"


def test_only_what_was_decided_on_can_be_settled() -> None:
    with pytest.raises(InputError, match=r"no patch was decided on for 'x'"):
        engine().settled(Decision(action="patch", subject="x", module="x", reason=""), kept=True)


def test_of_many_subjects_the_quiet_ones_are_forgotten_and_none_that_has_a_patch_in_hand() -> None:
    brain = engine()
    held = brain.consider(failure("held"))
    for number in range(MAX_SUBJECTS + 5):
        decision = brain.consider(failure(f"m{number}"))
        brain.settled(decision, kept=True)
    assert len(brain._subjects) == MAX_SUBJECTS
    assert brain.consider(failure("held")).reason == "a patch for it is in hand"
    brain.settled(held, kept=True)


@given(st.lists(st.tuples(st.floats(0.0, 400.0), st.booleans(), st.booleans()), max_size=60))
def test_there_are_never_more_patches_than_the_window_allows_nor_two_at_once(steps: list[Any]) -> None:
    clock = ManualClock()
    brain = engine(clock)
    begun: list[float] = []
    in_hand: Decision | None = None
    for wait_s, settle, escalated in steps:
        clock.advance(wait_s)
        if settle and in_hand:
            brain.settled(in_hand, kept=False)
            in_hand = None
        decision = brain.consider(anomaly(escalated=escalated))
        if decision.action == "patch":
            assert in_hand is None
            in_hand = decision
            begun.append(clock.monotonic())
            assert len([at for at in begun if at > clock.monotonic() - OPTIONS.window_s]) <= OPTIONS.attempts
