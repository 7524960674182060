"""Proposals and policies for these tests."""

from __future__ import annotations

from typing import Any

from chimera.review.policy import KindRule, ReviewPolicy
from chimera.review.types import Proposal

POLICY = ReviewPolicy(
    reviewers={"ann": ("editors", "leads"), "bob": ("editors",), "cleo": ("leads",)},
    kinds={**ReviewPolicy().kinds, "contract": KindRule(four_eyes=True, group="editors")},
    check_automatic=0.0,
    check_monitored=0.0,
)


def proposal(key: str = "k", **changes: Any) -> Proposal:
    told = {"kind": "answer", "summary": "A line", "payload": {"text": "Hello"}, "confidence": 0.5, "asker": "writer"}
    return Proposal(key=key, **{**told, **changes})
