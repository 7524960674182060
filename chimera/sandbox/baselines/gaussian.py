"""One Gaussian per class, from moments that were released under differential privacy."""

from __future__ import annotations

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.baselines.synthesizer import check_count, check_table, shared_noise
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release
from chimera.sandbox.privacy.moments import Moments, release_counts, release_moments
from chimera.sandbox.schema import Table

SHARES = (0.05, 0.95)
"""Of the budget: class counts, moments."""


class GaussianSynthesizer:
    """Class counts and moments are released once; records are drawn from them and put on the lattice."""

    name = "gaussian"

    def __init__(self) -> None:
        self.ledger = PrivacyLedger(delta=1e-5)
        self._moments: Moments | None = None

    def fit(self, table: Table, *, epsilon: float, delta: float, seed: int) -> None:
        check_table(table)
        rng = np.random.default_rng(seed)
        counts_noise, moments_noise = shared_noise(epsilon=epsilon, delta=delta, shares=SHARES)
        ledger = PrivacyLedger(delta=delta)
        ledger.add(Release(what="class counts", noise_multiplier=counts_noise))
        ledger.add(Release(what="moments", noise_multiplier=moments_noise))
        counts = release_counts(table, noise_multiplier=counts_noise, rng=rng)
        self._moments = release_moments(table, counts=counts, noise_multiplier=moments_noise, rng=rng)
        self.ledger = ledger

    def sample(self, n: int, seed: int) -> Table:
        check_count(n)
        if self._moments is None:
            raise InputError("fit this synthesizer before you sample from it")
        rng = np.random.default_rng(seed)
        labels = self._moments.labels(n, rng)
        return self._moments.sample(np.bincount(labels, minlength=len(self._moments.counts)), rng)
