"""The classifier: two linear scores for each sentence, and a small network over what a whole text shows.

One score says that a sentence attacks, the other that it is a request to an assistant, which is odd inside of somebody
else's text only. It is trained by `python -m bench.injection.train`; its table is 8 bits a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from chimera.security.gateway.evidence import NAMES, Floats, evidence
from chimera.security.gateway.features import Sentence, hashes, sentences
from chimera.security.gateway.patterns import Finding

Features = Callable[[str], NDArray[np.int64]]

WEIGHTS: Final = Path(__file__).with_name("weights.npz")


@dataclass(frozen=True, eq=False, repr=False)
class Words:
    """The two linear models: `table` is (2, 2^BITS), `bias` (2,)."""

    table: Floats
    bias: Floats

    def sums(self, found: Sequence[Sentence], features: Features = hashes) -> tuple[Floats, Floats]:
        """For each sentence the sum of its weights (n, 2), and how many features it has (n,)."""
        each = [features(sentence.text) for sentence in found]
        counts = np.array([len(one) for one in each], np.float64)
        return np.array([self.table[:, one].sum(axis=1) for one in each]).reshape(-1, 2), counts


@dataclass(frozen=True, eq=False, repr=False)
class Whole:
    """The network over `evidence`: standardised, one hidden layer of tanh, one logit; the mean of several."""

    mean: Floats
    scale: Floats
    hidden: Floats
    hidden_bias: Floats
    out: Floats
    out_bias: Floats

    def score(self, numbers: Floats) -> Floats:
        """Rows of evidence (n, len(NAMES)) to scores (n,) from 0 to 1."""
        inputs = np.clip((numbers - self.mean) / self.scale, -5.0, 5.0)
        layer = np.tanh(np.einsum("ni,kih->nkh", inputs, self.hidden) + self.hidden_bias)
        logits = (np.einsum("nkh,kh->nk", layer, self.out) + self.out_bias).mean(axis=1)
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


@dataclass(frozen=True, eq=False, repr=False)
class Detector:
    """Scores texts. `threshold` is where a text counts as an attack."""

    words: Words
    whole: Whole
    threshold: float

    def numbers(self, text: str, seen: Sequence[Finding]) -> Floats:
        """What a text shows, as `evidence.NAMES`."""
        found = sentences(text)
        sums, counts = self.words.sums(found)
        return evidence(found, sums, counts, self.words.bias, seen)

    def score(self, text: str, seen: Sequence[Finding] = ()) -> float:
        """From 0 to 1, how much a text looks like an attack. An empty text is 0."""
        if not text.strip():
            return 0.0
        return float(self.whole.score(self.numbers(text, seen)[None, :])[0])


@cache
def load() -> Detector:
    """The detector that this version ships, read once in a process."""
    with np.load(WEIGHTS, allow_pickle=False) as kept:
        table = kept["table"].astype(np.float64) * kept["step"][:, None]
        layers: list[NDArray[np.float64]] = [
            kept[name].astype(np.float64) for name in ("mean", "scale", "hidden", "hidden_bias", "out", "out_bias")
        ]
        words, threshold = Words(table, kept["bias"].astype(np.float64)), float(kept["threshold"])
    if len(layers[0]) != len(NAMES):
        raise ValueError(f"{WEIGHTS.name} is of another version: run python -m bench.injection.train")
    return Detector(words, Whole(*layers), threshold)
