"""What a poisoned sandbox does to a federation under each of Flower's strategies, and what a round costs.

    python -m bench.federation [--rounds 5] [--seeds 3] [--json]

Seven sandboxes with private records of mean 0.97, each with a small linear generator (`tests/unit/sandbox/federation`).
In every run but the honest one the seventh is an enemy and the third dies after two rounds. Shown is the mean of what
the federation's generator makes: the median over seeds, and the one that is farthest from the target. Bulyan with one
malicious node needs seven replies, so from the death on it changes nothing more. (Replies that are not finite never get
as far as a strategy: the tests show that.)
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.sandbox.federation import tiny
from tests.unit.sandbox.federation.house import dying, hold, plan

STRATEGIES = ("fedavg", "fedprox", "fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan")
MEANS = ("fedavg", "fedprox")
ENEMIES = ("honest", "scaled", "flipped")
DIES = 3


def run(strategy: str, enemy: str, rounds: int, seed: int) -> tuple[float, float]:
    """The mean of the generator that comes of it, and the seconds that a round took."""
    fields: dict[str, Any] = {"rounds": rounds, "steps": 10}
    if strategy not in MEANS:
        fields["malicious"] = 1
    if strategy == "fedprox":
        fields["proximal_mu"] = 0.1
    with tempfile.TemporaryDirectory() as folder:
        federated = hold(
            Path(folder),
            ["honest"] * 6 + [enemy],
            plan(strategy, **fields),
            instead=lambda i, send: dying(send, after=2) if i == DIES and enemy != "honest" else None,
            first_seed=100 * seed,
        )
    return tiny.mean(federated.arrays), statistics.median(each.wall_s for each in federated.report.rounds)


def table(rounds: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each strategy."""
    rows = []
    for strategy in STRATEGIES:
        row: dict[str, Any] = {"strategy": strategy}
        for enemy in ENEMIES:
            found = [run(strategy, enemy, rounds, seed) for seed in seeds]
            means = [mean for mean, _ in found]
            row[enemy] = statistics.median(means)
            row[f"{enemy}_worst"] = max(means, key=lambda mean: abs(mean - tiny.TARGET))
            row["round_s"] = float(np.median([seconds for _, seconds in found]))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = table(options.rounds, range(options.seeds))
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'target ' + str(tiny.TARGET):14}" + "".join(f"{enemy:>26}" for enemy in ENEMIES) + f"{'s a round':>12}")
    for row in rows:
        shown = "".join(f"{row[e]:>13.4g} (worst {row[f'{e}_worst']:>6.4g})".rjust(26) for e in ENEMIES)
        print(f"{row['strategy']:14}{shown}{row['round_s']:>12.3f}")


if __name__ == "__main__":
    main()
