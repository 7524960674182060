"""The canary audit on trainings that keep their word, and on ones that were broken on purpose.

    python -m bench.sandbox_audit [--seeds 5] [--json]

Each row is one claim and one fault over all seeds: the lower bound of epsilon (95 % confidence: were the attack
perfect, an honest training would pass its claim once in 20), and in how many seeds it passed the claim. `reach` is the
bound that only right guesses would give: no fault shows at a claim above it, and such a row says nothing (`-`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch

from chimera.sandbox.datasets import load
from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.privacy.audit import Audit, attack
from chimera.sandbox.schema import Table
from chimera.sandbox.settings import GanSettings

CLAIMS = (1.0, 3.0, 10.0)

HIGH = 10.0
"""From here on no fault can show: it would take more than 60,000 guesses, all of them right."""

HONEST = "none (honest)"

SETTINGS = GanSettings(steps=40, batch=256, hidden=64, latent_share=0.05, clip=0.01)
"""The discriminator, which is what the audit looks at, gets most of the budget; every record is in every batch, and has
its gradient clipped, so that a step without clipping is far from one with it."""


def without_noise(optimizer: Any) -> None:
    optimizer.noise_multiplier = 0.0


def a_tenth_of_the_noise(optimizer: Any) -> None:
    optimizer.noise_multiplier /= 10.0


def without_clipping(optimizer: Any) -> None:
    """The noise stays as large as if every gradient were as short as it should be."""
    optimizer.noise_multiplier /= 1_000.0
    optimizer.max_grad_norm *= 1_000.0


FAULTS: dict[str, Callable[[Any], None]] = {
    HONEST: lambda optimizer: None,
    "no noise": without_noise,
    "a tenth of the noise": a_tenth_of_the_noise,
    "no clipping": without_clipping,
}


def attacked(*, claim: float, fault: str, seed: int, settings: GanSettings = SETTINGS, canaries: int = 400) -> Audit:
    """On the breast cancer set; the ledger says what an honest training would have cost."""

    def make(table: Table, settings: GanSettings) -> AdversarialEngine:
        engine = AdversarialEngine(table, settings, entropy=seed)
        FAULTS[fault](engine._gan._push)
        return engine

    claiming = settings.model_copy(update={"epsilon": claim, "seed": seed})
    return attack(load("breast_cancer"), claiming, canaries=canaries, seed=seed, make=make)


def row(claim: float, fault: str, seeds: int) -> dict[str, Any]:
    found = [attacked(claim=claim, fault=fault, seed=seed) for seed in range(seeds)]
    return {
        "claim": claim,
        "fault": fault,
        "claimed": max(each.claimed for each in found),
        "right": [each.right for each in found],
        "guesses": found[0].guesses,
        "bounds": [each.lower_bound for each in found],
        "reach": found[0].reach,
        "caught": sum(not each.passed for each in found),
        "seeds": seeds,
    }


def show(row: dict[str, Any]) -> None:
    bounds = row["bounds"]
    caught = f"{row['caught']} of {row['seeds']}" if row["reach"] > row["claimed"] else "-"
    print(
        f"| {row['claim']:g} | {row['fault']} | {min(row['right'])} to {max(row['right'])} of {row['guesses']} |"
        f" {min(bounds):.2f} to {max(bounds):.2f} | {row['reach']:.2f} | {caught} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.json:
        print("| claim | fault | right | lower bound | reach | above the claim |\n|---|---|---|---|---|---|")
    rows = []
    for claim in CLAIMS:
        for fault in FAULTS if claim < HIGH else (HONEST,):
            rows.append(row(claim, fault, options.seeds))
            if not options.json:
                show(rows[-1])
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
