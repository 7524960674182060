"""The ratio to beat: raised by each new champion's own showing, and let down again with time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import geometric_mean
from typing import Annotated

from pydantic import Field, model_validator

from chimera.core.types import Frozen

EVEN = 0.5
"""The ratio of two miners that are equally good."""

DECAY_S = 7 * 86_400.0
"""In this time the ratio's excess over EVEN falls to LEFT of what it was."""

LEFT = 0.01

DIGITS = 9
"""Decimals of a ratio: exponentials differ in their last bits between machines, and validators have to agree."""


class Ratchet(Frozen):
    """The ratio that a champion set at `since_s` (seconds since the epoch), and how it decays.

    `cap` bounds the ratio: a contender that won every sample would set 1.0, which nobody can exceed, and only time
    would open the throne again. Under a cap of 0.75, whoever wins more than three of four decisive samples can take it
    at any time. `epsilon` is what remains when all has decayed: to be as good is not enough.
    """

    ratio: Annotated[float, Field(ge=EVEN, lt=1.0)] = EVEN
    since_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    epsilon: Annotated[float, Field(gt=0.0, lt=EVEN)] = 0.01
    cap: Annotated[float, Field(gt=EVEN, lt=1.0)] = 0.75

    @model_validator(mode="after")
    def _within_the_cap(self) -> Ratchet:
        if not EVEN + self.epsilon <= self.cap or self.ratio > self.cap:
            raise ValueError(f"0.5 + epsilon ({self.epsilon}) and ratio ({self.ratio}) are at most the cap, {self.cap}")
        return self

    def ratio_at(self, now_s: float) -> float:
        """The ratio to beat in a duel that starts at `now_s`, which keeps it to its end: 0.5 + epsilon to `cap`.

        max(0.5 + epsilon, 0.5 + (ratio - 0.5) * 0.01 ** (seconds since / 7 days)). Clocks differ, so a time before
        `since_s` counts as `since_s`. Raises ValueError for a time that is not a number.
        """
        elapsed_s = self._not_before(now_s) - self.since_s
        decayed = EVEN + (self.ratio - EVEN) * math.pow(LEFT, elapsed_s / DECAY_S)
        return max(EVEN + self.epsilon, min(self.cap, round(decayed, DIGITS)))

    def after_win(self, win_rates: Sequence[float], now_s: float) -> Ratchet:
        """The ratchet of a contender that takes the throne at `now_s`, from its win rates where it won.

        Their geometric mean, within 0.5 to `cap`, in whatever order they come. Time does not go back: a `now_s` before
        `since_s` counts as `since_s`. Raises ValueError for no rates, or one that is not in (0, 1].
        """
        if not win_rates or not all(0.0 < rate <= 1.0 for rate in win_rates):
            raise ValueError(f"a winner has win rates over 0 and up to 1, not {list(win_rates)}")
        ratio = min(self.cap, max(EVEN, round(geometric_mean(win_rates), DIGITS)))
        return Ratchet(ratio=ratio, since_s=self._not_before(now_s), epsilon=self.epsilon, cap=self.cap)

    def _not_before(self, now_s: float) -> float:
        if not math.isfinite(now_s):
            raise ValueError(f"a time is a number of seconds, not {now_s}")
        return max(self.since_s, now_s)
