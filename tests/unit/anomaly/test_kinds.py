"""Clean examples of each kind, by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from chimera.anomaly.ensemble import KINDS, Ensemble

Series = npt.NDArray[np.float64]

START, LENGTH = 700, 100
RAMP = np.linspace(0, 12, LENGTH)
WAVE = 4 * np.sin(2 * np.pi * np.arange(LENGTH) / 8)


def bump(size: float, length: int) -> Callable[[Series], Series]:
    def put(series: Series) -> Series:
        series[START : START + length] += size
        return series

    return put


def added(event: Series) -> Callable[[Series], Series]:
    def put(series: Series) -> Series:
        series[START : START + len(event)] += event
        return series

    return put


def frozen(series: Series) -> Series:
    series[START : START + LENGTH] = series[START - 1]
    return series


def louder(series: Series) -> Series:
    series[START : START + LENGTH] *= 4
    return series


def first_kind(series: Series) -> str | None:
    ensemble = Ensemble(1)
    for number, value in enumerate(series):
        verdicts = ensemble.update([value])
        if verdicts.alert[0] and number >= START:
            return KINDS[verdicts.kind[0]]
    return None


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (bump(12, 2), "spike"),
        (bump(10, 25), "spike"),
        (bump(-12, 2), "drop"),
        (bump(-10, 25), "drop"),
        (added(RAMP), "trend"),
        (added(-RAMP), "trend"),
        (added(WAVE), "pattern"),
        (frozen, "pattern"),
        (louder, "pattern"),
    ],
)
def test_a_clean_example_is_told_apart(event: Callable[[Series], Series], kind: str) -> None:
    """In most streams: a louder stretch may begin with what looks like a drop."""
    found = [first_kind(event(np.random.default_rng(seed).normal(size=1000))) for seed in range(5)]
    assert found.count(kind) >= 3, found


def test_a_kind_is_given_with_alerts_and_only_there() -> None:
    ensemble = Ensemble(6)
    table = np.random.default_rng(1).normal(size=(1000, 6))
    table[START : START + 10, :4] += 15
    seen = 0
    for row in table:
        verdicts = ensemble.update(row)
        np.testing.assert_array_equal(verdicts.kind >= 0, verdicts.alert)
        seen += int(verdicts.alert.sum())
    assert seen >= 4
