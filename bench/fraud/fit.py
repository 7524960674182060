"""Sets the weights of the risk's factors: `python -m bench.fraud.fit [--seeds 0..19]` prints them.

Pairs of a fraud and an honest payment are drawn, every kind of fraud as often, and the weights climb towards the fraud
being the one of higher risk (pairwise logistic loss: Burges et al., "Learning to Rank using Gradient Descent", ICML
2005). Weights of factors that these histories do not show (reputation, refusals, a new requester) are set by hand.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from bench.risk import score, seeds
from chimera.treasury.risk import WEIGHTS

BY_HAND = ("base", "new-requester", "refusals", "reputation")
LEAST = {"look-alike": 0.4, "duplicate": 0.57, "splitting": 0.35, "stand-in": 0.25}
"""What names a fraud is heard, though a new payee or a pace tells as much in these histories; of others 0.1."""
MOST = 0.85
SOFT = 0.18
"""How far apart two sums of -log(1 - weight * value) have to be to count as well told apart."""

MILDER = 0.86
"""A power to which each 1 - weight is raised: it hardly changes the order; some 7 % of what is honest is above 0.5."""


def fit(these: range, steps: int = 3_000, batch: int = 4_096, rate: float = 0.05) -> dict[str, float]:
    names = list(WEIGHTS)
    scored = [each for seed in these for each in score(seed)]
    values = np.zeros((len(scored), len(names)))
    for row, each in enumerate(scored):
        for factor in each.assessment.factors:
            values[row, names.index(factor.name)] = factor.value
    kinds = Counter(each.fraud for each in scored)
    often = np.array([1 / kinds[each.fraud] if each.fraud else 0.0 for each in scored])
    honest = np.flatnonzero([not each.fraud for each in scored])
    free = np.array([name not in BY_HAND for name in names])
    weights = np.array([WEIGHTS[name] for name in names])
    least = np.array([LEAST.get(name, 0.1) for name in names])
    rng = np.random.default_rng(0)
    mean = np.zeros(len(names))
    for step in range(steps):
        bad = values[rng.choice(len(scored), batch, p=often / often.sum())]
        good = values[rng.choice(honest, batch)]
        apart = (np.log(1 - good * weights) - np.log(1 - bad * weights)).sum(axis=1)
        pull = 1 / (1 + np.exp(np.clip(apart / SOFT, -50, 50)))
        slopes = bad / (1 - bad * weights) - good / (1 - good * weights)
        weights = np.where(free, np.clip(weights + rate * (pull[:, None] * slopes).mean(axis=0), least, MOST), weights)
        if step >= steps // 2:
            mean += weights / (steps - steps // 2)
    milder = np.where(free, 1 - (1 - mean) ** MILDER, mean)
    return {name: round(float(value), 2) for name, value in zip(names, milder, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=seeds, default=range(20))
    for name, value in fit(parser.parse_args().seeds).items():
        print(f'    "{name}": {value},')


if __name__ == "__main__":
    main()
