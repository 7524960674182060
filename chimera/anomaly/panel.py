"""The channels of a watch as one: the ensemble, and the further detectors that vote with it.

Each further detector counts in its own unit, so what its score of a metric is worth is how rarely it gives that metric
a higher one (`tails.py`). From 1 in 10,000 on it votes for an alert. The vote is carried by more than half of the
further detectors, where the ensemble leans to an alert itself. It is told when the ensemble has had the time to come to
an alert of its own, which is then told instead: it knows more of the kind.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from chimera.anomaly.buffer import Arrays, Slots, SlotTable, TimeSeriesBuffer
from chimera.anomaly.channels import UNITS
from chimera.anomaly.detectors.base import Detector, Student, Values
from chimera.anomaly.ensemble import KINDS, Ensemble, Verdicts
from chimera.anomaly.registry import detector
from chimera.anomaly.tails import Tails
from chimera.core.errors import StorageError
from chimera.core.watching import AnomalyKind, Evidence

VOTES_FROM = 4.0
"""-log10 of how rarely a further detector may vote."""

FLOOR = 1e-6
"""The least mean excess of a detector's scores over what is usual."""

WAIT = 6
"""Readings from a vote to its alert. The ensemble takes a few to tell a spike from a new level."""

ESCALATION = 2.0
"""How many times the score of an alert by votes breaks its cooldown."""

LEANING = 3.0
"""The ensemble leans to an alert when one of its channels says what it does once in 1,000 readings, or more rarely."""

TELLING = 2.0
"""A channel is named as evidence that says what it does once in 100 readings or more rarely."""


_log = logging.getLogger(__name__)


class Judgement(NamedTuple):
    """What the channels say of one reading of each of n metrics."""

    verdicts: Verdicts
    """The ensemble's, with the alerts that the further channels called for."""
    votes: Values
    """(n, further channels): -log10 of how rarely they say so, at most since the vote that waits for its alert."""
    scores: Values
    """(n, further channels): what they said then, each in its own unit."""


