"""Confidence: each thing that is measured counts in its own direction, and nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.healing.confidence import changed_lines, confidence

measured = st.fixed_dictionaries(
    {
        "rate": st.floats(0.0, 0.9),
        "reproduced": st.just(False),
        "passed": st.integers(0, 10_000),
        "lines": st.integers(0, 100_000),
    }
)


@given(measured)
def test_more_that_speaks_for_it_is_never_less(found: dict[str, float]) -> None:
    base = confidence(**found)  # type: ignore[arg-type]
    assert 0.0 <= base <= 1.0
    for better in ({"rate": found["rate"] + 0.1}, {"reproduced": True}, {"passed": found["passed"] + 1}):
        assert confidence(**{**found, **better}) >= base  # type: ignore[arg-type]
    assert confidence(**{**found, "lines": found["lines"] + 1}) <= base  # type: ignore[arg-type]


def test_its_ends() -> None:
    assert confidence(rate=0.0, reproduced=False, passed=0, lines=10**9) == 0.0
    assert confidence(rate=1.0, reproduced=True, passed=10**9, lines=0) == 1.0
    assert confidence(rate=0.5, reproduced=True, passed=5, lines=20) == pytest.approx(
        (0.5 + 1 + 0.566 + 0.5) / 4, abs=1e-3
    )


@pytest.mark.parametrize(
    "wrong", [{"rate": 1.1}, {"rate": -0.1}, {"rate": float("nan")}, {"passed": -1}, {"lines": -1}]
)
def test_what_is_no_measurement_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be in"):
        confidence(**{"rate": 0.5, "reproduced": True, "passed": 1, "lines": 1, **wrong})  # type: ignore[arg-type]


def test_lines_that_changed() -> None:
    before = {"a.py": "x = 1\ny = 2\n", "b.py": "z = 3\n"}
    assert changed_lines(before, {}) == changed_lines(before, {"a.py": "y = 2\nx = 1\n"}) == 0
    assert changed_lines(before, {"a.py": "x = 1\ny = 3\n"}) == 2
    assert changed_lines(before, {"new.py": "a\nb\n", "b.py": ""}) == 3
