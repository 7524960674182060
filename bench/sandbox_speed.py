"""Steps a second of `AdversarialEngine.train_gan_step`, beside the same loop in bare torch and Opacus.

    python -m bench.sandbox_speed [--rounds 15] [--steps 50] [--json]

The bare loop has the same networks, rates, data, Poisson sampling, latents, clipping and noise, and nothing else: no
ledger, no report, no checks, no average of the generator. Blocks of steps alternate in one process and on one thread,
the order of each pair turning. Seconds are the processor's, so that other work on the machine counts for little.

`ratio` is all of the bare loop's seconds by all of the engine's, up to the end of the budget, where the ledger's
accountant works hardest; `median_ratio` is the median over the pairs, in which that is lost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch.nn import functional

from chimera.sandbox.datasets import load
from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.gan import Discriminator, Generator
from chimera.sandbox.schema import Table
from chimera.sandbox.settings import GanSettings


def bare_loop(table: Table, settings: GanSettings, engine: AdversarialEngine) -> Callable[[int], None]:
    """Makes so many steps. Only the moments and the noise multiplier are the engine's."""
    columns, classes = len(table.schema), len(table.schema.classes)
    rng = torch.Generator().manual_seed(settings.seed)
    real, labels = torch.as_tensor(table.encoded, dtype=torch.float32), torch.as_tensor(table.labels)
    means = torch.as_tensor(engine.moments.means, dtype=torch.float32)
    roots = torch.as_tensor(np.linalg.cholesky(engine.moments.covariances), dtype=torch.float32)
    shares = torch.as_tensor(engine.moments.counts / engine.moments.counts.sum(), dtype=torch.float32)
    generator = Generator(columns, classes, settings)
    critic = GradSampleModule(Discriminator(columns, classes, settings), loss_reduction="mean")
    pull = torch.optim.Adam(generator.parameters(), settings.generator_rate, betas=(0.5, 0.9))
    push = DPOptimizer(
        torch.optim.Adam(critic.parameters(), settings.critic_rate, betas=(0.5, 0.9)),
        noise_multiplier=engine.noise_multiplier,
        max_grad_norm=settings.clip,
        expected_batch_size=settings.batch,
        generator=rng,
    )
    done = 0

    def made(drawn: torch.Tensor, classes_of: torch.Tensor) -> torch.Tensor:
        normal = torch.randn(len(drawn), columns, generator=rng)
        latent = (means[drawn] + torch.einsum("nij,nj->ni", roots[drawn], normal)).clamp_(-1.0, 1.0)
        out: torch.Tensor = generator(latent, classes_of, torch.randn(len(drawn), settings.noise, generator=rng))
        return out

    def step() -> None:
        rows = (torch.rand(len(real), generator=rng) < engine.sample_rate).nonzero().squeeze(1)
        hot = functional.one_hot(labels[rows], classes).float()
        with torch.no_grad():
            fake = made(labels[rows], hot)
        push.zero_grad(set_to_none=True)
        told_real, told_fake = (critic(torch.cat([each, hot], dim=1)) for each in (real[rows], fake))
        loss = (functional.softplus(-told_real).sum() + functional.softplus(told_fake).sum()) / max(1, len(rows))
        loss.backward()  # type: ignore[no-untyped-call]
        push.step()

    def pull_step() -> None:
        critic.disable_hooks()
        critic.requires_grad_(False)
        drawn = torch.multinomial(shares, settings.batch, replacement=True, generator=rng)
        hot = functional.one_hot(drawn, classes).float()
        loss = functional.softplus(-critic(torch.cat([made(drawn, hot), hot], dim=1))).mean()
        pull.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        pull.step()
        critic.requires_grad_(True)
        critic.enable_hooks()

    def run(steps: int) -> None:
        nonlocal done
        for _ in range(steps):
            step()
            done += 1
            if done % settings.critic_steps == 0:
                pull_step()

    return run


def timed(run: Callable[[int], None], steps: int) -> float:
    """The processor's seconds a step."""
    began = time.process_time()
    run(steps)
    return (time.process_time() - began) / steps


def measure(*, rounds: int, steps: int) -> dict[str, float]:
    table = load("synthetic")
    settings = GanSettings(steps=steps * (rounds + 1))
    engine = AdversarialEngine(table, settings, entropy=0)

    def chimera(steps: int) -> None:
        for _ in range(steps):
            engine.train_gan_step()

    bare = bare_loop(table, settings, engine)
    pairs = []
    for round_ in range(rounds + 1):
        order = (chimera, bare) if round_ % 2 else (bare, chimera)
        taken = {run: timed(run, steps) for run in order}
        pairs.append((taken[chimera], taken[bare]))
    pairs = pairs[1:]  # the first warms up
    return {
        "engine_steps_s": len(pairs) / sum(ours for ours, _ in pairs),
        "bare_steps_s": len(pairs) / sum(theirs for _, theirs in pairs),
        "ratio": sum(theirs for _, theirs in pairs) / sum(ours for ours, _ in pairs),
        "median_ratio": statistics.median(theirs / ours for ours, theirs in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of blocks")
    parser.add_argument("--steps", type=int, default=50, help="in a block")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(rounds=options.rounds, steps=options.steps)
    if options.json:
        print(json.dumps(found))
    else:
        print("  ".join(f"{name} {value:.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
