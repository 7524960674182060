"""What synthetic records are good for: models learn from them, and are tried on real ones (TSTR).

    python -m bench.sandbox_utility [--seeds 3] [--datasets breast_cancer,digits,synthetic] [--epsilons 1,10,inf]
                                    [--quick] [--json]

Area under the ROC curve and average precision (mean over the classes) of logistic regression and a random forest, mean
and standard deviation over seeds 0, 1, 2 ... A seed fixes the split (70 % to train on, 30 % to test on), the networks
and the noise; all synthesizers of a seed get the same split, and make as many records as they saw. `real` is the same
models on the real records: the ceiling. CTGAN-like is not private, and stands beside the others without privacy only
(not with --quick).

The GAN's defaults (`chimera/sandbox/settings.py`) were chosen on seeds 10 to 25. `--first-seed` goes back to them.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from chimera.sandbox.baselines.ctgan import CtganSynthesizer
from chimera.sandbox.baselines.gaussian import GaussianSynthesizer
from chimera.sandbox.baselines.merf import MerfSynthesizer
from chimera.sandbox.baselines.synthesizer import Synthesizer
from chimera.sandbox.datasets import load
from chimera.sandbox.schema import Table
from chimera.sandbox.settings import GanSettings
from chimera.sandbox.synthesizer import GanSynthesizer
from chimera.sandbox.utility import Utility, utility

DELTA = 1e-5

TRAIN_SHARE = 0.7

QUICK_STEPS = 100

MEASURES = tuple(Utility.model_fields)


def split(table: Table, seed: int) -> tuple[Table, Table]:
    """Records to train on, and the others."""
    order = np.random.default_rng(seed).permutation(len(table))
    cut = round(TRAIN_SHARE * len(table))
    return table.take(order[:cut]), table.take(order[cut:])


def synthesizers(epsilon: float, quick: bool) -> list[Callable[[], Synthesizer]]:
    """What is compared at that epsilon."""
    if quick:
        quickly = GanSettings(steps=QUICK_STEPS)
        return [lambda: GanSynthesizer(quickly), GaussianSynthesizer, lambda: MerfSynthesizer(steps=QUICK_STEPS)]
    found: list[Callable[[], Synthesizer]] = [GanSynthesizer, GaussianSynthesizer, MerfSynthesizer]
    return found if math.isfinite(epsilon) else [*found, CtganSynthesizer]


def row(name: str, make: Callable[[], Synthesizer] | None, *, epsilon: float, seeds: Sequence[int]) -> dict[str, Any]:
    """One synthesizer, or without one the real records, on one set."""
    began, found, claimed = time.perf_counter(), [], 0.0
    for seed in seeds:
        train, test = split(load(name), seed)
        if make is not None:
            synthesizer = make()
            synthesizer.fit(train, epsilon=epsilon, delta=DELTA, seed=seed)
            claimed = max(claimed, synthesizer.ledger.epsilon())
            train = synthesizer.sample(len(train), seed)
        found.append(utility(train, test))
    values = {measure: [getattr(each, measure) for each in found] for measure in MEASURES}
    return {
        "dataset": name,
        "epsilon": str(epsilon),
        "synthesizer": synthesizer.name if make is not None else "real",
        "spent": str(claimed) if make is not None else "-",
        "mean": {measure: float(np.mean(each)) for measure, each in values.items()},
        "spread": {measure: float(np.std(each)) for measure, each in values.items()},
        "seconds": time.perf_counter() - began,
    }


def show(row: dict[str, Any]) -> None:
    cells = (f"{row['mean'][measure]:.3f} ± {row['spread'][measure]:.3f}" for measure in MEASURES)
    epsilon = "-" if row["synthesizer"] == "real" else f"{float(row['epsilon']):g}"
    print(f"| {row['dataset']} | {epsilon} | {row['synthesizer']} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--datasets", default="breast_cancer,digits,synthetic", help="comma-separated")
    parser.add_argument("--epsilons", default="1,10,inf", help="comma-separated")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps of each: to see that it runs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    if not options.json:
        print(f"| data | epsilon | synthesizer | {' | '.join(MEASURES)} |\n|{'---|' * (3 + len(MEASURES))}")
    rows = []

    def add(found: dict[str, Any]) -> None:
        rows.append(found)
        if not options.json:
            show(found)

    for name in options.datasets.split(","):
        add(row(name, None, epsilon=math.inf, seeds=seeds))
        for epsilon in map(float, options.epsilons.split(",")):
            for make in synthesizers(epsilon, options.quick):
                add(row(name, make, epsilon=epsilon, seeds=seeds))
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
