"""DP-MERF: a generator that matches one noisy embedding of the data (Harder, Adamczewski, Park 2021, arXiv 2002.11603).

The embedding of a class is the mean of random Fourier features of its records: an estimate of its mean in the space of
a Gaussian kernel. All classes' embeddings are released once, and the generator is trained on them alone, for as long as
one likes. Unlike the paper's, the classes' weights come from counts that are released as well, so that a rare class
counts as much as another, and the kernel is a public mean of two, whose widths depend on the number of columns only.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from chimera.core.errors import InputError, MissingExtra
from chimera.sandbox.baselines.synthesizer import check_count, check_table, shared_noise
from chimera.sandbox.privacy.gaussian import with_noise
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release
from chimera.sandbox.privacy.moments import release_counts
from chimera.sandbox.schema import Floats, Integers, Schema, Table

if TYPE_CHECKING:
    import torch

SHARES = (0.05, 0.95)
"""Of the budget: class counts, embeddings."""

FEATURES = 500
"""Frequencies; each gives a cosine and a sine."""

HIDDEN = 128
LATENT = 10
STEPS = 1_000
BATCH = 256
LEARNING_RATE = 5e-3
WIDTHS = (0.3, 0.8)
"""The kernel's widths, as parts of the square root of the number of columns: each is that of as many features."""


class MerfSynthesizer:
    """A generator network, trained on the noisy embeddings. Raises MissingExtra without torch."""

    name = "dp-merf"

    def __init__(self, *, steps: int = STEPS) -> None:
        self.ledger = PrivacyLedger(delta=1e-5)
        self._steps = steps
        self._schema: Schema | None = None
        self._counts: Floats = np.ones(1)
        self._generator: Any = None

    def fit(self, table: Table, *, epsilon: float, delta: float, seed: int) -> None:
        torch = _torch()
        check_table(table)
        rng = np.random.default_rng(seed)
        noises = shared_noise(epsilon=epsilon, delta=delta, shares=SHARES)
        ledger = PrivacyLedger(delta=delta)
        ledger.add(Release(what="class counts", noise_multiplier=noises[0]))
        ledger.add(Release(what="embeddings", noise_multiplier=noises[1]))
        counts = release_counts(table, noise_multiplier=noises[0], rng=rng)
        widths = np.resize(WIDTHS, FEATURES) * math.sqrt(len(table.schema))
        frequencies = rng.standard_normal((len(table.schema), FEATURES)) / widths
        sums = with_noise(
            embedding_sums(table, frequencies, len(counts)), sensitivity=1.0, noise_multiplier=noises[1], rng=rng
        )
        torch_rng = torch.Generator().manual_seed(seed)
        self._generator = _network(len(table.schema), len(counts), torch_rng)
        _match(self._generator, frequencies, sums / counts[:, None], steps=self._steps, rng=torch_rng)
        self._schema, self._counts, self.ledger = table.schema, counts, ledger

    def sample(self, n: int, seed: int) -> Table:
        torch = _torch()
        check_count(n)
        if self._schema is None:
            raise InputError("fit this synthesizer before you sample from it")
        rng = np.random.default_rng(seed)
        labels: Integers = rng.choice(len(self._counts), n, p=self._counts / self._counts.sum()).astype(np.int64)
        with torch.no_grad():
            noise = torch.randn(n, LATENT, generator=torch.Generator().manual_seed(seed))
            encoded = self._generator(_inputs(noise, torch.from_numpy(labels), len(self._counts))).double().numpy()
        return Table(self._schema, self._schema.decode(encoded), labels if self._schema.classes else None)


def embedding_sums(table: Table, frequencies: Floats, classes: int) -> Floats:
    """(classes, 2 x features) sums of the features of each class's records. Each record's have the norm 1."""
    labels = np.zeros(len(table), np.int64) if table.labels is None else table.labels
    angles = table.encoded @ frequencies
    features = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / math.sqrt(frequencies.shape[1])
    sums = np.zeros((classes, features.shape[1]))
    np.add.at(sums, labels, features)
    return sums


def _network(columns: int, classes: int, rng: torch.Generator) -> Any:
    """Latent numbers and a class in, an encoded record out."""
    torch = _torch()
    nn = torch.nn
    sizes = (LATENT + classes, HIDDEN, HIDDEN, columns)
    layers: list[Any] = []
    for size, following in pairwise(sizes):
        linear = nn.Linear(size, following)
        with torch.no_grad():
            linear.weight.normal_(0.0, math.sqrt(2.0 / size), generator=rng)
            linear.bias.zero_()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1], nn.Tanh())


def _match(generator: Any, frequencies: Floats, target: Floats, *, steps: int, rng: torch.Generator) -> None:
    """Move what the generator makes of each class to that class's embedding: the same number of records of each."""
    torch = _torch()
    classes = len(target)
    labels = torch.arange(classes).repeat_interleave(max(BATCH // classes, 32))
    waves, goal = (torch.from_numpy(each).float() for each in (frequencies, target))
    optimizer = torch.optim.Adam(generator.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        noise = torch.randn(len(labels), LATENT, generator=rng)
        angles = generator(_inputs(noise, labels, classes)) @ waves
        features = torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(waves.shape[1])
        made = features.view(classes, -1, features.shape[1]).mean(dim=1)
        loss = ((made - goal) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _inputs(noise: Any, labels: Any, classes: int) -> Any:
    torch = _torch()
    return torch.cat([noise, torch.nn.functional.one_hot(labels, classes).float()], dim=1)


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtra("torch", "sandbox") from error
    return torch
