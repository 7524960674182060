"""Numbers onto a lattice so that their sum stays: a bias survives to half a grain in all, however coarse it is.

To round each cell by itself would move the mean by up to half a grain, which is more than a bias of 0.2 standard
deviations where a column has few levels; and a shift off the lattice is seen at once.
"""

from __future__ import annotations

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.schema import Floats, Integers


def place(wanted: Floats, levels: Integers, rng: np.random.Generator) -> Integers:
    """Indices (..., n, columns) near `wanted`, of the same shape, whose column sums are those wanted, rounded.

    Fractions are carried from row to row (error diffusion: R. W. Floyd and L. Steinberg, "An adaptive algorithm for
    spatial greyscale", 1976, in one dimension); what is cut off at 0 or at `levels` (columns,) is made up by the rows
    that have room. Raises InputError where a sum is out of reach of `n` cells.
    """
    n = wanted.shape[-2]
    sums = wanted.sum(axis=-2)
    goal = np.rint(sums)
    if ((goal < 0) | (goal > n * levels)).any():
        raise InputError("the means asked for lie outside the columns' ranges: ask for a smaller shift")
    phase = rng.uniform(0.1, 0.9, goal.shape)
    placed = _diffused(wanted + ((goal - sums) / n)[..., None, :], phase, levels)
    for _ in range(n + 2):  # each pass ends it, or fills another row up
        short = goal - placed.sum(axis=-2)
        if not short.any():
            return placed.astype(np.int64)
        room = np.where(short[..., None, :] > 0, placed < levels, placed > 0) & (short != 0)[..., None, :]
        share = short / np.maximum(room.sum(axis=-2), 1)
        placed = _diffused(placed + room * share[..., None, :], phase, levels)
    raise AssertionError("a sum within reach was not reached")


def _diffused(wanted: Floats, phase: Floats, levels: Integers) -> Floats:
    """Whole numbers near `wanted`, with the same sums but for what is cut off at the ends."""
    whole = np.floor(wanted)
    carried = np.floor(np.cumsum(wanted - whole, axis=-2) + phase[..., None, :])
    steps = np.diff(carried, axis=-2, prepend=np.zeros_like(phase)[..., None, :])
    placed: Floats = np.clip(whole + steps, 0, levels)
    return placed
