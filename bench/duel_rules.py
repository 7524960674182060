"""What the stopping rules of a duel promise and cost, exactly: error rates at p = p0, and samples that a duel takes.

    python -m bench.duel_rules [--p0 0.51] [--alpha 0.05] [--budgets 200,500,2000] [--json]

Nothing is simulated: every number is summed over all duels without ties. `contender` and `champion` are the chances
that a duel stops for that side although p = p0; `samples` the expected length of a duel, and `won` the chance that the
contender wins it, by its true win rate p. `make_s` is the time to make the rule and its error rates.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any, get_args

from chimera.arena.duel.rules import make_rule
from chimera.arena.duel.types import RuleName

BUDGETS = (200, 500, 2_000)

RATES = (0.51, 0.55, 0.6, 0.7, 0.9)


def measure(name: RuleName, *, p0: float, budget: int, alpha: float, rates: Sequence[float]) -> dict[str, Any]:
    """One row: a rule at one budget."""
    began = time.perf_counter()
    rule = make_rule(name, p0=p0, budget=budget, alpha=alpha)
    contender, champion = rule.errors()
    make_s = time.perf_counter() - began
    ends = {p: rule.exits(p) for p in rates}
    return {
        "rule": name,
        "budget": budget,
        "z": rule.z,
        "contender": contender,
        "champion": champion,
        "samples": {str(p): end.samples for p, end in ends.items()},
        "won": {str(p): end.contender for p, end in ends.items()},
        "make_s": make_s,
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    rates = list(rows[0]["samples"])
    names = "".join(f"{'p=' + p:>9}" for p in rates)
    print(f"{'':10}{'':>7}{'':>8}{'wrong at p = p0':>21}  {'samples':<45}  {'contender wins':<45}")
    print(f"{'rule':10}{'budget':>7}{'z':>8}{'contender':>11}{'champion':>10}  {names}  {names}{'make_s':>8}")
    for row in rows:
        z = "-" if row["z"] is None else f"{row['z']:.4f}"
        samples = "".join(f"{row['samples'][p]:9.1f}" for p in rates)
        won = "".join(f"{row['won'][p]:9.4f}" for p in rates)
        errors = f"{row['contender']:11.4f}{row['champion']:10.4f}"
        print(f"{row['rule']:10}{row['budget']:7}{z:>8}{errors}  {samples}  {won}{row['make_s']:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--p0", type=float, default=0.51, help="the ratio to beat")
    parser.add_argument("--alpha", type=float, default=0.05, help="the error that is meant, both sides together")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="comma-separated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    budgets = [int(budget) for budget in options.budgets.split(",")]
    rows = [
        measure(name, p0=options.p0, budget=budget, alpha=options.alpha, rates=RATES)
        for name in get_args(RuleName)
        for budget in budgets
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)


if __name__ == "__main__":
    main()
