"""What a sandbox brings to a federation: a trainer of its own generator, on data that never leaves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from chimera.core.types import Frozen

Floating = npt.NDArray[np.floating[Any]]

MAX_RECORDS = 10**9
MAX_LOSSES = 16

LossName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Loss = Annotated[float, Field(allow_inf_nan=False)]


class TrainReport(Frozen):
    """What a sandbox says of its training. `records` is taken to be public, as it is in every release here.

    `epsilon` is all that the sandbox has spent on its records so far, at `delta`, and not the cost of these steps:
    infinite where it trains without privacy.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    records: Annotated[int, Field(ge=1, le=MAX_RECORDS)]
    epsilon: Annotated[float, Field(ge=0)]
    delta: Annotated[float, Field(ge=0, lt=1)]
    losses: dict[LossName, Loss] = Field(default_factory=dict, max_length=MAX_LOSSES)


class LocalTrainer(Protocol):
    """Trains a generator in one sandbox. Each message may find a process of its own, so it is opened from its folder.

    Only the generator is shared: it is computed from private discriminators, and what is computed from a private
    result costs no privacy (post-processing, Dwork and Roth 2014, proposition 2.1).
    """

    def generator(self) -> list[Floating]:
        """The generator's arrays, float32 or float64, of one dimension or more; always as many, of the same shapes."""
        ...

    def load_generator(self, arrays: Sequence[Floating]) -> None:
        """Go on from these. They are what `generator` returns in shape and type, and finite."""
        ...

    def train(self, steps: int, *, anchor: Sequence[Floating] | None, proximal_mu: float) -> TrainReport:
        """Train for so many steps; what they cost is on the ledger, on disk, before they are taken.

        With an `anchor`, `proximal_mu / 2 * |generator - anchor|^2` is added to the generator's loss (FedProx, Li et
        al. 2020, equation 2). Raises PrivacyError where the budget does not allow it.
        """
        ...

    def save(self) -> None:
        """Put everything on disk: a process that opens the folder next goes on from here."""
        ...

    def close(self) -> None:
        """Let go of the folder: after each message, also after one that failed."""
        ...
