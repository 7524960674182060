"""The vote must find more answers than its best single voter, on questions that no method was fitted to one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.qa_consensus import measure

QA = Path(__file__).parents[3] / "data" / "qa"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return measure(QA)


def test_each_method_is_a_decent_one(report: dict[str, Any]) -> None:
    hits = report["hit_at_1"]
    assert hits["bm25"] >= 0.775
    assert hits["tfidf"] >= 0.80
    assert hits["graph"] >= 0.80


def test_the_vote_beats_its_best_voter(report: dict[str, Any]) -> None:
    assert report["hit_at_1"]["consensus"] >= 0.85
    assert report["gain"] >= 0.03
    assert all(half["gain"] > 0 for half in report["halves"].values())


def test_the_vote_beats_its_best_voter_over_several_shards() -> None:
    report = measure(QA, shard_bytes=30_000)
    assert report["shards"] > 3
    assert report["gain"] >= 0.03


def test_it_comes_out_the_same_again(report: dict[str, Any]) -> None:
    again = measure(QA)
    assert {**again, "seconds": 0} == {**report, "seconds": 0}
