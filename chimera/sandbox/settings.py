"""How a GAN is trained: what it may cost in privacy, and the numbers of its networks."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from chimera.core.types import Frozen

Device = Literal["auto", "cpu", "cuda"]


class GanSettings(Frozen, ser_json_inf_nan="strings"):
    """`epsilon` infinite trains without privacy. The defaults work for a few hundred records and more."""

    epsilon: Annotated[float, Field(gt=0)] = 1.0
    """The budget of everything that is released of the data, altogether."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """The chance with which epsilon may not hold: well below one over the number of records."""
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 500
    """Steps of the discriminator that the budget is made to last for."""
    batch: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Records in a batch, on average: each is in it by a toss of its own (Poisson sampling)."""
    critic_steps: Annotated[int, Field(ge=1, le=1_000)] = 10
    """Steps of the discriminator to one of the generator."""
    latent_share: Annotated[float, Field(gt=0, le=0.94)] = 0.85
    """The part of the budget that the moments of the latent get: of the squared signal-to-noise ratio, which adds up
    over Gaussian releases, as epsilon does not. Class counts get 0.05 where there are classes, the steps the rest."""
    hidden: Annotated[int, Field(ge=1, le=4_096)] = 128
    noise: Annotated[int, Field(ge=0, le=1_024)] = 16
    """Dimensions of plain noise beside the latent. It never meets data and protects nothing; it gives variety."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """The norm that a record's gradient is clipped to."""
    critic_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    generator_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """How much of the released generator is kept at each of its steps (an exponential average)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Where the networks start. The noise that protects the data does not come from it."""
    device: Device = "auto"

    @property
    def private(self) -> bool:
        return math.isfinite(self.epsilon)
