"""A detector that has learnt: its own score and a head's, on one scale, with one threshold and one budget of alarms."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np

from chimera.core.errors import InputError, StorageError
from chimera.sandbox.hardening.detector import view
from chimera.sandbox.hardening.head import Head
from chimera.sandbox.schema import Floats
from chimera.sandbox.threats.kinds import BatchDetector

OWN_SHARE = 0.4
"""Of the budget of false alarms: the detector's own. The rest is the head's."""

FORMAT = "chimera hardened detector 1"

MAX_BYTES = 64 * 1024 * 1024
"""Of a file that is read."""


@dataclass(frozen=True)
class Scale:
    """From a score to a scale on which clean batches are about 0 and the threshold is 1."""

    centre: float
    threshold: float

    def __call__(self, scores: Floats) -> Floats:
        return (scores - self.centre) / (self.threshold - self.centre)


class Hardened:
    """The larger of a detector's own score and what its head has learnt. Itself a detector of batches."""

    threshold = 1.0
    """A batch whose score is above it is an alarm."""

    def __init__(self, *, detector: BatchDetector, head: Head, own: Scale, learned: Scale) -> None:
        self.detector, self.head, self.own, self.learned = detector, head, own, learned

    @property
    def name(self) -> str:
        return f"hardened {self.detector.name}"

    @classmethod
    def calibrated(
        cls, detector: BatchDetector, head: Head, own: Floats, learned: Floats, alarms_per_1000: float
    ) -> Self:
        """With thresholds so that of clean batches, whose scores are `own` and `learned` (b,), so many are alarms.

        Raises InputError where they are too few for such a rate.
        """
        allowed = allowed_of(len(own), alarms_per_1000)
        rank = np.minimum(_ranks(own) / OWN_SHARE, _ranks(learned) / (1.0 - OWN_SHARE))
        cut = float(np.sort(rank)[allowed])
        return cls(
            detector=detector,
            head=head,
            own=_scale(own, OWN_SHARE * cut),
            learned=_scale(learned, (1.0 - OWN_SHARE) * cut),
        )

    def evidence(self, batches: Floats) -> Floats:
        """(b, 2) the detector's own score and the head's, each 1 at its threshold."""
        seen = view(self.detector, batches)
        return np.stack([self.own(seen[:, -1]), self.learned(self.head.score(batches, seen))], axis=1)

    def score(self, batches: Floats) -> Floats:
        largest: Floats = self.evidence(batches).max(axis=1)
        return largest

    def save(self, path: Path) -> None:
        """Write all but the detector to an .npz file: numbers, nothing that runs. Raises StorageError."""
        scales = [self.own.centre, self.own.threshold, self.learned.centre, self.learned.threshold]
        try:
            with path.open("wb") as file:
                np.savez_compressed(
                    file,
                    format=np.array(FORMAT),
                    detector=np.array(self.detector.name),
                    scales=np.array(scales),
                    **{f"head.{name}": array for name, array in self.head.arrays().items()},  # type: ignore[arg-type]
                )
        except OSError as error:
            raise StorageError(f"the hardened detector cannot be written to {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path, detector: BatchDetector) -> Self:
        """Read what `save` wrote, around the same detector. Raises StorageError, InputError for another detector."""
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                    raise StorageError(f"{path} is larger than the {MAX_BYTES} bytes that a hardened detector may have")
            with np.load(path, allow_pickle=False) as file:
                kept = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise StorageError(f"{path} is no hardened detector that can be read: {error}") from error
        if str(kept.get("format")) != FORMAT:
            raise StorageError(f"{path} is no hardened detector of this version: make it anew with `harden`")
        if str(kept.get("detector")) != detector.name:
            raise InputError(f"{path} is of the detector {kept.get('detector')!s}, not of {detector.name}")
        head, scales = _head(path, kept), kept.get("scales")
        if scales is None or scales.shape != (4,) or not np.isfinite(scales).all():
            raise StorageError(f"{path} has no thresholds")
        centre, threshold, head_centre, head_threshold = scales.tolist()
        if not (threshold > centre and head_threshold > head_centre):
            raise StorageError(f"{path} has thresholds below what is usual")
        return cls(
            detector=detector, head=head, own=Scale(centre, threshold), learned=Scale(head_centre, head_threshold)
        )


def threshold_of(scores: Floats, alarms_per_1000: float) -> float:
    """What at most so many of 1,000 clean batches, of those with `scores` (b,), are above."""
    return float(np.sort(scores)[::-1][allowed_of(len(scores), alarms_per_1000)])


def allowed_of(batches: int, alarms_per_1000: float) -> int:
    """How many of so many clean batches may be alarms. Raises InputError where that is none, or all."""
    allowed = int(batches * alarms_per_1000 / 1000.0)
    if not 1 <= allowed < batches:
        raise InputError(
            f"{batches} clean batches do not tell where {alarms_per_1000:g} of 1,000 are alarms: allow between "
            f"{1000.0 / max(batches, 1):g} and 999, or take more batches"
        )
    return allowed


def _ranks(scores: Floats) -> Floats:
    """(b,) 1 for the highest."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def _scale(scores: Floats, cut: float) -> Scale:
    """With the threshold that those of a rank below `cut` are above."""
    ordered, centre = np.sort(scores)[::-1], float(np.median(scores))
    threshold = float(ordered[min(int(np.ceil(cut - 1e-6)), len(ordered)) - 1])  # but for rounding
    return Scale(centre, threshold if threshold > centre else centre + max(1e-9, abs(centre) * 1e-9))


def _head(path: Path, kept: Mapping[str, Floats]) -> Head:
    """Raises StorageError where an array is missing, is not of finite numbers, or does not fit the others."""
    found: dict[str, Floats] = {}
    for field in fields(Head):
        array = kept.get(f"head.{field.name}")
        if array is None or array.dtype != np.float64 or not np.isfinite(array).all():
            raise StorageError(f"{path} has no numbers {field.name!r}")
        found[field.name] = array
    head = Head(**found)
    columns, statistics = head.means.shape, head.centre.shape
    whole = (
        len(columns) == len(statistics) == 1
        and head.scale.shape == columns
        and head.matrix.ndim == head.axes.ndim == 2
        and head.matrix.shape == (*columns, len(head.axes))
        and head.spread.shape == statistics
        and head.weights.shape == statistics
        and head.offset.shape == ()
    )
    if not whole:
        raise StorageError(f"the arrays of {path} do not fit together")
    return head
