"""How much speaks for a patch that was accepted, as one number: what is below a threshold goes to a person first.

Only what was measured counts, and how sure a model says it is does not. It is no probability: it orders patches, and
has the same meaning from one day to the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from chimera.core.stats import wilson_interval

HALF_LINES = 20
"""A patch of so many changed lines counts half of what a patch of none would."""


def confidence(*, rate: float, reproduced: bool, passed: int, lines: int) -> float:
    """The mean of four numbers in 0..1, rounded to three digits:

    - `rate`: the low end of the model's share of accepted patches until now (`SuccessRate.at_least`; 0 if unknown)
    - 1 if tests of the patch fail without it (`Verdict.reproduced`), else 0
    - the low end of the 95 % Wilson interval of `passed` tests of as many: 0.57 for 5, 0.84 for 20
    - 20 / (20 + `lines`), the lines that it adds or takes away
    """
    if not 0.0 <= rate <= 1.0 or passed < 0 or lines < 0:
        raise ValueError(f"rate must be in 0..1, passed and lines 0 or more: got {rate}, {passed}, {lines}")
    parts = (rate, float(reproduced), wilson_interval(passed, passed)[0], HALF_LINES / (HALF_LINES + lines))
    return round(sum(parts) / len(parts), 3)


def changed_lines(before: Mapping[str, str], after: Mapping[str, str]) -> int:
    """How many lines the files of `after` (path -> text) have more or fewer than before; a moved line is the same."""
    total = 0
    for path, text in after.items():
        old, new = Counter(before.get(path, "").splitlines()), Counter(text.splitlines())
        total += (old - new).total() + (new - old).total()
    return total
