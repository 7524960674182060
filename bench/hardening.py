"""How much hardening adds to detectors of odd batches and odd windows, and what it costs on clean data.

    python -m bench.hardening [--only synthetic,breast_cancer,digits,metric,nab] [--nab DIR] [--seed 1] [--quick]
                              [--plot docs/images/hardening.svg] [--json]

Each set is parted into records to fit, to calibrate and to measure on; the detector, the source of synthetic records (a
Gaussian with the fitting part's moments) and the head see the first, thresholds the second, and the figures are of the
third and of threats made from it. `metric` is a made-up one of white noise, `nab` the series of Numenta's benchmark in
`DIR/data` that are longest: their windows are clean but for what the benchmark's labels mark, which is cut out.
`--quick` shows that it runs: its figures mean little. The plot is of the first set.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from chimera.anomaly.evaluate import load_nab
from chimera.sandbox.datasets import load
from chimera.sandbox.hardening import BatchDetector, HardenReport, MarginalDetector, Parts, harden
from chimera.sandbox.hardening.harden import Effort
from chimera.sandbox.hardening.plot import plot_hardening
from chimera.sandbox.schema import Column, Floats, Schema, Table
from chimera.sandbox.threats import Reference, Synthetic, bootstrap
from chimera.system.hardening import EnsembleDetector, windows_of

NAB = Path(__file__).resolve().parents[1] / "tests" / "data" / "nab"

LENGTH = 192
"""Points of a window."""

EVERY = 8
"""Points from one window to the next: neighbours overlap, so parts are stretches of time with gaps."""

PAST = 1_000

TABLES = Effort(rounds=1, train_batches=40, measure_batches=200, clean_batches=60_000, queries=64)

WINDOWS = Effort(rounds=1, train_batches=100, measure_batches=200, clean_batches=4_000, queries=8)

QUICK = Effort(rounds=1, train_batches=8, measure_batches=20, clean_batches=2_000, queries=8)


def gaussian(table: Table) -> Synthetic:
    """Records with the table's means and covariances, and its labels by chance: the plainest generator."""
    means = table.values.mean(axis=0)
    left, variances, _ = np.linalg.svd(np.cov(table.values.T))
    root = left * np.sqrt(variances)

    def draw(n: int, rng: np.random.Generator) -> Table:
        values = means + rng.standard_normal((n, len(means))) @ root.T
        labels = None if table.labels is None else rng.choice(table.labels, n)
        return Table(table.schema, table.schema.snap(values), labels)

    return draw


def correlated(n: int, seed: int) -> Table:
    """Twelve columns that three hidden ones drive."""
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((12, 3))
    values = rng.standard_normal((n, 3)) @ loadings.T + rng.standard_normal((n, 12))
    schema = Schema(columns=tuple(Column(name=f"c{number}", low=-6.0, high=6.0, step=0.125) for number in range(12)))
    return Table(schema, schema.snap(values / np.sqrt((loadings**2).sum(axis=1) + 1.0)))


def of_table(table: Table, effort: Effort, seed: int) -> HardenReport:
    parts = Parts.by_chance(table, np.random.default_rng([seed, 1]))
    detector: BatchDetector = MarginalDetector(Reference.of(parts.fit))
    return harden(detector, parts, gaussian(parts.fit), seed=seed, effort=effort)[1]


def of_metric(values: Floats, effort: Effort, seed: int) -> HardenReport:
    past, rest = values[:PAST], values[PAST:]
    low, high = float(np.floor(values.min())) - 1.0, float(np.ceil(values.max())) + 1.0
    table = windows_of(rest, LENGTH, column=Column(name="metric", low=low, high=high), every=EVERY)
    parts = Parts.in_order(table, gap=-(-LENGTH // EVERY))
    watch = EnsembleDetector(past, length=LENGTH)
    return harden(watch, parts, bootstrap(parts.fit), seed=seed, windows=True, alarms_per_1000=10.0, effort=effort)[1]


def longest(folder: Path) -> Floats:
    """The readings of the longest series, less those that are labelled."""
    series = max(load_nab(folder), key=lambda each: len(each.values))
    print(f"{series.name}", file=sys.stderr)
    return np.asarray(series.values[~series.inside()], np.float64)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="synthetic,breast_cancer,digits,metric,nab")
    parser.add_argument("--nab", type=Path, default=NAB)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    tables, windows = (QUICK, QUICK) if asked.quick else (TABLES, WINDOWS)
    seed: int = asked.seed
    sets: dict[str, Callable[[], HardenReport]] = {
        "synthetic": lambda: of_table(correlated(20_000, seed), tables, seed),
        "breast_cancer": lambda: of_table(load("breast_cancer"), tables, seed),
        "digits": lambda: of_table(load("digits"), tables, seed),
        "metric": lambda: of_metric(50.0 + 5.0 * np.random.default_rng(seed).standard_normal(30_000), windows, seed),
        "nab": lambda: of_metric(longest(asked.nab), windows, seed),
    }
    for number, name in enumerate(asked.only.split(",")):
        began = time.perf_counter()
        report = sets[name]()
        took = time.perf_counter() - began
        print(report.model_dump_json() if asked.json else f"{name} ({took:.0f} s): {report.as_table()}\n", flush=True)
        if asked.plot and number == 0:
            plot_hardening(report, asked.plot)


if __name__ == "__main__":
    main()
