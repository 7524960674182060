"""The treasury under watch: what it spends, as readings; an anomaly in them stops all spending until a person looks."""

from __future__ import annotations

from collections.abc import Iterable

from chimera.core.watching import Alert, AnomalyDetected, Reading
from chimera.system.treasury import Treasury
from chimera.treasury.types import NANO

PREFIX = "treasury_"
BY = "anomaly-watch"


async def treasury_readings(treasury: Treasury, at_s: float) -> list[Reading]:
    """How much of each cap is used, in whole units of its currency, and how many payments are in hand."""
    readings = [
        Reading(f"{PREFIX}used_{use.cap.window}_{use.cap.currency.lower()}", at_s, use.used / NANO)
        for use in await treasury.caps()
        if use.cap.account == "*"
    ]
    readings.append(Reading(f"{PREFIX}in_hand", at_s, float(len(await treasury.in_hand()))))
    return readings


async def heed(treasury: Treasury, alerts: Iterable[Alert]) -> str:
    """Stop all spending where more is spent, or asked for, than was to be expected: why; empty where it goes on."""
    for alert in alerts:
        if not isinstance(alert, AnomalyDetected) or not alert.metric.startswith(PREFIX):
            continue
        if alert.value > alert.expected and await treasury.stopped() is None:
            why = f"{alert.metric} was {alert.value:.6g}, and {alert.expected:.6g} was to be expected"
            await treasury.stop(why, BY)
            return why
    return ""
