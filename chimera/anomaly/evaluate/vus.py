"""VUS-PR: how well scores rank anomalous points, with no threshold and with tolerance for where an anomaly begins.

Paparrizos, Boniol, Palpanas, Tsay, Elmore, Franklin: Volume Under the Surface: A New Accuracy Evaluation Measure for
Time-Series Anomaly Detection. PVLDB 15(11), 2022. The precision-recall curve is drawn for each width of a soft margin
around the labels, 0 to `tolerance` points; the result is the mean area below them. Only points within a margin differ
between widths, so that all widths are counted at once.
"""

from __future__ import annotations

import numpy as np

from chimera.anomaly.evaluate.series import Flags, Floats, Ints

THRESHOLDS = 250
"""Scores, at evenly spaced ranks, at which a curve is sampled."""


def vus_pr(scores: Floats, labels: Flags, tolerance: int) -> float:
    """The volume of `scores` against `labels` (both (points,)), 0 to 1; NaN where nothing is labelled."""
    positive, points = float(labels.sum()), len(scores)
    if not positive:
        return float("nan")
    edges = np.flatnonzero(np.diff(np.concatenate(([False], labels, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2] - 1
    falling = np.sort(-scores)
    thresholds = -falling[np.linspace(0, points - 1, THRESHOLDS).astype(int)]
    predicted = np.searchsorted(falling, -thresholds, side="right")
    true_hard = np.searchsorted(np.sort(-scores[labels]), -thresholds, side="right")
    at, weights = _margins(starts, ends, labels, tolerance)
    order = np.argsort(-scores[at], kind="stable")
    sums = np.vstack((np.zeros(tolerance + 1), np.cumsum(weights[order], axis=0)))
    true_soft = sums[np.searchsorted(-scores[at][order], -thresholds, side="right")].T
    # (tolerance + 1, THRESHOLDS) from here on; a margin counts half as something to be found
    exists = _existence(scores, thresholds, starts, ends, tolerance)
    recall = np.minimum((true_hard + true_soft) / (positive + true_soft / 2), 1) * exists
    precision = (true_hard + true_soft) / predicted
    return float((np.diff(recall, axis=1, prepend=0.0) * precision).sum(axis=1).mean())


def _margins(starts: Ints, ends: Ints, labels: Flags, tolerance: int) -> tuple[Ints, Floats]:
    """The points outside of the labels but within the widest margin, and (points, widths) what share they count."""
    points, half = len(labels), tolerance // 2
    widths = np.arange(tolerance + 1)
    near = np.zeros(points, dtype=np.bool_)
    for start, end in zip(starts, ends, strict=True):
        near[max(start - half, 0) : end + half + 1] = True
    at = np.flatnonzero(near & ~labels)
    weights = np.zeros((len(at), tolerance + 1))
    for start, end in zip(starts, ends, strict=True):
        distance = np.maximum(start - at, at - end)[:, None]
        share = np.sqrt(np.maximum(1 - distance / np.maximum(widths, 1), 0))
        weights += np.where(distance <= widths // 2, share, 0.0)
    return at, np.minimum(weights, 1)


def _existence(scores: Floats, thresholds: Floats, starts: Ints, ends: Ints, tolerance: int) -> Floats:
    """(widths, thresholds) the share of anomalies with at least one point over the threshold, margins included."""
    rows = []
    for half in range(tolerance // 2 + 1):
        begins = np.concatenate(([True], starts[1:] - half > ends[:-1] + half))
        first = np.maximum(starts[begins] - half, 0)
        last = np.minimum(ends[np.append(np.flatnonzero(begins)[1:] - 1, len(ends) - 1)] + half, len(scores) - 1)
        peaks = np.array([scores[a : b + 1].max() for a, b in zip(first, last, strict=True)])
        rows.append((peaks[None, :] >= thresholds[:, None]).mean(axis=1))
    return np.array(rows)[np.arange(tolerance + 1) // 2]
