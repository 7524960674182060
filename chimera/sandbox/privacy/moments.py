"""Means and covariances of each class under differential privacy: good at a few hundred records.

Five releases, each of which uses what the ones before it said (adaptive Gaussian mechanisms compose as one does):

1. the sum of all records, hence the overall mean;
2. the sum of their squared distances to it, by column, hence the overall deviations. Records are z from here on:
   centred, in deviations, clipped to the norm of an average one, so that nothing is spent on what is known already;
3. the sum of z in each class, hence the classes' means;
4. the sum of z z' over all records: one matrix for all classes, because its noise is then that of all records;
5. the sum of squared distances to the class's mean, by class and column, hence how much wider one class is.

What follows is post-processing that knows how large the noise is. Of the matrix those directions are kept that stand
above the noise's edge (Gavish & Donoho 2017, here for a symmetric matrix). The means of the classes are drawn to the
overall one, in each direction by what noise explains there (a Wiener filter: means differ most where records do), and
so are their variances (James & Stein 1961). The simpler release of the sums of x and x x' at once, of sensitivity
sqrt(R^2 + R^4), needs several times the noise for the same use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chimera.core.errors import InputError
from chimera.sandbox.privacy.gaussian import with_noise
from chimera.sandbox.schema import Floats, Integers, Schema, Table

SHARES = (0.12, 0.12, 0.5, 0.15, 0.11)
"""Of the squared signal-to-noise ratio that is paid for, to each of the five. They come to 1."""

SQUARES_CLIP = 0.5
"""Root mean square over the columns at which a record's squared distances are clipped; in encoded units, up to 4."""

WIDTHS_CLIP = 1.5
"""The same for squared distances to the class's mean, in overall deviations.

Smaller clips cost less noise and make classes narrower than they are: they look easier to tell apart than they are,
which raises an AUROC and serves nobody. With these a class has 0.6 to 0.9 of its variance, less where tails are long.
"""

LEAST_VARIANCE = 1e-4
LEAST_REST = 0.05
"""The least variance in any direction, as a part of a column's: no column is taken to follow from the others."""


@dataclass(frozen=True, slots=True)
class Moments:
    """What was released of each class, in encoded units ([-1, 1]). One class stands for a table without labels."""

    schema: Schema
    counts: Floats
    """(classes,) how many records, with noise."""
    means: Floats
    """(classes, columns)"""
    covariances: Floats
    """(classes, columns, columns), positive definite."""

    def draw(self, labels: Integers, rng: np.random.Generator) -> Floats:
        """(n, columns) encoded records of these classes from the Gaussian of each, not yet cut to the range."""
        roots = np.linalg.cholesky(self.covariances)
        out = np.empty((len(labels), len(self.schema)))
        for label in np.unique(labels):
            rows = labels == label
            out[rows] = self.means[label] + rng.standard_normal((int(rows.sum()), len(self.schema))) @ roots[label].T
        return out

    def sample(self, n_per_class: Integers, rng: np.random.Generator) -> Table:
        """That many records of each class, in random order, on the lattice of the schema."""
        labels = rng.permutation(np.repeat(np.arange(len(self.counts)), n_per_class))
        return Table(self.schema, self.schema.decode(self.draw(labels, rng)), labels if self.schema.classes else None)

    def labels(self, n: int, rng: np.random.Generator) -> Integers:
        """(n,) classes, as often as they were counted."""
        return rng.choice(len(self.counts), n, p=self.counts / self.counts.sum()).astype(np.int64)


def release_counts(table: Table, *, noise_multiplier: float, rng: np.random.Generator) -> Floats:
    """(classes,) how many records each class has, at least 1. One record more or less moves one count by 1."""
    counts = np.bincount(_labels(table), minlength=_classes(table)).astype(np.float64)
    return np.maximum(with_noise(counts, sensitivity=1.0, noise_multiplier=noise_multiplier, rng=rng), 1.0)


def release_moments(
    table: Table, *, counts: Floats, noise_multiplier: float, clip: float = 1.0, rng: np.random.Generator
) -> Moments:
    """The moments of each class; for the ledger one release of `noise_multiplier`, apart from that of `counts`.

    `counts` (classes,) are those that were released. `clip` is the root mean square at which an encoded record is
    clipped for the means: at 1 none is.
    """
    if not 0.0 < clip <= 1.0:
        raise InputError(f"clip {clip} must lie between 0 and 1: encoded records have no more")
    if not 0.0 <= noise_multiplier < math.inf:
        raise InputError(f"noise multiplier {noise_multiplier} must be finite, and not negative")
    labels, records, columns = _labels(table), table.encoded, len(table.schema)
    total, weights = counts.sum(), counts / counts.sum()
    everyone = np.zeros_like(labels)
    noises = [noise_multiplier / math.sqrt(share) for share in SHARES]

    def noisy(statistic: Floats, stage: int, sensitivity: float) -> Floats:
        return with_noise(statistic, sensitivity=sensitivity, noise_multiplier=noises[stage], rng=rng)

    reach = clip * math.sqrt(columns)
    overall = np.clip(noisy(record_sums(records, everyone, 1, reach), 0, reach) / total, -1.0, 1.0)
    reach = SQUARES_CLIP * math.sqrt(columns)
    squares = noisy(square_sums(records, everyone, overall, reach), 1, reach)[0] / total
    least = max(LEAST_VARIANCE, noises[1] * reach / total)  # below that a column would be mostly noise's
    deviations = np.sqrt(np.clip(squares, least, 1.0))

    reach = math.sqrt(columns)
    z = clipped((records - overall) / deviations, reach)
    sums = noisy(record_sums(z, labels, len(counts), reach), 2, reach)
    upper = noisy(product_sum(z), 3, reach**2)
    edge = math.sqrt(2.0 * columns) * noises[3] * reach**2 / total
    together = _above(_symmetric(upper) / total, edge)
    means = _filtered(sums / counts[:, None], weights, together, noises[2] * reach / counts)

    reach = WIDTHS_CLIP * math.sqrt(columns)
    wide = noisy(square_sums(z, labels, means, reach), 4, reach) / counts[:, None]
    within, widths = _within(together, means, weights), _towards_all(wide, counts, noises[4] * reach)
    scales = deviations * np.sqrt(np.clip(widths, LEAST_REST, 4.0))
    return Moments(
        schema=table.schema,
        counts=counts,
        means=np.clip(overall + means * deviations, -1.0, 1.0),
        covariances=within * scales[:, :, None] * scales[:, None, :],
    )


