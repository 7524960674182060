"""The private GAN as a synthesizer: beside the baselines it is compared with, on the same terms."""

from __future__ import annotations

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.model import Model
from chimera.sandbox.privacy.ledger import PrivacyLedger
from chimera.sandbox.schema import Table
from chimera.sandbox.settings import GanSettings


class GanSynthesizer:
    """An `AdversarialEngine` that makes all the steps of its budget. `settings` lend all but budget and seed.

    `fit` with one seed is repeatable, its noise included: for measurements, not for a release.
    """

    name = "dp-gan"

    def __init__(self, settings: GanSettings | None = None) -> None:
        self._settings = settings or GanSettings()
        self._model: Model | None = None
        self.ledger = PrivacyLedger(delta=self._settings.delta)

    def fit(self, table: Table, *, epsilon: float, delta: float, seed: int) -> None:
        """Raises InputError for a table or budget that cannot be used, PrivacyError where the budget is too small."""
        settings = GanSettings.model_validate(
            self._settings.model_dump() | {"epsilon": epsilon, "delta": delta, "seed": seed}
        )
        engine = AdversarialEngine(table, settings, entropy=seed)
        while engine.left:
            engine.train_gan_step()
        self._model, self.ledger = engine.model(), engine.ledger

    def sample(self, n: int, seed: int) -> Table:
        """Raises InputError before `fit`, and for more records than are made at once."""
        if self._model is None:
            raise InputError("fit this synthesizer before you sample from it")
        return self._model.sample(n, np.random.default_rng(seed))
