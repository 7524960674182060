"""The windows of the channels: rings with running sums, against sums of what is in them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.anomaly.baseline import BLOCK, BRIEF
from chimera.anomaly.buffer import TimeSeriesBuffer
from chimera.anomaly.channels import FIRST_FIT, Channels

SLOTS = 3


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(FIRST_FIT, 400))
def test_the_sums_are_those_of_the_windows_at_any_pace(seed: int, rounds: int) -> None:
    random = np.random.default_rng(seed)
    channels = Channels(SLOTS, TimeSeriesBuffer(SLOTS), pattern=False)
    for _ in range(rounds):
        at = np.sort(random.permutation(SLOTS)[: random.integers(1, SLOTS + 1)])
        channels.look(random.standard_t(2, len(at)) * 10.0 ** random.integers(-2, 9), at, at)
    rows, recent = channels.rows, channels.recent(np.arange(SLOTS))
    expected = {
        "newer": recent[:, BLOCK:].sum(axis=1),
        "older": recent[:, :BLOCK].sum(axis=1),
        "square": (recent[:, -BRIEF:] ** 2).sum(axis=1),
        "power": (rows["residuals"].astype(float) ** 2).sum(axis=1),
        "rough": rows["steps"].astype(float).sum(axis=1),
    }
    for name, sums in expected.items():
        np.testing.assert_allclose(rows[name], sums, rtol=1e-4, atol=1e-3, err_msg=name)


def test_the_windows_hold_the_last_readings_oldest_first() -> None:
    channels, every = Channels(2, TimeSeriesBuffer(2), pattern=False), np.arange(2)
    values = np.random.default_rng(1).normal(size=(FIRST_FIT + 133, 2))
    for row in values:
        channels.look(row, every, every)
    centre, scale = channels.rows["centre"], channels.rows["scale"]
    assert (channels.rows["period"] == 0).all()
    since = values[-33:]  # the last fit was before these
    np.testing.assert_allclose(channels.recent(every)[:, -33:], ((since - centre) / scale).T, rtol=1e-4, atol=1e-5)