def record_sums(records: Floats, labels: Integers, classes: int, reach: float) -> Floats:
    """(classes, columns) sums of the records of each class, each clipped to the L2 norm `reach`: the sensitivity."""
    return _by_class(clipped(records, reach), labels, classes)


def square_sums(records: Floats, labels: Integers, means: Floats, reach: float) -> Floats:
    """(classes, columns) sums of squared distances to the class's mean, each record's clipped to the norm `reach`."""
    return _by_class(clipped((records - means[labels]) ** 2, reach), labels, len(means))


def product_sum(z: Floats) -> Floats:
    """(columns, columns) sum of z z', each pair once: above the diagonal times sqrt(2), which keeps the norm.

    With every z within the norm `reach`, its sensitivity is `reach`^2.
    """
    products = z.T @ z
    out: Floats = np.triu(products, 1) * math.sqrt(2.0) + np.diag(np.diag(products))
    return out


def clipped(records: Floats, reach: float) -> Floats:
    """The records, those that are longer than `reach` shortened to it."""
    norms = np.linalg.norm(records, axis=1, keepdims=True)
    out: Floats = records * np.minimum(1.0, reach / np.maximum(norms, 1e-300))
    return out


def _symmetric(upper: Floats) -> Floats:
    """The whole matrix from what `product_sum` gives, noise and all."""
    above = np.triu(upper, 1) / math.sqrt(2.0)
    out: Floats = above + above.T + np.diag(np.diag(upper))
    return out


def _by_class(records: Floats, labels: Integers, classes: int) -> Floats:
    sums = np.zeros((classes, records.shape[1]))
    np.add.at(sums, labels, records)
    return sums


def _filtered(found: Floats, weights: Floats, together: Floats, noise: Floats) -> Floats:
    """(classes, columns) means in deviations, less what `noise` (classes,) is expected to have added to them.

    In the directions of `together`, the means are taken to differ in proportion to the records. The proportion is
    estimated over all classes, and each direction kept by the part that is not noise.
    """
    values, vectors = np.linalg.eigh(together)
    turned = (found - weights @ found) @ vectors
    size = found.shape[1]
    signal = float(weights @ ((turned**2).sum(axis=1) - size * noise**2)) / size
    prior = max(signal, 0.0) * values**2 / float(np.mean(values**2))
    keep = prior / np.maximum(prior + noise[:, None] ** 2, 1e-300)
    out: Floats = (keep * turned) @ vectors.T
    return out


def _towards_all(found: Floats, counts: Floats, noise: float) -> Floats:
    """Each class's numbers drawn to those of all classes, by what part of their distance `noise` / count explains."""
    overall = counts / counts.sum() @ found
    distance = found - overall
    expected = found.shape[1] * (noise / counts) ** 2
    keep = np.maximum(0.0, 1.0 - expected / np.maximum((distance**2).sum(axis=1), 1e-300))
    out: Floats = overall + keep[:, None] * distance
    return out


def _above(matrix: Floats, edge: float) -> Floats:
    """The directions of `matrix`, a mean of z z', that stand out of noise; the rest is the same in every column.

    Of what an eigenvalue differs from the mean one, l, sqrt(l^2 - edge^2) is kept: what minimises the squared error,
    as both the noise in l and the turn of its direction are known. Without noise it is `matrix` itself.
    """
    size = max(float(np.mean(np.diag(matrix))), LEAST_REST)  # below 1, as long records were clipped
    values, vectors = np.linalg.eigh(matrix)
    over = values - size
    kept = np.sign(over) * np.sqrt(np.maximum(over**2 - edge**2, 0.0))
    out: Floats = (vectors * np.maximum(size + kept, LEAST_REST * size)) @ vectors.T
    return out


def _within(together: Floats, means: Floats, weights: Floats) -> Floats:
    """The correlations within the classes: of what all records have in common, less what the classes' means explain."""
    values, vectors = np.linalg.eigh(together - (means.T * weights) @ means)
    covariance = (vectors * np.maximum(values, LEAST_REST)) @ vectors.T
    scale = np.sqrt(np.diag(covariance))
    out: Floats = covariance / np.outer(scale, scale)
    return out


def _labels(table: Table) -> Integers:
    return np.zeros(len(table), np.int64) if table.labels is None else table.labels


def _classes(table: Table) -> int:
    return max(len(table.schema.classes), 1)
