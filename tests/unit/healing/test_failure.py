"""The reason for a patch, as it is told to whoever writes one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from chimera.core.watching import AnomalyDetected, AnomalyKind, Evidence, FailurePredicted
from chimera.healing.failure import MAX_READINGS, SHOWN_READINGS, Failure, failure_of

ANOMALY = AnomalyDetected(
    metric="latency_ms",
    timestamp=105.0,
    value=250.0,
    kind=AnomalyKind.SPIKE,
    score=8.25,
    since=100.0,
    expected=20.0,
    evidence=(Evidence(channel="up", score=6.0, distance=11.5, unit="sigma", since=100.0),),
)


def test_an_anomaly_is_told_with_its_evidence_and_its_history() -> None:
    readings = [(float(at), 20.0 + at) for at in range(3_000)]
    failure = failure_of(ANOMALY, "shop.prices", readings)
    assert (failure.kind, failure.metric, len(failure.readings)) == ("anomaly", "latency_ms", MAX_READINGS)
    assert failure.readings[-1] == readings[-1]
    told = failure.told()
    for part in ("shop.prices", "spike", "250", "expect 20", "up 11.5 sigma", "'latency_ms' since 2000"):
        assert part in told
    assert told.count(" s: ") <= SHOWN_READINGS


def test_a_prediction_names_the_limit() -> None:
    warned = FailurePredicted(
        metric="memory", timestamp=1, value=80, limit=90, side="above", in_s=400, earliest_s=300, forecast=91
    )
    told = failure_of(warned, "shop").told()
    assert "above its limit 90 in 400 s" in told and "cross its limit" in told


@pytest.mark.parametrize("module", ["", "../x", "a..b", "a b", "1a", "a.py;rm"])
def test_a_module_is_a_dotted_name(module: str) -> None:
    with pytest.raises(ValidationError):
        Failure(kind="description", module=module, text="it is slow")
