"""What watching costs: points a second and core, memory a metric, and the share of a core that 10,000 metrics take.

    python -m bench.watching [--metrics 1000 10000] [--updates 400] [--warm 1000] [--json]

One process and one thread. Every metric has a season and noise, one in a thousand points is a spike. The histories are
full before the clock starts (`--warm` points a metric), because a full history is the most work, and it runs over whole
rounds of what is done each so many points. CPU time counts, without that for making the values. `share` is what all of
these metrics take of a core at one point each 10 s.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass

EVERY_S = 10.0

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Cost:
    """`update_p99_ms` is of one update of all metrics; `state_bytes` is a metric's."""

    metrics: int
    pattern: bool
    points_per_s: int
    update_p50_ms: float
    update_p99_ms: float
    state_bytes: int
    share: float


def measure(metrics: int, *, pattern: bool, updates: int = 400, warm: int = 1_000, seed: int = 0) -> Cost:
    """Update `metrics` metrics `warm` times, and then `updates` times by the clock."""
    import numpy as np  # after `main` has asked for one thread

    from chimera.anomaly.ensemble import Ensemble

    rng = np.random.default_rng(seed)
    phases, heights = rng.uniform(0, 2 * np.pi, metrics), 10 ** rng.uniform(-1, 3, metrics)
    ensemble = Ensemble(metrics, pattern=pattern)
    cpu_s = []
    for at in range(warm + updates):
        noise = rng.normal(0, 1, metrics) + 12 * (rng.random(metrics) < 0.001)
        values = heights * (5 * np.sin(2 * np.pi * at / 144 + phases) + noise)
        started = time.process_time()
        ensemble.update(values)
        if at >= warm:
            cpu_s.append(time.process_time() - started)
    return Cost(
        metrics=metrics,
        pattern=pattern,
        points_per_s=round(metrics * updates / sum(cpu_s)),
        update_p50_ms=round(1e3 * float(np.percentile(cpu_s, 50)), 3),
        update_p99_ms=round(1e3 * float(np.percentile(cpu_s, 99)), 3),
        state_bytes=round(ensemble.state_bytes() / metrics),
        share=round(sum(cpu_s) / updates / EVERY_S, 4),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--warm", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    os.environ.update(dict.fromkeys(THREADS, "1"))
    costs = [
        measure(metrics, pattern=pattern, updates=options.updates, warm=options.warm, seed=options.seed)
        for metrics in options.metrics
        for pattern in (False, True)
    ]
    if options.json:
        print(json.dumps([asdict(cost) for cost in costs]))
        return
    print("metrics  channels      points/s   ms an update p50     p99  bytes a metric  share of a core")
    for cost in costs:
        channels = "with pattern" if cost.pattern else "O(1) only"
        print(
            f"{cost.metrics:7}  {channels:12} {cost.points_per_s:9,}"
            f" {cost.update_p50_ms:18.2f} {cost.update_p99_ms:7.2f} {cost.state_bytes:15,} {cost.share:16.2%}"
        )


if __name__ == "__main__":
    main()
