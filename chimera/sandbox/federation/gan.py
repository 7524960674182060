"""The GAN as a sandbox of a federation: each has records, a budget and a ledger of its own, and shares its generator.

The latent stays at home: every sandbox draws it from the moments of its own records. What is learned together is the
correction that all of them make to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from chimera.core.errors import InputError, PrivacyError
from chimera.sandbox.datasets import NAMES, load, read_schema, read_table
from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.federation.client import client_app
from chimera.sandbox.federation.flower import Context
from chimera.sandbox.federation.host import FOLDER
from chimera.sandbox.federation.local import Floating, TrainReport
from chimera.sandbox.gan import Generator
from chimera.sandbox.schema import Schema, Table
from chimera.sandbox.settings import GanSettings


class GanTrainer:
    """An AdversarialEngine as a `LocalTrainer`: `steps` are steps of the discriminator, each paid for."""

    def __init__(self, engine: AdversarialEngine) -> None:
        self._engine = engine

    def generator(self) -> list[Floating]:
        return list(self._engine.generator())

    def load_generator(self, arrays: Sequence[Floating]) -> None:
        self._engine.load_generator(arrays)

    def train(self, steps: int, *, anchor: Sequence[Floating] | None, proximal_mu: float) -> TrainReport:
        """Of the losses the generator's alone is told: the discriminator's is of the records themselves."""
        engine, losses = self._engine, dict[str, float]()
        if steps > engine.left:
            raise PrivacyError(f"{steps} steps are asked for, and the budget of this sandbox allows {engine.left} more")
        engine.draw_towards(anchor, proximal_mu)
        for _ in range(steps):
            told = engine.train_gan_step().losses
            losses = {"generator": told["generator"]} if "generator" in told else losses
        return TrainReport(
            records=len(engine.table), epsilon=engine.epsilon, delta=engine.settings.delta, losses=losses
        )

    def save(self) -> None:
        self._engine.save()

    def close(self) -> None:
        self._engine.close()


def first_generator(schema: Schema, settings: GanSettings) -> list[Floating]:
    """What a federation begins with. It follows from `settings.seed`, and from no record."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        generator = Generator(len(schema), max(1, len(schema.classes)), settings)
    return [each.numpy() for each in generator.state_dict().values()]


def open_gan(context: Context) -> GanTrainer:
    """The trainer that a node's configuration describes.

    `folder` is where its ledger and checkpoint are, `data` a bundled set's name or a CSV or Parquet file with its
    `schema`; with `parts` the records number `part`, `part + parts` ... are its own. `settings` is a GanSettings as
    JSON. Raises InputError.
    """
    config = context.node_config
    folder, settings = config.get(FOLDER), config.get("settings", "{}")
    if not isinstance(folder, str) or not isinstance(settings, str):
        raise InputError("a node's configuration names its `folder`, and has its `settings` as JSON")
    table = table_of(config)
    return GanTrainer(AdversarialEngine(table, GanSettings.model_validate_json(settings), folder=Path(folder)))


def table_of(config: Mapping[str, bool | int | float | str]) -> Table:
    """The records of a node: see `open_gan`. Raises InputError."""
    data, schema, part, parts = (config.get(key) for key in ("data", "schema", "part", "parts"))
    if isinstance(data, str) and data in NAMES:
        table = load(data)
    elif isinstance(data, str) and isinstance(schema, str):
        table = read_table(Path(data), read_schema(Path(schema)))
    else:
        raise InputError(f"a node's `data` is one of {', '.join(NAMES)}, or a file beside its `schema`")
    if parts is None:
        return table
    if type(part) is not int or type(parts) is not int or not 0 <= part < parts:
        raise InputError(f"a node has part 0 to `parts` - 1 of the records, not {part!r} of {parts!r}")
    return table.take(np.arange(part, len(table), parts))


app = client_app(open_gan)
