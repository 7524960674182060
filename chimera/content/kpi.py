"""How a campaign does, each figure with how sure it is. Pure: records in, figures out.

Shares have Wilson's interval (1927), means the percentile interval of a seeded bootstrap (Efron 1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import numpy as np
from pydantic import Field

from chimera.core.errors import InputError
from chimera.core.stats import wilson_interval
from chimera.core.types import Frozen

WANTED_WITHOUT_A_PERSON: Final = 0.90
MAX_RECORDS: Final = 100_000
RESAMPLES: Final = 1_000
SEED: Final = 0

Count = Annotated[int, Field(ge=0)]


class Record(Frozen):
    """What is known of one item. `person`: one decided on it before it went out; `changed`: and edited or refused it.

    `failed`: it came to nothing by a fault (no draft, an error of the platform), which a refusal is not. `seen` is how
    many people saw it, None where the platform does not say; `reactions` are likes, reposts and replies together.
    """

    item: str
    cost_usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    person: bool = False
    changed: bool = False
    published: bool = False
    refused: bool = False
    failed: bool = False
    seen: Count | None = None
    reactions: Count = 0


class Figure(Frozen):
    """A number of `n` records and its 95 % interval; all None where there is nothing to count."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: Count = 0


class Report(Frozen):
    """The figures of a campaign.

    - `without_person`: items that were dealt with and needed nobody; more than 0.9 is wanted.
    - `interventions`: items that a person changed or refused.
    - `errors`: items that came to nothing by a fault.
    - `engagement`: reactions of those who saw an item, where that is known; else `reactions_each`, a mean.
    - `cost_usd`: the mean of an item, whatever became of it; `cost_usd_total` all of it.
    """

    items: Count
    published: Count
    refused: Count
    without_person: Figure
    interventions: Figure
    errors: Figure
    engagement: Figure
    reactions_each: Figure
    cost_usd: Figure
    cost_usd_total: float

    @property
    def reached(self) -> bool | None:
        """Whether more than 0.9 needed no person; None while there are no items."""
        value = self.without_person.value
        return None if value is None else value > WANTED_WITHOUT_A_PERSON


def report(records: Sequence[Record]) -> Report:
    """The figures over `records`. Raises InputError for more than 100,000."""
    if len(records) > MAX_RECORDS:
        raise InputError(f"{len(records)} items; a report is over at most {MAX_RECORDS}: name a shorter time")
    ended = [one for one in records if one.published or one.refused or one.failed]
    out = [one for one in records if one.published]
    seen = [one for one in out if one.seen]
    views = sum(one.seen or 0 for one in seen)
    return Report(
        items=len(records),
        published=len(out),
        refused=sum(one.refused for one in records),
        without_person=_share(sum(not one.person for one in ended), len(ended)),
        interventions=_share(sum(one.changed for one in ended), len(ended)),
        errors=_share(sum(one.failed for one in ended), len(ended)),
        engagement=_share(min(sum(one.reactions for one in seen), views), views),
        reactions_each=_mean([float(one.reactions) for one in out]),
        cost_usd=_mean([one.cost_usd for one in records]),
        cost_usd_total=sum(one.cost_usd for one in records),
    )


def _share(count: int, n: int) -> Figure:
    if n == 0:
        return Figure()
    low, high = wilson_interval(count, n)
    return Figure(value=count / n, low=low, high=high, n=n)


def _mean(values: Sequence[float]) -> Figure:
    if not values:
        return Figure()
    data = np.asarray(values)
    rng = np.random.default_rng(SEED)
    rounds = max(200, min(RESAMPLES, 20_000_000 // len(data)))
    means = np.array([data[rng.integers(len(data), size=len(data))].mean() for _ in range(rounds)])
    low, high = (float(each) for each in np.quantile(means, (0.025, 0.975)))
    return Figure(value=float(data.mean()), low=low, high=high, n=len(data))
