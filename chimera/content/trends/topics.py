"""Terms that burst together in the same documents are one topic; and whether a burst is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from scipy.special import betainc

OVERLAP: Final = 0.5
"""Of the documents of the smaller of two terms, the share that mentions both, for them to be one topic."""


def cluster(terms: Sequence[str], documents: Mapping[str, frozenset[int]]) -> list[list[str]]:
    """Topics out of terms, the strongest first: each term joins the topic whose leader shares most of its documents.

    The leader is the topic's first term, so that topics do not chain into one.
    """
    topics: list[list[str]] = []
    for term in terms:
        mine = documents[term]
        best, most = None, 0.0
        for topic in topics:
            theirs = documents[topic[0]]
            shared = len(mine & theirs) / max(1, min(len(mine), len(theirs)))
            if shared >= OVERLAP and shared > most:
                best, most = topic, shared
        if best is None:
            topics.append([term])
        else:
            best.append(term)
    return topics


def label(topic: Sequence[str], most: int = 5) -> tuple[str, ...]:
    """Its terms without those that are part of another: `teresa` goes where `mother teresa` stands."""
    kept: list[str] = []
    for term in topic[: 4 * most]:
        if any(set(term.split()) < set(other.split()) for other in topic[: 4 * most]):
            continue
        if term.removeprefix("#") not in kept:
            kept.append(term)
    return tuple(kept[:most])


def tail(mentions: float, documents: float, past_mentions: float, past_documents: float) -> float:
    """The chance of `mentions` or more in `documents` at the rate of the past, whose rate is only known so well.

    A Poisson count at a Gamma(past_mentions + 1/2, past_documents + 1) rate is negative binomial, whose upper tail is
    a regularised incomplete beta function (N. L. Johnson, A. W. Kemp, S. Kotz, "Univariate Discrete Distributions",
    3rd ed., 2005, section 5.6).
    """
    if mentions <= 0:
        return 1.0
    share = documents / (documents + past_documents + 1.0)
    return float(betainc(mentions, past_mentions + 0.5, share))


def discoveries(chances: Sequence[float], tests: int, rate: float) -> list[bool]:
    """Which of these are no chance finds, if at most `rate` of those called so may be: Benjamini and Hochberg (1995).

    `tests` is how many were made in all: those that are not among `chances` had nothing to show.
    """
    if not chances:
        return []
    order = np.argsort(chances, kind="stable")
    ranked = np.asarray(chances)[order]
    passed = np.flatnonzero(ranked <= rate * np.arange(1, len(ranked) + 1) / max(tests, len(ranked)))
    found = [False] * len(chances)
    for place in order[: passed[-1] + 1 if len(passed) else 0].tolist():
        found[place] = True
    return found
