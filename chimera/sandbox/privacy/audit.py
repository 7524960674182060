"""Does a training leak more than it claims? Records that it has no use for are put in by coin, and guessed afterwards.

The audit trains as a release would, on a few of the caller's records and the canaries that their coins put in, and
plays the strongest opponent that epsilon promises to withstand: one who knows every record but the coins, and sees each
noisy gradient. Epsilon holds for every data set, so it may be tried on one where a leak shows best. All six PATE-GAN
implementations that were audited leaked more than they claimed (Ganev, Annamalai, De Cristofaro 2024, arXiv
2406.13985). The model that is audited holds canaries: release another.

What is judged are the discriminator's steps. Counts and moments are released by their own mechanisms, which cost a part
of the claim and are not attacked here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from chimera.core.errors import InputError, PrivacyError
from chimera.core.rng import derive_seed
from chimera.core.types import Frozen
from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.privacy.auditing_bound import lower_bound
from chimera.sandbox.schema import Floats, Schema, Table
from chimera.sandbox.settings import GanSettings

Coins: TypeAlias = npt.NDArray[np.bool_]

CONFIDENCE = 0.95

SIDE_SHARE = 1 / 8
"""Of the canaries, those that are guessed to be in, and as many that are guessed to be out: the opponent is surest of
them. The rest is not guessed. Settled before anything is scored, as the bound requires."""

FEWEST_CANARIES = 10
MOST_CANARIES = 2_000

MAX_GRADIENT_CELLS = 50_000_000
"""Records times parameters: what the gradients of one step may take."""

FAKES = 4
"""The fakes that a canary's gradient is averaged over: the opponent does not know which one it was paired with."""

RIDGE = 0.1
"""Of the mean squared length of the canaries' gradients: how far ones that are alike are told apart."""


class Audit(Frozen, ser_json_inf_nan="strings"):
    """What the guesses came to. A lower bound is no guarantee: a leak that this attack does not see is not in it."""

    lower_bound: Annotated[float, Field(ge=0)]
    """The epsilon that the training has at least, at `confidence`."""
    claimed: float
    delta: float
    canaries: int
    guesses: int
    right: int
    confidence: float
    reach: float
    """The lower bound that only right guesses would have given. No leak is found above it."""

    @property
    def passed(self) -> bool:
        """Whether nothing was found against the claim."""
        return self.lower_bound <= self.claimed

    @property
    def conclusive(self) -> bool:
        """Whether there were enough guesses to find anything against the claim."""
        return self.reach > self.claimed

    @property
    def said(self) -> str:
        """For people."""
        found = (
            f"{self.right} of {self.guesses} guesses were right ({self.canaries} canaries): epsilon is at least"
            f" {self.lower_bound:.3g} at delta {self.delta:g}, with {self.confidence:.0%} confidence;"
            f" {self.claimed:.4g} is claimed."
        )
        if not self.passed:
            return f"{found} It leaks more than it claims."
        if not self.conclusive:
            return f"{found} That says nothing: {self.reach:.3g} is the most that so few guesses can show."
        return f"{found} No leak beyond the claim was found, which does not show that there is none."


@dataclass(frozen=True, slots=True)
class Planted:
    """`table` is `base` with those `canaries` whose coin says so."""

    base: Table
    canaries: Table
    coins: Coins

    @property
    def table(self) -> Table:
        parts = self.base, self.canaries.take(self.coins)
        labels = [part.labels for part in parts if part.labels is not None]
        values = np.concatenate([part.values for part in parts])
        return Table(self.base.schema, values, np.concatenate(labels) if labels else None)


Make: TypeAlias = Callable[[Table, GanSettings], AdversarialEngine]


def audit(
    table: Table,
    settings: GanSettings,
    *,
    canaries: int = 400,
    known: int = 20,
    seed: int,
    confidence: float = CONFIDENCE,
    make: Make = AdversarialEngine,
) -> Audit:
    """`attack` the training; raises PrivacyError, which says by how much, if it leaks more than its ledger claims."""
    found = attack(table, settings, canaries=canaries, known=known, seed=seed, confidence=confidence, make=make)
    if not found.passed:
        raise PrivacyError(f"{found.said} Do not release a model that was trained so")
    return found


