"""A whole text's numbers: what its windows of one to three sentences score, and how the worst differs from the rest.

A request in a chat is nothing odd. The same sentence in the middle of somebody's invoice is: it addresses another
reader, and says nothing of what stands around it. So beside the height of the scores there is their contrast.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from chimera.security.gateway.features import Sentence, content
from chimera.security.gateway.lexicon import BY_WORD
from chimera.security.gateway.patterns import Finding

Floats = NDArray[np.float64]

NAMES: Final = (
    "attack_1",
    "attack_2",
    "attack_3",
    "attack_sum",
    "attack_mean",
    "attack_contrast",
    "request",
    "request_contrast",
    "request_share",
    "request_foreign",
    "request_alone",
    "request_reply",
    "request_edge",
    "length",
    "short",
    "override",
    "leak",
    "persona",
    "structure",
    "exfiltration",
)
CLIP: Final = 8.0


def evidence(found: Sequence[Sentence], sums: Floats, counts: Floats, bias: Floats, seen: Sequence[Finding]) -> Floats:
    """The numbers of `NAMES`. `sums` is (sentences, 2): attack and request; `counts` the features of each sentence."""
    if not found:
        return np.zeros(len(NAMES))
    attack = [_windows(sums[:, 0], counts, bias[0], size) for size in (1, 2, 3)]
    request = _windows(sums[:, 1], counts, bias[1], 1)
    risk, asking = _share(attack[0]), _share(request)
    many = float(len(found) >= 3)
    foreign = np.array([_foreign(found)]).reshape(-1)
    alone = np.array([float(sentence.alone) for sentence in found])
    reply = np.array([_replies(sentence.text) for sentence in found])
    edge = np.zeros(len(found))
    edge[[0, -1]] = 1.0
    kinds = Counter(one.kind for one in seen)
    return np.array(
        [
            *(window.max() for window in attack),
            np.log(np.exp(attack[0]).sum()),
            risk.mean() * many,
            _contrast(attack[0]) * many,
            request.max() * many,
            _contrast(request) * many,
            _rest(asking) * many,
            (asking * foreign).max() * many,
            (asking * alone).max() * many,
            (asking * reply).max(),
            (asking * edge).max() * many,
            np.log(len(found)),
            1.0 - many,
            min(kinds["override"], 2),
            min(kinds["leak"], 2),
            min(kinds["persona"], 2),
            min(kinds["role"] + kinds["token"], 2),
            min(kinds["exfiltration"], 1),
        ]
    )


def _windows(sums: Floats, counts: Floats, bias: float, size: int) -> Floats:
    size = min(size, len(sums))
    ones = np.ones(size)
    scores = np.convolve(sums, ones, "valid") / np.sqrt(np.maximum(np.convolve(counts, ones, "valid"), 1.0))
    return np.asarray(np.clip(scores + bias, -CLIP, CLIP))


def _share(logits: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def _contrast(logits: Floats) -> float:
    """How far the highest stands above what is high among the others."""
    if len(logits) < 3:
        return 0.0
    ordered = np.sort(logits)
    return float(ordered[-1] - np.quantile(ordered[:-1], 0.8))


def _rest(asking: Floats) -> float:
    return float((asking.sum() - asking.max()) / max(1, len(asking) - 1))


def _foreign(found: Sequence[Sentence]) -> list[float]:
    """For each sentence, the share of its words with a meaning that stand nowhere else in the text."""
    words = [content(sentence.text) for sentence in found]
    count = Counter(word for one in words for word in one)
    return [sum(count[word] == 1 for word in one) / len(one) if one else 1.0 for one in words]


def _replies(text: str) -> float:
    return float(any("reply" in BY_WORD.get(word, ()) or "ai" in BY_WORD.get(word, ()) for word in text.split(" ")))
