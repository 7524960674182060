"""How good the gateway is on labelled texts: rates with their intervals, and how long it takes.

Rates: Wilson's score interval (1927). AUC: the Mann-Whitney statistic with DeLong's variance (DeLong et al. 1988, by
ranks as in Sun and Xu 2014), its interval on the logit scale, so that it stays within 0 and 1. All at 95 %.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from math import exp, log, sqrt
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from chimera.core.clock import Clock
from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.security.gateway.gateway import SecurityGateway

Z: Final = 1.959963984540054
MAX_LINE_BYTES: Final = 4_000_000
MAX_LINES: Final = 1_000_000

Interval = tuple[float, float]


class Example(Frozen, extra="ignore"):
    """A line of the file: a text, and 1 where it attacks. Other fields are not read."""

    text: str
    label: Literal[0, 1]


class Evaluation(Frozen):
    """Shares from 0 to 1 with their 95 % intervals; None where there is no text of that label.

    A text that the gateway refuses (over a limit) counts as flagged, with the score 1; `refused` says how many.
    """

    n: int
    attacks: int
    benign: int
    recall: float | None
    recall_interval: Interval | None
    false_positive_rate: float | None
    false_positive_rate_interval: Interval | None
    auc: float | None
    auc_interval: Interval | None
    threshold: float
    refused: int
    p50_ms: float = Field(ge=0)
    p95_ms: float = Field(ge=0)


def read(path: Path) -> Iterator[Example]:
    """The examples of a JSON-lines file; `InputError` names the line that cannot be used."""
    try:
        with path.open("rb") as file:
            for number in range(1, MAX_LINES + 2):
                line = file.readline(MAX_LINE_BYTES + 1)
                if not line:
                    return
                if len(line) > MAX_LINE_BYTES or number > MAX_LINES:
                    raise InputError(f"{path}: at most {MAX_LINES} lines of {MAX_LINE_BYTES} bytes are read")
                if line.strip():
                    yield _example(line, f"{path}, line {number}")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def _example(line: bytes, where: str) -> Example:
    try:
        return Example.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f'{where}: {{"text": "...", "label": 0 or 1}} is needed: {first["msg"]}') from None
    except (ValueError, RecursionError):
        raise InputError(f"{where} is not JSON") from None


def evaluate(gateway: SecurityGateway, examples: Iterable[Example], clock: Clock) -> Evaluation:
    """Screen each example and sum up. `InputError` where there is none."""
    scores, labels, times, refused = [], [], [], 0
    for example in examples:
        started = clock.monotonic()
        try:
            score = gateway.screen(example.text, "evaluation").score
        except InputError:
            score, refused = 1.0, refused + 1
        times.append((clock.monotonic() - started) * 1000)
        scores.append(score)
        labels.append(example.label)
    if not scores:
        raise InputError("there is nothing to evaluate: the file is empty")
    made, attack = np.array(scores), np.array(labels) == 1
    flagged = made >= gateway.threshold
    recall, wrong = _rate(flagged[attack]), _rate(flagged[~attack])
    both = bool(attack.any() and (~attack).any())
    area, variance = delong(made[attack], made[~attack]) if both else (0.0, 0.0)
    return Evaluation(
        n=len(made),
        attacks=int(attack.sum()),
        benign=int((~attack).sum()),
        recall=recall,
        recall_interval=_wilson(flagged[attack]),
        false_positive_rate=wrong,
        false_positive_rate_interval=_wilson(flagged[~attack]),
        auc=area if both else None,
        auc_interval=around(area, variance, int(min(attack.sum(), (~attack).sum()))) if both else None,
        threshold=gateway.threshold,
        refused=refused,
        p50_ms=float(np.quantile(times, 0.5)),
        p95_ms=float(np.quantile(times, 0.95)),
    )


def wilson(hits: int, n: int) -> Interval:
    """Wilson's score interval of `hits` in `n`, n > 0."""
    share, square = hits / n, Z * Z / n
    middle = (share + square / 2) / (1 + square)
    half = Z * sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def delong(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> tuple[float, float]:
    """The area under the ROC curve, ties counting half, and DeLong's variance of it."""
    m, n = len(positive), len(negative)
    together = _midranks(np.concatenate([positive, negative]))
    above = (together[:m] - _midranks(positive)) / n
    below = 1.0 - (together[m:] - _midranks(negative)) / m
    variance = (above.var(ddof=1) / m if m > 1 else 0.0) + (below.var(ddof=1) / n if n > 1 else 0.0)
    return float(above.mean()), float(variance)


def around(area: float, variance: float, fewest: int) -> Interval:
    """The interval of an AUC. Without any error seen the variance says nothing: the rule of three bounds it then."""
    if variance <= 0 or not 0 < area < 1:
        return (max(0.0, area - 3 / fewest), min(1.0, area + 3 / fewest))
    middle, half = log(area / (1 - area)), Z * sqrt(variance) / (area * (1 - area))
    return 1 / (1 + exp(min(700.0, half - middle))), 1 / (1 + exp(max(-700.0, -half - middle)))


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, the mean of them for equal values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def _rate(flagged: NDArray[np.bool_]) -> float | None:
    return float(flagged.mean()) if len(flagged) else None


def _wilson(flagged: NDArray[np.bool_]) -> Interval | None:
    return wilson(int(flagged.sum()), len(flagged)) if len(flagged) else None
