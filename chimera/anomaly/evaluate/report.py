"""A detector's figures over labelled series: everything that is asked of it, from one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from chimera.anomaly.evaluate.events import NOT_FOUND, Counts, Events, chance_f1, skill
from chimera.anomaly.evaluate.numenta import best_score, own_score, weigh
from chimera.anomaly.evaluate.series import Series, StreamDetector, Trace, run
from chimera.anomaly.evaluate.vus import vus_pr
from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.core.watching import AnomalyKind

VUS_TOLERANCE = {"nab": 100, "synthetic": 20}
"""Points of the widest margin. NAB's labels are vague, the synthetic ones exact."""

WARM_UP = 50
"""Points of a series whose CPU time is not told: what a detector makes once is no cost of a point."""


class KindScores(Frozen):
    """Anomalies of one kind: labelled, found, those whose first alert named any kind, and those where it was right."""

    windows: int = 0
    found: int = 0
    named: int = 0
    right: int = 0

    @property
    def recall(self) -> float:
        return self.found / max(1, self.windows)


class NabScores(Frozen):
    """NAB's score, of the detector's own alerts and at the one threshold that the labels like best (None: no alert)."""

    own: float
    best: float
    best_threshold: float | None


class Scores(Frozen):
    """The figures over some series. A figure that the series do not give is None.

    `skill` is F1 above what blind alerts get. `false_alarms_per_1000` is to 1,000 scored points outside of windows.
    Delays are points from an anomaly's instant to its first alert; NAB's windows open earlier, so they may be negative.
    `kind_accuracy` is the share of found anomalies of known kind whose first alert named it, of those that named any.
    CPU times are microseconds a point.
    """

    series: int
    points: int
    windows: int
    found: int
    false_alarms: int
    precision: float
    recall: float
    f1: float
    chance_f1: float
    skill: float
    false_alarms_per_1000: float
    delay_mean: float | None
    delay_median: float | None
    vus_pr: float | None
    kind_accuracy: float | None
    by_kind: dict[AnomalyKind, KindScores]
    nab: NabScores | None
    cpu_p50_us: float
    cpu_p99_us: float


class Report(Frozen):
    """Scores by part: `nab` and `synthetic` as a whole, and each of their groups, such as `synthetic/clean`."""

    parts: dict[str, Scores]


def evaluate(detector: StreamDetector, series: Sequence[Series]) -> Report:
    """Run `detector` over each of `series`, a new generator each, and score it.

    Raises DetectorError where it looks ahead or yields what is no result, InputError without any series.
    """
    return score(series, [run(detector, each) for each in series])


def score(series: Sequence[Series], traces: Sequence[Trace]) -> Report:
    """The report of detectors that have run already. Raises InputError unless there is one trace a series."""
    if not series or len(series) != len(traces):
        raise InputError(f"one trace a series, and at least one: not {len(traces)} for {len(series)}")
    parts: dict[str, list[int]] = {}
    for number, each in enumerate(series):
        parts.setdefault(each.corpus, []).append(number)
        parts.setdefault(f"{each.corpus}/{each.group}", []).append(number)
    return Report(
        parts={
            name: _scores([series[n] for n in numbers], [traces[n] for n in numbers])
            for name, numbers in sorted(parts.items())
        }
    )


def _scores(series: Sequence[Series], traces: Sequence[Trace]) -> Scores:
    events = [Events(each, trace.alerts) for each, trace in zip(series, traces, strict=True)]
    counts = sum((each.counts for each in events), Counts())
    chance = chance_f1(events)
    normal = sum(each.normal_points for each in events)
    delays = [
        int(first) - window.instant
        for each, event in zip(series, events, strict=True)
        for window, first in zip(each.windows, event.firsts, strict=True)
        if first != NOT_FOUND
    ]
    kinds = _by_kind(series, traces, events)
    named = sum(each.named for each in kinds.values())
    cpu_us = 1e6 * np.concatenate([trace.cpu_s[min(WARM_UP, len(trace.cpu_s) // 2) :] for trace in traces])
    return Scores(
        series=len(series),
        points=sum(len(each.values) for each in series),
        windows=counts.windows,
        found=counts.found,
        false_alarms=counts.false_alarms,
        precision=counts.precision,
        recall=counts.recall,
        f1=counts.f1,
        chance_f1=chance,
        skill=skill(counts.f1, chance),
        false_alarms_per_1000=1_000 * counts.false_alarms / max(1, normal),
        delay_mean=float(np.mean(delays)) if delays else None,
        delay_median=float(np.median(delays)) if delays else None,
        vus_pr=_vus(series, traces),
        cpu_p50_us=float(np.percentile(cpu_us, 50)),
        cpu_p99_us=float(np.percentile(cpu_us, 99)),
        kind_accuracy=sum(each.right for each in kinds.values()) / named if named else None,
        by_kind=kinds,
        nab=_nab(series, traces, events) if series[0].corpus == "nab" else None,
    )


def _vus(series: Sequence[Series], traces: Sequence[Trace]) -> float | None:
    """The mean over the series that have labelled points to score."""
    volumes = [
        vus_pr(trace.scores[each.probation :], each.inside()[each.probation :], VUS_TOLERANCE[each.corpus])
        for each, trace in zip(series, traces, strict=True)
    ]
    told = [volume for volume in volumes if not np.isnan(volume)]
    return float(np.mean(told)) if told else None


def _by_kind(
    series: Sequence[Series], traces: Sequence[Trace], events: Sequence[Events]
) -> dict[AnomalyKind, KindScores]:
    counts: dict[AnomalyKind, Counter[str]] = {}
    for each, trace, event in zip(series, traces, events, strict=True):
        for window, first, counting in zip(each.windows, event.firsts, event.counting, strict=True):
            if window.kind is None or not counting:
                continue
            named = None if first == NOT_FOUND else trace.kinds[first]
            facts = {
                "windows": True,
                "found": first != NOT_FOUND,
                "named": named is not None,
                "right": named is window.kind,
            }
            counts.setdefault(window.kind, Counter()).update(fact for fact, holds in facts.items() if holds)
    return {kind: KindScores(**each) for kind, each in counts.items()}


def _nab(series: Sequence[Series], traces: Sequence[Trace], events: Sequence[Events]) -> NabScores | None:
    weighed = [weigh(each) for each in series]
    if not any(each.windows for each in weighed):
        return None
    own = own_score(weighed, [event.kept - each.probation for each, event in zip(series, events, strict=True)])
    scores = [trace.scores[each.probation :] for each, trace in zip(series, traces, strict=True)]
    best, threshold = best_score(weighed, scores)
    return NabScores(own=own, best=best, best_threshold=threshold if np.isfinite(threshold) else None)
