"""One isolation forest for all metrics: trees over features that mean the same for every metric.

A forest a metric would be 100 KB each and a second to fit; metrics that are brought to the same scale can share one of
25 trees (Liu, Ting, Zhou: Isolation Forest, ICDM 2008). It is fitted by scikit-learn, in the background, on a bounded
sample of what was seen, and then evaluated here: its trees as arrays, all rows and trees at once.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from chimera.anomaly.buffer import Arrays, Slots
from chimera.anomaly.detectors.base import Adopt, SlotDetector, Study, Values, in_units
from chimera.core.errors import InputError, StorageError

TREES = 25

FEATURES = 5

SAMPLE = 2_048
"""Rows that a forest is fitted on. Each tree takes 256 of them."""

FEWEST = 256

LASTING = 64
"""A new row is taken with at least 1 in 64, so that a row stays in the sample for about 64 * SAMPLE readings."""

WARM = 30

FARTHEST = 12.0
"""Features are drawn in to this many spreads: what is farther is as far."""

SLOW, FAST = 0.02, 0.2

_MANY = 2.0**64


class Trees(NamedTuple):
    """A fitted forest as arrays over all nodes; the roots are the first TREES of `roots`. A leaf leads to itself."""

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    children: npt.NDArray[np.int32]
    """(nodes, 2): where a row goes that is at most the threshold, and one that is above."""
    depth: npt.NDArray[np.float64]
    """How deep a leaf is, and how much deeper it would have to be to part the rows that it was fitted on."""
    roots: npt.NDArray[np.int32]
    levels: npt.NDArray[np.int32]
    """(1,): steps from a root to the deepest leaf."""
    rows: npt.NDArray[np.float64]
    """(1,): the mean depth of as many rows as a tree was fitted on."""


class IsolationForestDetector(SlotDetector):
    """Scores are Liu's, 0..1: about 0.5 is usual. They are 0 until the first forest is fitted, and for new metrics."""

    name: ClassVar[str] = "forest"
    unit: ClassVar[str] = "isolation"
    scale_free: ClassVar[bool] = True

    def __init__(self, metrics: int = 1, *, seed: int = 0) -> None:
        if not 0 <= seed < 2**32:
            raise InputError(f"a seed is in 0..{2**32 - 1}, not {seed}")
        fields = ("mean", "variance", "fast", "local", "last")
        super().__init__(metrics, {"taken": (np.int64, (), 0)} | dict.fromkeys(fields, (np.float64, (), 0.0)))
        self._seed = seed
        self._seen = 0
        self._fits = 0
        self._sample = np.full((SAMPLE, FEATURES), np.nan, np.float32)
        self._trees: Trees | None = None

    @property
    def fitted(self) -> bool:
        return self._trees is not None

    def _score(self, values: Values, at: Slots) -> Values:
        scores = np.zeros(len(values))
        warm = np.flatnonzero(self._rows["taken"][at] >= WARM)
        if self._trees is not None and len(warm):
            scores[warm] = _isolation(self._trees, self._features(values[warm], at[warm]))
        return scores

    def _learn(self, values: Values, at: Slots) -> None:
        warm = self._rows["taken"][at] >= WARM
        if warm.any():
            self._collect(self._features(values[warm], at[warm]))
        rows = self._rows
        taken, mean, variance = rows["taken"][at], rows["mean"][at], rows["variance"][at]
        reach = np.where((taken < 5) | (variance == 0.0), np.inf, 4.0 * np.sqrt(variance))
        fresh = taken == 0
        away = np.where(fresh, 0.0, np.clip(values - mean, -reach, reach))
        mean = np.where(fresh, values, mean)
        fast = np.where(fresh, values, rows["fast"][at])
        weight = np.maximum(SLOW, 1.0 / (taken + 1.0))
        rows["variance"][at] = (1.0 - weight) * (variance + weight * away * away)
        rows["local"][at] = (1.0 - FAST) * rows["local"][at] + FAST * np.square(np.clip(values - fast, -reach, reach))
        rows["fast"][at] = fast + FAST * (mean + away - fast)
        rows["mean"][at] = mean + weight * away
        rows["last"][at] = values
        rows["taken"][at] = taken + 1

    def _features(self, values: Values, at: Slots) -> npt.NDArray[np.float32]:
        """(n, FEATURES), in spreads: the reading, its step, how far from the fast mean, how far that is, local."""
        rows = self._rows
        sigma, mean, fast = np.sqrt(rows["variance"][at]), rows["mean"][at], rows["fast"][at]
        parts = (values - mean, values - rows["last"][at], values - fast, fast - mean, np.sqrt(rows["local"][at]))
        spreads = np.column_stack([np.copysign(in_units(np.abs(part), sigma), part) for part in parts])
        features: npt.NDArray[np.float32] = np.clip(spreads, -FARTHEST, FARTHEST).astype(np.float32)
        return features

    def _collect(self, features: npt.NDArray[np.float32]) -> None:
        """Take rows into the sample: all until it is full, then fewer and fewer, each in the place of another."""
        numbers = np.arange(self._seen, self._seen + len(features))
        chance, place = _random(numbers, self._seed), (_random(numbers, self._seed + 1) * SAMPLE).astype(np.int64)
        taken = chance < np.maximum(SAMPLE / (numbers + 1.0), 1.0 / LASTING)
        place = np.where(numbers < SAMPLE, numbers, place)[taken]
        for row, where in zip(features[taken], place.tolist(), strict=True):  # the last to claim a place has it
            self._sample[where] = row
        self._seen += len(features)

    def study(self, at: Slots | None = None) -> Study | None:
        """Fit a new forest on the sample. `at` is not looked at: all metrics share it."""
        if self._seen < FEWEST:
            return None
        sample, seed = self._sample[: min(self._seen, SAMPLE)].copy(), (self._seed + self._fits) % 2**32
        self._fits += 1

        def learn() -> Adopt:
            trees = fit(sample, seed)

            def adopt() -> None:
                self._trees = trees

            return adopt

        return learn

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        counts = np.array([self._seed, self._seen, self._fits], np.int64)
        trees = self._trees._asdict() if self._trees else {}
        kept = {f"tree_{name}": array.copy() for name, array in trees.items()}
        return {**super().snapshot(), "counts": counts, "sample": self._sample.copy(), **kept}

    def restore(self, state: Arrays) -> None:
        counts, sample = state.get("counts"), state.get("sample")
        if counts is None or sample is None or counts.shape != (3,) or sample.shape != (SAMPLE, FEATURES):
            raise StorageError("the snapshot has no sample of a forest")
        fields = [state.get(f"tree_{name}") for name in Trees._fields]
        trees = None if fields[0] is None else _sound(fields)
        super().restore(state)
        self._seed, self._seen, self._fits = (int(count) for count in counts)
        self._sample, self._trees = sample.astype(np.float32), trees

    def state_bytes(self) -> int:
        shared = self._sample.nbytes + sum(array.nbytes for array in self._trees or ())
        return super().state_bytes() + shared


