"""Train, attack, refit, measure: a detector learns from threats that it misses, at the same budget of false alarms.

The clean records are in three parts that share none. On the first the detector is attacked, its head learns, the new
detector is attacked in turn, and so on; on the second both thresholds are set; the third says what was gained: its
clean batches, and threats made of its own records, so that no trace of the generator passes for a threat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.sandbox.hardening.batches import Parts, resampled
from chimera.sandbox.hardening.detector import view
from chimera.sandbox.hardening.hardened import Hardened, threshold_of
from chimera.sandbox.hardening.head import Head
from chimera.sandbox.hardening.report import FalseAlarms, HardenReport, Measured
from chimera.sandbox.schema import Floats, Table
from chimera.sandbox.threats import (
    BatchDetector,
    Reference,
    Synthetic,
    ThreatKind,
    bootstrap,
    make_threats,
    make_window_threats,
)

STRENGTHS = (0.1, 0.2, 0.3, 0.5, 0.95)

MARGIN = 0.7
"""The share of the budget that the hardened detector's thresholds are set for: they are less sure than one alone."""

MAX_ROWS = 10_000
"""Records of a batch."""


class Effort(Frozen):
    """How much is tried. The default takes minutes, and tells a rate of 1 of 1,000 to about a fifth."""

    rounds: Annotated[int, Field(ge=1, le=10)] = 1
    """Attacks on the detector, then on what was learnt from those before. In a second round the search finds batches
    that no head tells from clean ones; learning from them took more from other threats than it gave (small sets)."""
    train_batches: Annotated[int, Field(ge=4, le=100_000)] = 60
    """Threats of each kind and strength, in each round for evasive ones, to learn from."""
    measure_batches: Annotated[int, Field(ge=10, le=100_000)] = 300
    """Threats of each kind and strength to measure with."""
    clean_batches: Annotated[int, Field(ge=1_000, le=10_000_000)] = 40_000
    """Clean batches to set thresholds on, and as many to measure false alarms with; a tenth to learn from."""
    queries: Annotated[int, Field(ge=1, le=10_000)] = 96
    """Batches that the search for an evasive one may try."""


@dataclass(frozen=True, kw_only=True)
class _Attack:
    """Makes batches of threats (count, rows, columns) from a source of records."""

    reference: Reference
    rows: int
    windows: bool
    queries: int

    def __call__(
        self,
        source: Synthetic,
        count: int,
        kind: ThreatKind,
        strength: float,
        rng: np.random.Generator,
        detector: BatchDetector,
    ) -> Floats:
        if self.windows:
            made = make_window_threats(
                source,
                count,
                kind,
                strength,
                reference=self.reference,
                rng=rng,
                detector=detector,
                queries=self.queries,
            )
            return made.table.values[:, None, :]
        batches = [
            make_threats(
                source,
                self.rows,
                kind,
                strength,
                reference=self.reference,
                rng=rng,
                detector=detector,
                exact=False,
                queries=self.queries,
            ).table.values
            for _ in range(count)
        ]
        return np.stack(batches)


def harden(
    detector: BatchDetector,
    clean: Table | Parts,
    synthetic: Synthetic,
    *,
    batch: int = 64,
    alarms_per_1000: float = 1.0,
    kinds: Sequence[ThreatKind] = tuple(ThreatKind),
    strengths: Sequence[float] = STRENGTHS,
    seed: int,
    windows: bool = False,
    effort: Effort | None = None,
    progress: Callable[[str], None] = lambda said: None,
) -> tuple[Hardened, HardenReport]:
    """The detector with what it learnt, and what that is worth.

    `clean` is a table of independent records, parted by chance, or parts. What `detector` and `synthetic` were fitted
    to must not be in the part that is measured on: pass `Parts`, and fit both to `parts.fit` or to other data.
    The head learns from the very `strengths` that are measured: a few that can be found must be among them.
    Batches have `batch` records; with `windows` each record is a window of a metric and a batch by itself.
    `progress` is told what goes on. Raises InputError where a budget of `alarms_per_1000` cannot be set on so few
    batches, and where threats of a strength cannot be made.
    """
    effort = effort or Effort()
    rows = 1 if windows else batch
    if not 1 <= rows <= MAX_ROWS:
        raise InputError(f"a batch has 1 to {MAX_ROWS} records, not {batch}")
    if not kinds or not strengths:
        raise InputError("name at least one kind of threat and one strength")
    parting, learning, setting, measuring = (np.random.default_rng([seed, part]) for part in range(4))
    parts = clean if isinstance(clean, Parts) else Parts.by_chance(clean, parting)
    attack = _Attack(reference=Reference.of(parts.fit), rows=rows, windows=windows, queries=effort.queries)
    sources = (synthetic, bootstrap(parts.fit))
    head = _learn(detector, parts.fit, sources, attack, kinds, strengths, alarms_per_1000, effort, learning, progress)
    progress("setting thresholds")
    own, learned = _both(detector, head, parts.calibrate, effort.clean_batches, rows, setting)
    threshold = threshold_of(own, alarms_per_1000)
    hardened = Hardened.calibrated(detector, head, own, learned, MARGIN * alarms_per_1000)
    report = _measure(hardened, threshold, parts, attack, kinds, strengths, effort, measuring, progress)
    about = {"detector": detector.name, "rows": rows, "alarms_per_1000": alarms_per_1000, "seed": seed}
    records = (len(parts.fit), len(parts.calibrate), len(parts.measure))
    return hardened, HardenReport(**about, records=records, **report)  # type: ignore[arg-type]