class Panel:
    """Judges many metrics at once. Slots are as in `Ensemble`."""

    def __init__(self, metrics: int, *, pattern: bool, further: Sequence[str], cooldown: int) -> None:
        """`further` names detectors of the registry. Raises DetectorError where one cannot be used."""
        self.ensemble = Ensemble(metrics, pattern=pattern)
        self.further: dict[str, Detector] = {name: detector(name)(metrics) for name in further}
        self._tails = Tails(metrics, np.full(len(self.further), FLOOR))
        count = (len(self.further),)
        self._rows = SlotTable(
            metrics,
            {
                "quiet": (np.int32, (), 0),
                "waits": (np.int8, (), -1),
                "kind": (np.int8, (), -1),
                "hush": (np.int32, (), 0),
                "told": (np.float32, (), 0.0),
                "votes": (np.float32, count, 0.0),
                "scores": (np.float32, count, 0.0),
            },
        )
        self._cooldown = cooldown
        self.failed: Counter[str] = Counter()
        """Rounds in which a further detector gave no scores, by name."""

    @property
    def buffer(self) -> TimeSeriesBuffer:
        return self.ensemble.buffer

    @property
    def channels(self) -> tuple[str, ...]:
        return (*self.ensemble.channels, *self.further)

    def students(self) -> list[Student]:
        return [found for found in self.further.values() if isinstance(found, Student)]

    def update(self, values: Values, at: Slots) -> Judgement:
        """Judge one reading of each of the slots `at`, then learn them."""
        verdicts = self.ensemble.update(values, at)
        if not self.further:
            return Judgement(verdicts, np.empty((len(at), 0)), np.empty((len(at), 0)))
        scores = np.column_stack([self._score(name, values, at) for name in self.further])
        votes = self._tails.score(scores, at)
        self._tails.learn(scores, at, scores != 0.0)
        carried = 2 * np.count_nonzero(votes >= VOTES_FROM, axis=1) > len(self.further)
        leaning = np.max(verdicts.channel_scores, axis=1, initial=0.0) >= LEANING
        return self._count(verdicts, values, at, votes, scores, carried & leaning & verdicts.ready)

    def _count(
        self,
        verdicts: Verdicts,
        values: Values,
        at: Slots,
        votes: npt.NDArray[Any],
        scores: Values,
        called: npt.NDArray[np.bool_],
    ) -> Judgement:
        """The ensemble's verdicts, with an alert where one was called for WAIT readings ago and it has told none."""
        rows = self._rows
        quiet, waits, kind = rows["quiet"][at], rows["waits"][at], rows["kind"][at]
        larger = votes > np.where(waits[:, None] >= 0, rows["votes"][at], -1.0)
        votes, scores = np.where(larger, votes, rows["votes"][at]), np.where(larger, scores, rows["scores"][at])
        begins = called & (waits < 0) & (quiet == 0)
        voted = (waits == 0) & ~verdicts.alert
        hushed = (rows["hush"][at] > 0) & (verdicts.score < ESCALATION * rows["told"][at])
        alert = (verdicts.alert & ~hushed) | voted
        side = np.where(values < verdicts.expected, KINDS.index(AnomalyKind.DROP), KINDS.index(AnomalyKind.SPIKE))
        rows["kind"][at] = np.where(begins, side, kind)
        rows["waits"][at] = np.where(alert, -1, np.where(begins, WAIT - 1, np.maximum(waits - 1, -1)))
        rows["quiet"][at] = np.where(alert, self._cooldown, np.maximum(quiet - 1, 0))
        rows["hush"][at] = np.where(voted, self._cooldown, np.maximum(rows["hush"][at] - 1, 0))
        rows["told"][at] = np.where(voted, verdicts.score, rows["told"][at])
        rows["votes"][at], rows["scores"][at] = votes, np.nan_to_num(scores)
        told = replace(
            verdicts,
            alert=alert,
            kind=np.where(voted, kind, verdicts.kind),
            since=np.where(voted, WAIT, verdicts.since),
        )
        return Judgement(told, votes, scores)

    def _score(self, name: str, values: Values, at: Slots) -> Values:
        """What a further detector says; NaN where it fails, which is counted: one channel does not end the watch."""
        try:
            scores = np.asarray(self.further[name].update(values, at), np.float64)
            if scores.shape == values.shape:
                return scores
        except Exception:  # a user's detector may raise anything
            if not self.failed[name]:
                _log.warning("the detector %s failed", name, exc_info=True)
        self.failed[name] += 1
        return np.full(len(values), np.nan)

    def evidence(self, judgement: Judgement, number: int, since: float) -> Iterator[Evidence]:
        """What the channels saw of the `number`th metric, since `since`."""
        verdicts = judgement.verdicts
        said = verdicts.channel_scores[number]
        least = min(TELLING, float(np.max(said, initial=0.0)))
        for channel in np.flatnonzero((said >= least) & (said > 0.0)).tolist():
            yield Evidence(
                channel=self.ensemble.channels[channel],
                score=_number(said[channel]),
                distance=_number(verdicts.channel_distances[number, channel]),
                unit=UNITS[self.ensemble.channels[channel]],
                since=since,
            )
        for channel, (name, found) in enumerate(self.further.items()):
            vote = float(judgement.votes[number, channel])
            if vote >= TELLING:
                distance = _number(judgement.scores[number, channel])
                yield Evidence(channel=name, score=vote, distance=distance, unit=found.unit, since=since)

    def resize(self, metrics: int) -> None:
        for part in self._parts().values():
            part.resize(metrics)

    def forget(self, at: Slots) -> None:
        for part in self._parts().values():
            part.forget(at)

    def snapshot(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """The arrays of all parts."""
        return {name: part.snapshot() for name, part in self._parts().items()}

    def restore(self, parts: Mapping[str, Arrays]) -> None:
        """Go on where a snapshot was taken. Raises StorageError; what is restored by half must be thrown away."""
        for name, part in self._parts().items():
            if name not in parts:
                raise StorageError(f"the snapshot has no {name!r}: the watch had other channels")
            part.restore(parts[name])

    def state_bytes(self) -> int:
        return sum(part.state_bytes() for part in self._parts().values())

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"ensemble": self.ensemble, "votes": self._rows}
        if self.further:
            parts["tails"] = self._tails
        return parts | {f"detector {name}": found for name, found in self.further.items()}


def _number(given: Any) -> float:
    return float(np.nan_to_num(float(given), nan=0.0, posinf=1e300, neginf=-1e300))
