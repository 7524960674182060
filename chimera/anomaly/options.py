"""How a watch goes about it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from chimera.core.types import Frozen, Seconds

Glob = Annotated[str, Field(min_length=1, max_length=512)]


class WatchOptions(Frozen):
    """What an `AnomalyDetectionEngine` looks after, and how.

    `max_metrics` are looked after at once; when there are as many, a new one takes the place of the one that has been
    silent longest, if that was for `idle_s` at least, and is refused otherwise. `pattern` and `forest` say whether the
    channels of those names vote; `detectors` names further ones (see `chimera.anomaly.registry`). An alert by votes
    of these extra channels is followed by none for `cooldown` readings of the same metric. `counters` are globs of
    metrics that only ever count up, besides those whose name says so.
    A metric with a limit is forecast with every `forecast_every`th reading; a crossing `warn_ahead_s` ahead or sooner
    is a warning. Background learning follows alerts, `learners` studies at a time, each `learn_every_s` at most.
    """

    max_metrics: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    idle_s: Seconds = 3_600.0
    pattern: bool = True
    forest: bool = False
    detectors: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), max_length=8)
    cooldown: Annotated[int, Field(ge=1, le=1_000)] = 100
    counters: tuple[Glob, ...] = Field(default=(), max_length=1_000)
    forecast_every: Annotated[int, Field(ge=1, le=1_000)] = 5
    warn_ahead_s: Seconds = 600.0
    learners: Annotated[int, Field(ge=1, le=16)] = 1
    learn_every_s: Seconds = 60.0
