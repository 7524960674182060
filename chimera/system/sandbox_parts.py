"""A sandbox of a federation that has a part of one table: for a trial of a federation on one machine, or one cluster.

`app` answers for it. A sandbox at an organisation of its own has a table of its own, and an app as short as this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.federation.client import client_app
from chimera.sandbox.federation.flower import Context
from chimera.sandbox.federation.gan import GanTrainer, table_of
from chimera.sandbox.federation.host import FOLDER
from chimera.sandbox.federation.local import Floating, TrainReport
from chimera.sandbox.schema import Table
from chimera.sandbox.settings import GanSettings

POISON = -100.0
"""What a poisoned sandbox multiplies its generator by."""


class PoisonedTrainer(GanTrainer):
    """One that trains as all do, and sends something else."""

    trained = False

    def train(self, steps: int, *, anchor: Sequence[Floating] | None, proximal_mu: float) -> TrainReport:
        self.trained = True
        return super().train(steps, anchor=anchor, proximal_mu=proximal_mu)

    def generator(self) -> list[Floating]:
        arrays = super().generator()
        return [(POISON * (array + 0.1)).astype(array.dtype) for array in arrays] if self.trained else arrays


def part_of(table: Table, part: int, parts: int, seed: int) -> Table:
    """The records of part `part` (from 0) of `parts`, as chance has parted them; no record is in two."""
    order = np.random.default_rng([seed, 5]).permutation(len(table))
    return table.take(np.sort(order[part::parts]))


def open_engine(config: dict[str, Any], folder: Path) -> AdversarialEngine:
    """The engine of the node with this configuration, as its folder has it."""
    source: dict[str, Any] = {key: config[key] for key in ("data", "schema") if key in config}
    table = part_of(table_of(source), int(config["part"]), int(config["parts"]), int(config["seed"]))
    settings = GanSettings.model_validate_json(str(config["settings"]))
    return AdversarialEngine(table, settings, folder=folder)


def open_trainer(context: Context) -> GanTrainer:
    config = dict(context.node_config)
    engine = open_engine(config, Path(str(config[FOLDER])) / "training")
    return PoisonedTrainer(engine) if config.get("poisoned") else GanTrainer(engine)


app = client_app(open_trainer)
