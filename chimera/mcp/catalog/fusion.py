"""Two rankings of the same tools made one.

Ranks alone (reciprocal rank fusion) forget by how much a tool leads, and the weaker ranking then pulls the better one
down. Standardized scores keep it: see "An Analysis of Fusion Functions for Hybrid Retrieval" (Bruch et al., TOIS 2023).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]


def fuse(lexical: Scores, semantic: Scores, weight: float) -> Scores:
    """`weight` (0..1) of the semantic z-scores, and the rest of the lexical ones; both of shape (tools,)."""
    return weight * standardized(semantic) + (1.0 - weight) * standardized(lexical)


def standardized(scores: Scores) -> Scores:
    """z-scores: mean 0, deviation 1. Scores that are all the same say nothing, and are all 0."""
    spread = float(scores.std()) if scores.size else 0.0
    return (scores - scores.mean()) / spread if spread > 1e-9 else np.zeros_like(scores)


def best_of(scores: Scores, owners: npt.NDArray[np.intp], tools: int) -> Scores:
    """Each tool's best score of those of its texts. `owners` says whose a text is; every tool has one at least."""
    best = np.full(tools, -np.inf)
    np.maximum.at(best, owners, scores)
    return best
