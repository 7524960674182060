"""A conditional GAN for tables that is not private: what is lost to privacy is measured against it.

After CTGAN (Xu, Skoularidou, Cuesta-Infante, Veeramachaneni 2019, arXiv 1907.00503): a WGAN with gradient penalty
(Gulrajani et al. 2017), a critic that judges packs of records (PacGAN, Lin et al. 2018), a generator that is told the
class. Unlike in CTGAN, the generator has plain layers and no residual blocks, columns are scaled to [-1, 1] by the
schema instead of by a mixture of Gaussians each, the class is the only condition, and whole numbers are rounded at the
end instead of being categories.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from chimera.core.errors import InputError, MissingExtra, PrivacyError
from chimera.sandbox.baselines.synthesizer import check_count, check_table
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release
from chimera.sandbox.schema import Floats, Integers, Schema, Table

if TYPE_CHECKING:
    import torch

PACK = 4
BATCH = 128
HIDDEN = 128
LATENT = 32
STEPS = 1_500
CRITIC_STEPS = 2
PENALTY = 10.0
LEARNING_RATE = 5e-4
BETAS = (0.5, 0.9)


class CtganSynthesizer:
    """A GAN without any privacy: its ledger says that epsilon is infinite. Raises MissingExtra without torch."""

    name = "ctgan-like"

    def __init__(self, *, steps: int = STEPS) -> None:
        self.ledger = PrivacyLedger(delta=1e-5)
        self._steps = steps
        self._schema: Schema | None = None
        self._shares: Floats = np.ones(1)
        self._generator: Any = None

    def fit(self, table: Table, *, epsilon: float, delta: float, seed: int) -> None:
        """As any synthesizer's; raises PrivacyError for an epsilon that is not infinite."""
        if np.isfinite(epsilon):
            raise PrivacyError(f"{self.name} is not private: it cannot keep an epsilon of {epsilon:g}")
        torch = _torch()
        check_table(table)
        ledger = PrivacyLedger(delta=delta)
        ledger.add(Release(what="records", noise_multiplier=0.0))
        classes = max(len(table.schema.classes), 1)
        labels = np.zeros(len(table), np.int64) if table.labels is None else table.labels
        self._shares = np.bincount(labels, minlength=classes) / len(table)
        rng = torch.Generator().manual_seed(seed)
        self._generator = _generator(len(table.schema), classes, rng)
        _train(self._generator, table.encoded, labels, classes, steps=self._steps, rng=rng)
        self._schema, self.ledger = table.schema, ledger

    def sample(self, n: int, seed: int) -> Table:
        torch = _torch()
        check_count(n)
        if self._schema is None:
            raise InputError("fit this synthesizer before you sample from it")
        labels = np.random.default_rng(seed).choice(len(self._shares), n, p=self._shares).astype(np.int64)
        with torch.no_grad():
            noise = torch.randn(n, LATENT, generator=torch.Generator().manual_seed(seed))
            made = self._generator(torch.cat([noise, _one_hot(torch.from_numpy(labels), len(self._shares))], dim=1))
        encoded = made.double().numpy()
        return Table(self._schema, self._schema.decode(encoded), labels if self._schema.classes else None)


def _train(
    generator: Any, records: Floats, labels: Integers, classes: int, *, steps: int, rng: torch.Generator
) -> None:
    torch = _torch()
    columns = records.shape[1]
    critic = _stack((PACK * (columns + classes), HIDDEN, HIDDEN, 1), rng, slope=0.2)
    real, kinds = torch.from_numpy(records).float(), torch.from_numpy(labels)
    learners = [torch.optim.Adam(net.parameters(), lr=LEARNING_RATE, betas=BETAS) for net in (generator, critic)]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(learner, steps) for learner in learners]

    def fake(condition: Any) -> Any:
        made = generator(torch.cat([torch.randn(len(condition), LATENT, generator=rng), condition], dim=1))
        return torch.cat([made, condition], dim=1)

    for _ in range(steps):
        for _ in range(CRITIC_STEPS):
            rows = torch.randint(len(real), (BATCH,), generator=rng)
            condition = _one_hot(kinds[rows], classes)
            true = _packed(torch.cat([real[rows], condition], dim=1))
            false = _packed(fake(condition).detach())
            loss = critic(false).mean() - critic(true).mean() + _penalty(critic, true, false, rng)
            _step(learners[1], loss)
        condition = _one_hot(kinds[torch.randint(len(real), (BATCH,), generator=rng)], classes)
        _step(learners[0], -critic(_packed(fake(condition))).mean())
        for schedule in schedules:
            schedule.step()


def _penalty(critic: Any, true: Any, false: Any, rng: torch.Generator) -> Any:
    """The critic's slope must be 1 between what is real and what is not."""
    torch = _torch()
    part = torch.rand(len(true), 1, generator=rng)
    between = (part * true + (1.0 - part) * false).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return PENALTY * ((slope.norm(dim=1) - 1.0) ** 2).mean()


def _step(optimizer: Any, loss: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _packed(records: Any) -> Any:
    """(n, columns) -> (n / PACK, PACK x columns): the critic sees a lack of variety."""
    return records.reshape(len(records) // PACK, -1)


def _generator(columns: int, classes: int, rng: torch.Generator) -> Any:
    torch = _torch()
    return torch.nn.Sequential(_stack((LATENT + classes, HIDDEN, HIDDEN, columns), rng, slope=0.0), torch.nn.Tanh())


def _stack(sizes: tuple[int, ...], rng: torch.Generator, *, slope: float) -> Any:
    """Linear layers with a leaky ReLU after each but the last."""
    torch = _torch()
    layers: list[Any] = []
    for size, following in pairwise(sizes):
        linear = torch.nn.Linear(size, following)
        with torch.no_grad():
            linear.weight.normal_(0.0, (2.0 / size) ** 0.5, generator=rng)
            linear.bias.zero_()
        layers += [linear, torch.nn.LeakyReLU(slope)]
    return torch.nn.Sequential(*layers[:-1])


def _one_hot(labels: Any, classes: int) -> Any:
    return _torch().nn.functional.one_hot(labels, classes).float()


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra("torch", "sandbox") from error
    return torch
