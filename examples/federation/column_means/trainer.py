"""A generator x = W z + b with z ~ N(0, I), fitted to a table's means and covariance. It trains without privacy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from chimera.sandbox.federation.local import Floating, TrainReport

LEARNING_RATE = 0.2


def blank(columns: int) -> list[Floating]:
    """W, (columns, columns), and b, (columns,)."""
    return [np.eye(columns, dtype=np.float32), np.zeros(columns, np.float32)]


class Trainer:
    """Keeps its generator in `folder`. It adds no noise, so its epsilon is infinite, and that is what it reports."""

    def __init__(self, folder: Path, *, table: Path) -> None:
        self._file = folder / "generator.npz"
        self._records = np.loadtxt(table, delimiter=",", ndmin=2)
        self._arrays = blank(self._records.shape[1])
        if self._file.exists():
            with np.load(self._file) as kept:
                self._arrays = [kept["W"], kept["b"]]

    def generator(self) -> list[Floating]:
        return [array.copy() for array in self._arrays]

    def load_generator(self, arrays: Sequence[Floating]) -> None:
        self._arrays = [array.copy() for array in arrays]

    def train(self, steps: int, *, anchor: Sequence[Floating] | None, proximal_mu: float) -> TrainReport:
        means, covariance = self._records.mean(axis=0), np.atleast_2d(np.cov(self._records.T))
        for _ in range(steps):
            W, b = self._arrays
            slopes = [2 * (W @ W.T - covariance) @ W, b - means]
            if anchor is not None:
                slopes = [s + proximal_mu * (a - o) for s, a, o in zip(slopes, self._arrays, anchor, strict=True)]
            self._arrays = [
                (array - LEARNING_RATE * slope).astype(np.float32)
                for array, slope in zip(self._arrays, slopes, strict=True)
            ]
        loss = float(np.square(self._arrays[1] - means).mean())
        return TrainReport(records=len(self._records), epsilon=float("inf"), delta=0.0, losses={"generator": loss})

    def save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(self._file, W=self._arrays[0], b=self._arrays[1])

    def close(self) -> None:
        """Nothing is held: the file is written by `save`."""
