"""Push readings into an engine and act upon what it says: `python -m examples.watching.push`."""

from __future__ import annotations

import asyncio
import random

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.core.watching import AnomalyDetected, Reading

STEP_S = 10.0


def latency(at: int, rng: random.Random) -> float:
    """Milliseconds, of which a bad release adds 60 from step 700 on."""
    return rng.gauss(80.0, 5.0) + (60.0 if at >= 700 else 0.0)


async def main() -> list[AnomalyDetected]:
    rng = random.Random(1)
    engine = AnomalyDetectionEngine()
    found = []
    for at in range(900):
        now = 1_700_000_000.0 + at * STEP_S
        readings = [Reading(f"latency_ms{{host={host}}}", now, latency(at, rng)) for host in "abc"]
        for alert in await engine.push(readings):
            if isinstance(alert, AnomalyDetected):
                found.append(alert)
                print(f"step {at}: {alert.kind} of {alert.metric}, expected {alert.expected:.0f}, is {alert.value:.0f}")
    status = engine.status()
    print(f"{status.readings:,} readings of {status.metrics} metrics, {status.alerts} alerts")
    await engine.aclose()
    return found


if __name__ == "__main__":
    asyncio.run(main())
