"""Be warned of a limit before it is reached: `python -m examples.watching.limits`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.warning import parse_limit
from chimera.anomaly.sources.opening import SourceOptions, open_source
from chimera.core.watching import FailurePredicted

SERVER = Path(__file__).with_name("server.csv")


async def main() -> list[FailurePredicted]:
    engine = AnomalyDetectionEngine(limits=[parse_limit("memory_percent=90")])
    source = open_source(str(SERVER), options=SourceOptions(metrics=("memory_*",)))
    warnings = []
    async for alert in engine.watch(source):
        if isinstance(alert, FailurePredicted):
            warnings.append(alert)
            print(f"{alert.metric} is {alert.value:.0f}, and {alert.limit:.0f} in {alert.in_s / 60:.0f} min")
    await engine.aclose()
    return warnings


if __name__ == "__main__":
    asyncio.run(main())
