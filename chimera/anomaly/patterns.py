"""How far the newest stretch of a metric is from the nearest stretch of its past: the left matrix profile.

Level is taken out, size is kept, so that a quiet season and a loud one are different patterns. Yeh et al., "Matrix
Profile I", ICDM 2016; "left", because nothing looks ahead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Floats = npt.NDArray[np.floating[Any]]

LENGTH = 16
"""Readings in a stretch: a power of two, for the sums below."""

APART = LENGTH // 2
"""The nearest neighbour shares no reading with the stretch, and is this much older."""

CHUNK = 32
"""Metrics at a time: their arrays stay in the processor's cache."""


_PLACES = np.arange(2 * LENGTH)[:, None] - np.arange(LENGTH)[None, :] + LENGTH - 1
"""Where the kernel stands, padded, for what is in two blocks and a start in the first."""


def nearest(histories: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The distance (m,) of the last 16 readings of each of `histories` (m, n) from the nearest earlier 16.

    It is the root of the mean squared difference after each stretch's mean is taken out, in the unit of the readings.
    """
    parts = [_nearest(histories[i : i + CHUNK]) for i in range(0, len(histories), CHUNK)]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _nearest(h: Floats) -> Floats:
    size = h.shape[1] - APART - 2 * LENGTH + 1
    query = h[:, -LENGTH:] - h[:, -LENGTH:].mean(axis=1, keepdims=True)
    # |q - y|^2 of stretches with their means taken out, less |q|^2: the mean of q is out, so that of y meets nothing
    squared = products(h[:, : -LENGTH - APART], query * np.float32(-2.0))
    squared += _scatter(h)[:, :size]
    least = (squared.min(axis=1) + np.einsum("ij,ij->i", query, query)) * np.float32(1 / LENGTH)
    found: Floats = np.sqrt(np.maximum(least, 0.0))
    return found


def _scatter(series: Floats) -> Floats:
    """The sums of squared distances of each 16 neighbours from their mean, (m, n). The last 15 of each row are none.

    All rows are one line, in which those 15 run into the next row: numpy is three times as quick along one line.
    """
    sums = series.reshape(-1)
    squares = sums * sums
    width = 1
    while width < LENGTH:  # sums of 2, 4, 8, 16 neighbours
        sums = sums[:-width] + sums[width:]
        squares = squares[:-width] + squares[width:]
        width *= 2
    sums *= sums
    sums *= np.float32(1 / LENGTH)
    scatter = np.zeros(series.size, series.dtype)
    np.subtract(squares, sums, out=scatter[: len(sums)])
    return scatter.reshape(series.shape)


def products(series: Floats, kernels: Floats) -> Floats:
    """The sums of products (m, n - 15) of each 16 neighbours of `series` (m, n) with `kernels` (m, 16).

    What starts in one block of 16 ends in the next. So the sums are two products of matrices: the blocks with the
    kernel at all places in the first, and with what then stands over in the second.
    """
    many, n = series.shape
    whole = (n // LENGTH - 1) * LENGTH
    padded = np.zeros((many, 3 * LENGTH - 1), series.dtype)
    padded[:, LENGTH - 1 : 2 * LENGTH - 1] = kernels
    places = padded.take(_PLACES, axis=1)
    blocks = series[:, : whole + LENGTH].reshape(many, -1, LENGTH)
    found = np.empty((many, n - LENGTH + 1), series.dtype)
    sums = blocks[:, :-1] @ places[:, :LENGTH]
    sums += blocks[:, 1:] @ places[:, LENGTH:]
    found[:, :whole] = sums.reshape(many, whole)
    found[:, whole:] = np.einsum("ijk,ik->ij", sliding_window_view(series[:, whole:], LENGTH, axis=1), kernels)
    return found