def fit(sample: npt.NDArray[np.float32], seed: int) -> Trees:
    """The forest of scikit-learn over `sample` (n, FEATURES), as arrays."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=TREES, max_samples=min(256, len(sample)), random_state=seed, n_jobs=1)
    forest.fit(sample)
    parts, roots, offset = [], [], 0
    for estimator in forest.estimators_:
        tree = estimator.tree_
        nodes = np.arange(tree.node_count)
        leaf = tree.children_left < 0
        children = np.column_stack([np.where(leaf, nodes, side) for side in (tree.children_left, tree.children_right)])
        depth = tree.compute_node_depths() - 1.0 + _mean_depth(tree.n_node_samples)
        parts.append((np.where(leaf, 0, tree.feature), np.where(leaf, 0.0, tree.threshold), children + offset, depth))
        roots.append(offset)
        offset += tree.node_count
    feature, threshold, children, depth = (np.concatenate(part) for part in zip(*parts, strict=True))
    levels = max(estimator.tree_.max_depth for estimator in forest.estimators_)
    return Trees(
        feature.astype(np.int32),
        threshold,
        children.astype(np.int32),
        depth,
        np.array(roots, np.int32),
        np.array([levels], np.int32),
        _mean_depth(np.array([forest.max_samples_])),
    )


def _isolation(trees: Trees, features: npt.NDArray[np.float32]) -> Values:
    """Liu's score of each row of `features` (n, FEATURES), as scikit-learn has it in -score_samples."""
    node = np.broadcast_to(trees.roots, (len(features), len(trees.roots)))
    children, row = trees.children.ravel(), np.arange(len(features))[:, None] * FEATURES
    for _ in range(int(trees.levels[0])):
        above = features.ravel().take(row + trees.feature.take(node)) > trees.threshold.take(node)
        node = children.take(2 * node + above)
    depth = trees.depth.take(node).sum(axis=1)
    return np.asarray(2.0 ** (-depth / (len(trees.roots) * trees.rows[0])))


def _mean_depth(rows: npt.NDArray[np.integer[Any]]) -> Values:
    """How deep a search in a random tree of so many rows goes on average (Liu et al., equation 1)."""
    n = np.maximum(rows, 2).astype(np.float64)
    deep = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    return np.where(rows <= 1, 0.0, np.where(rows == 2, 1.0, deep))


def _random(numbers: npt.NDArray[np.int64], seed: int) -> Values:
    """A number in [0, 1) for each of `numbers`, always the same: splitmix64 (Steele, Lea, Flood: OOPSLA 2014)."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1 + seed * 2**31)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).astype(np.float64) / _MANY * (1.0 - 2**-53)


def _sound(fields: list[npt.NDArray[Any] | None]) -> Trees:
    """The trees of a snapshot, from which no row can stray. Raises StorageError."""
    arrays = [field for field in fields if field is not None]
    if len(arrays) == len(fields):
        trees = Trees(*(array.copy() for array in arrays))
        nodes = len(trees.depth)
        shapes = [array.shape for array in trees]
        if (
            shapes == [(nodes,), (nodes,), (nodes, 2), (nodes,), (TREES,), (1,), (1,)]
            and nodes <= TREES * 1_024
            and trees.feature.dtype == trees.children.dtype == trees.roots.dtype == np.int32
            and ((trees.feature >= 0) & (trees.feature < FEATURES)).all()
            and all(((part >= 0) & (part < nodes)).all() for part in (trees.children, trees.roots))
            and 0 <= trees.levels[0] <= 64
            and trees.rows[0] > 0
        ):
            return trees
    raise StorageError("the snapshot's trees are damaged")