def _learn(
    detector: BatchDetector,
    fit: Table,
    sources: Sequence[Synthetic],
    attack: _Attack,
    kinds: Sequence[ThreatKind],
    strengths: Sequence[float],
    alarms_per_1000: float,
    effort: Effort,
    rng: np.random.Generator,
    progress: Callable[[str], None],
) -> Head:
    """A head that has seen threats of all kinds, evasive ones against the detector and against each head before."""
    count = max(effort.clean_batches // 10, 1_000)
    usual = np.concatenate(list(resampled(fit, count, attack.rows, rng, twice=True)))
    clean = usual, view(detector, usual)
    seen: list[tuple[Floats, Floats]] = []
    head, attacked = None, detector
    for number in range(effort.rounds):
        progress(f"round {number + 1} of {effort.rounds}: attacking the {attacked.name} detector")
        new = [kind for kind in kinds if number == 0 or kind is ThreatKind.EVASIVE]
        for kind in new:
            for strength in strengths:
                shares = np.array_split(np.arange(effort.train_batches), len(sources))
                made = [
                    attack(source, len(share), kind, strength, rng, attacked)
                    for source, share in zip(sources, shares, strict=True)
                ]
                batches = np.concatenate(made)
                seen.append((batches, view(detector, batches)))
        if new or head is None:
            head = Head.fit(fit.values, clean, seen)
            own, learned = clean[1][:, -1], head.score(*clean)
            attacked = Hardened.calibrated(detector, head, own, learned, alarms_per_1000)
    assert head is not None
    return head


def _both(
    detector: BatchDetector, head: Head, part: Table, count: int, rows: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """The detector's scores and the head's of clean batches."""
    batches = resampled(part, count, rows, rng, twice=True)
    seen = [(said[:, -1], head.score(some, said)) for some in batches for said in [view(detector, some)]]
    own, learned = (np.concatenate(each) for each in zip(*seen, strict=True))
    return own, learned


def _measure(
    hardened: Hardened,
    threshold: float,
    parts: Parts,
    attack: _Attack,
    kinds: Sequence[ThreatKind],
    strengths: Sequence[float],
    effort: Effort,
    rng: np.random.Generator,
    progress: Callable[[str], None],
) -> dict[str, object]:
    """The report's figures, from the part that nothing was fitted to."""
    source, detector, count = bootstrap(parts.measure), hardened.detector, effort.measure_batches

    def row(kind: ThreatKind, strength: float, attacked: BatchDetector) -> Measured:
        batches = attack(source, count, kind, strength, rng, attacked)
        counts = _counts(hardened, threshold, detector.score(batches), hardened.score(batches))
        against = "hardened" if attacked is hardened else "detector" if kind is ThreatKind.EVASIVE else ""
        return Measured.model_validate({"kind": kind, "strength": strength, "against": against, **counts})

    measured: list[Measured] = []
    for kind in kinds:
        progress(f"measuring with {kind} threats")
        measured += [row(kind, strength, detector) for strength in strengths]
        if kind is ThreatKind.EVASIVE:
            measured += [row(kind, strength, hardened) for strength in strengths]
    controls = [row(kind, 0.0, detector) for kind in kinds if kind is not ThreatKind.POISONED]
    progress("counting false alarms")
    usual = resampled(parts.measure, effort.clean_batches, attack.rows, rng, twice=False)
    said = [np.stack([detector.score(some), hardened.score(some)]) for some in usual]
    alarms = _counts(hardened, threshold, *np.concatenate(said, axis=1))
    return {"measured": tuple(measured), "controls": tuple(controls), "clean": FalseAlarms(**alarms)}


def _counts(hardened: Hardened, threshold: float, own: Floats, after: Floats) -> dict[str, int]:
    found_before, found_after = own > threshold, after > hardened.threshold
    return {
        "batches": len(own),
        "both": int((found_before & found_after).sum()),
        "only_before": int((found_before & ~found_after).sum()),
        "only_after": int((~found_before & found_after).sum()),
    }
