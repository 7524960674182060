"""Trains the detector of `chimera.security.gateway` and writes its weights.

    python -m bench.injection.train [--data DIR] [--output FILE.npz]

Two linear models learn sentences; their scores on sentences that they have not seen (three folds, by template and by
text) are what the network over whole texts learns from. The same packages and the same data give the same file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from bench.injection.corpus import FOLDS, Piece, Sample, pieces, samples
from chimera.security.gateway.detector import WEIGHTS, Detector, Whole, Words
from chimera.security.gateway.evidence import Floats, evidence
from chimera.security.gateway.features import BITS, hashes, sentences
from chimera.security.gateway.normal import fold as normal_form
from chimera.security.gateway.patterns import findings

DATA = Path("../shared/data/injection-dev")
SEED = 7
MEMBERS = 4
HIDDEN = 10
INVERSE_PENALTY = 30.0
MAX_SENTENCES = 40
FALSE_POSITIVES = 0.07

hashed = cache(hashes)


@dataclass(frozen=True, eq=False)
class Rows:
    """Sentences as rows of hashed features, with what each is."""

    matrix: csr_matrix
    kind: np.ndarray
    fold: np.ndarray
    weight: np.ndarray


def rows(found: list[Piece]) -> Rows:
    """The sentences of all texts, each kind and text once."""
    indices, starts, kinds, folds, weights = [], [0], [], [], []
    seen: set[tuple[str, str]] = set()
    for piece in found:
        parts = sentences(piece.text)[:MAX_SENTENCES]
        for part in parts:
            if (piece.kind, part.text) in seen or (piece.kind == "attack" and len(part.text) < 8):
                continue
            seen.add((piece.kind, part.text))
            features = hashed(part.text)
            indices.append(features)
            starts.append(starts[-1] + len(features))
            kinds.append(piece.kind)
            folds.append(piece.fold)
            weights.append(piece.weight)
    counts = np.diff(starts)
    values = np.repeat(1.0 / np.sqrt(np.maximum(counts, 1)), counts)
    matrix = csr_matrix((values, np.concatenate(indices), starts), shape=(len(kinds), 1 << BITS))
    return Rows(matrix, np.array(kinds), np.array(folds), np.array(weights))


def words(found: Rows, use: np.ndarray) -> Words:
    """Both linear models, from the sentences that `use` marks."""
    heads = []
    for wanted, others in (({"attack"}, {"request", "document"}), ({"attack", "request", "payload"}, {"document"})):
        chosen = use & np.isin(found.kind, [*wanted, *others])
        label = np.isin(found.kind[chosen], [*wanted])
        model = LogisticRegression(C=INVERSE_PENALTY, solver="liblinear", class_weight="balanced", random_state=SEED)
        model.fit(found.matrix[chosen], label, sample_weight=found.weight[chosen])
        heads.append((model.coef_[0], model.intercept_[0]))
    table, bias = np.array([head for head, _ in heads]), np.array([bias for _, bias in heads])
    return Words(np.round(table / step(table)[:, None]) * step(table)[:, None], bias)


def step(table: Floats) -> Floats:
    """The size of one step of the 8-bit table, for each model."""
    return np.asarray(np.abs(table).max(axis=1) / 127.0)


def numbers(model: Words, texts: list[Sample]) -> Floats:
    """The evidence of each text."""
    made = []
    for one in texts:
        found = sentences(one.text)
        sums, counts = model.sums(found, hashed)
        made.append(evidence(found, sums, counts, model.bias, list(findings(normal_form(one.text)))))
    return np.array(made)


def whole(inputs: Floats, labels: np.ndarray, weights: np.ndarray) -> Whole:
    """The network: the mean of several small ones that start from other seeds."""
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
    scaled = np.clip((inputs - mean) / scale, -5.0, 5.0)
    nets = []
    for seed in range(MEMBERS):
        net = MLPClassifier((HIDDEN,), activation="tanh", alpha=0.02, max_iter=40, random_state=seed, batch_size=256)
        nets.append(net.fit(scaled, labels, sample_weight=weights))
    return Whole(
        mean,
        scale,
        np.array([net.coefs_[0] for net in nets]),
        np.array([net.intercepts_[0] for net in nets]),
        np.array([net.coefs_[1][:, 0] for net in nets]),
        np.array([net.intercepts_[1][0] for net in nets]),
    )


def train(found: list[Piece], say: Callable[[str], object] = lambda _: None) -> Detector:
    """A detector from texts: words by fold, the network on what they say of unseen folds, words again of all."""
    texts = samples(found, SEED)
    learnt = rows(found)
    say(f"{learnt.matrix.shape[0]} sentences, {len(texts)} texts")
    fold = np.array([one.fold for one in texts])
    shape = []
    for number in range(FOLDS):
        here = [one for one in texts if one.fold == number]
        shape.append(numbers(words(learnt, learnt.fold != number), here))
    order = np.argsort(fold, kind="stable")
    ordered = [texts[at] for at in order]
    inputs = np.concatenate(shape)
    labels = np.array([one.label for one in ordered])
    weights = np.array([one.weight for one in ordered])
    held = np.array([one.fold for one in ordered])
    scores = np.zeros(len(ordered))
    for number in range(FOLDS):
        use = held != number
        scores[~use] = whole(inputs[use], labels[use], weights[use]).score(inputs[~use])
    threshold = max(float(np.quantile(scores[one], 1.0 - FALSE_POSITIVES)) for one in _hard(ordered) if one.any())
    for channel in ("direct", "indirect"):
        use = np.array([one.channel == channel for one in ordered])
        recall = (scores[use & (labels == 1)] >= threshold).mean()
        wrong = (scores[use & (labels == 0)] >= threshold).mean()
        say(f"{channel}: recall {recall:.3f}, false positives {wrong:.3f} at {threshold:.3f} (folds kept aside)")
    return Detector(words(learnt, np.ones(len(learnt.kind), bool)), whole(inputs, labels, weights), threshold)


def _hard(texts: list[Sample]) -> list[np.ndarray]:
    """Which texts the threshold is chosen by: hard requests (all requests where there is none), and documents."""
    benign = np.array([one.label == 0 for one in texts])
    direct = np.array([one.channel == "direct" for one in texts])
    hard = benign & direct & np.array([one.source in ("made-hard", "pint") for one in texts])
    return [hard if hard.any() else benign & direct, benign & ~direct]


def save(model: Detector, path: Path) -> None:
    """Write the weights: 8 bits for each of the table, 16 for the rest."""
    sizes = step(model.words.table)
    np.savez_compressed(
        path,
        table=np.round(model.words.table / sizes[:, None]).astype(np.int8),
        step=sizes,
        bias=model.words.bias,
        threshold=np.array(model.threshold),
        **{name: getattr(model.whole, name).astype(np.float32) for name in Whole.__dataclass_fields__},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    save(train(pieces(options.data, SEED), print), options.output)


if __name__ == "__main__":
    main()