def attack(
    table: Table,
    settings: GanSettings,
    *,
    canaries: int = 400,
    known: int = 20,
    seed: int,
    confidence: float = CONFIDENCE,
    make: Make = AdversarialEngine,
) -> Audit:
    """Train on `known` made-up records of `table`'s schema and canaries, and guess which: a quarter of them.

    No record of `table` is looked at, so what comes out says nothing of any.
    `seed` tosses the coins; `make` begins the training that is judged. A few dozen steps are enough: the noise is made
    for as many as `settings` say. Raises InputError for a budget without end, which claims nothing, and for what is too
    small or too large.
    """
    if not settings.private:
        raise InputError("epsilon is infinite: a training that claims nothing cannot leak more than it claims")
    if not FEWEST_CANARIES <= canaries <= MOST_CANARIES:
        raise InputError(f"{canaries} canaries: {FEWEST_CANARIES} to {MOST_CANARIES} can be told apart")
    if not 1 <= known <= MOST_CANARIES:
        raise InputError(f"{known} known records: 1 to {MOST_CANARIES} may be beside the canaries")
    rng = np.random.default_rng(derive_seed("canaries", seed))
    planted = plant(made_up(table.schema, known, rng), canaries, rng)
    engine = make(planted.table, settings)
    try:
        scores = watched(engine, planted)
        return judge(
            scores, planted.coins, claimed=engine.ledger.epsilon(), delta=settings.delta, confidence=confidence
        )
    finally:
        engine.close()


def made_up(schema: Schema, n: int, rng: np.random.Generator) -> Table:
    """Records anywhere in the ranges, of any class."""
    values = schema.values(rng.integers(0, schema.levels + 1, (n, len(schema))))
    return Table(schema, values, rng.integers(0, len(schema.classes), n) if schema.classes else None)


def plant(table: Table, canaries: int, rng: np.random.Generator) -> Planted:
    """Canaries at corners of the range and of any class, as no honest record is; each is in by a fair coin."""
    schema = table.schema
    corners = schema.values(rng.integers(0, 2, (canaries, len(schema))) * schema.levels)
    labels = rng.integers(0, len(schema.classes), canaries) if schema.classes else None
    return Planted(base=table, canaries=Table(schema, corners, labels), coins=rng.random(canaries) < 0.5)


def watched(engine: AdversarialEngine, planted: Planted) -> Floats:
    """(canaries,) the higher, the more a canary looks to be in. Makes all the steps that the budget allows.

    A step releases the sum of the gradients of its records, and noise. What that is beyond its expectation is explained
    by the canaries' own gradients, by least squares with a ridge over all steps together.
    """
    everybody = len(planted.base) + len(planted.canaries)
    alike: torch.Tensor | None = None
    for_each: torch.Tensor | None = None
    while engine.left:
        own = torch.stack([engine.observed(planted.canaries) for _ in range(FAKES)]).mean(dim=0)
        known = engine.observed(planted.base).sum(dim=0)
        if everybody * own.shape[1] > MAX_GRADIENT_CELLS:
            raise InputError(f"gradients of {everybody} records are more than {MAX_GRADIENT_CELLS} numbers: take less")
        engine.train_gan_step()
        beyond = engine.released() - engine.sample_rate * (known + own.sum(dim=0) / 2.0)
        products, towards = own @ own.T, own @ beyond
        alike = products if alike is None else alike + products
        for_each = towards if for_each is None else for_each + towards
    if alike is None or for_each is None:
        raise InputError("the training has no step left to watch: begin a new one")
    ridge = RIDGE * alike.diagonal().mean() * torch.eye(len(alike), device=alike.device)
    scores: Floats = torch.linalg.solve((alike + ridge).double(), for_each.double()).cpu().numpy()
    return scores


def judge(scores: Floats, coins: Coins, *, claimed: float, delta: float, confidence: float = CONFIDENCE) -> Audit:
    """Guess that the canaries of the highest `scores` are in and those of the lowest are out, and count."""
    canaries, side = len(coins), max(1, round(len(coins) * SIDE_SHARE))
    order = np.argsort(scores, kind="stable")
    right = int(coins[order[-side:]].sum() + (~coins[order[:side]]).sum())

    def bound(right: int) -> float:
        return lower_bound(canaries=canaries, guesses=2 * side, right=right, delta=delta, confidence=confidence)

    return Audit(
        lower_bound=bound(right),
        claimed=claimed,
        delta=delta,
        canaries=canaries,
        guesses=2 * side,
        right=right,
        confidence=confidence,
        reach=bound(2 * side),
    )
