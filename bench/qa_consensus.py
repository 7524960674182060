"""How much better the extractors' vote is than any one of them, on questions with known answers.

    python bench/qa_consensus.py DIR [--json]

DIR holds `questions.jsonl` ({question, answers, doc}) and `docs/`; tests/data/qa is one. A question counts as answered
when the top quote contains one of its answers, in any case of letters. The votes are counted by the same engine that
decides a mission, and the interval is a paired bootstrap over questions.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chimera.core.types import Consensus, Vote
from chimera.swarm.consensus import ConsensusEngine
from chimera.swarm.evidence.ballots import ballot
from chimera.swarm.evidence.documents import list_documents, shard_documents
from chimera.swarm.evidence.index import ShardIndex
from chimera.swarm.evidence.methods import METHODS, Scored
from chimera.swarm.evidence.question import split_question
from chimera.swarm.readers import FINDS_PER_SHARD

RESAMPLES = 10_000

Hits = npt.NDArray[np.float64]


def rank(indexes: list[ShardIndex], method: str, question: str, k: int) -> list[Scored]:
    """A method's best finds over all shards, as a judge would put them together."""
    parts = split_question(question)
    found = [scored for index in indexes for scored in METHODS[method].rank(index, parts, 0, k)]
    return sorted(found, key=lambda s: (-s.confidence, s.quote.file, s.quote.line))[:k]


def measure(folder: Path, *, shard_bytes: int = 256_000, k: int = FINDS_PER_SHARD) -> dict[str, Any]:
    """Hit@1 and hit@3 of every method and of their vote, the difference, and each half of the articles on its own."""
    began = time.perf_counter()
    questions = [json.loads(line) for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()]
    documents, _ = list_documents(str(folder / "docs"))
    indexes = [ShardIndex(shard) for shard in shard_documents(documents, shard_bytes)]
    at_1: dict[str, list[bool]] = {name: [] for name in (*METHODS, "consensus")}
    at_3: dict[str, list[bool]] = {name: [] for name in (*METHODS, "consensus")}
    agreed: list[bool] = []
    agreed_hits: list[bool] = []
    for asked in questions:
        ranked = {name: rank(indexes, name, asked["question"], k) for name in METHODS}
        texts = {name: [scored.quote.text for scored in found] for name, found in ranked.items()}
        weighted = ConsensusEngine(method=Consensus.WEIGHTED, electorate=len(METHODS), early_stop=False)
        majority = ConsensusEngine(method=Consensus.MAJORITY, electorate=len(METHODS), early_stop=False)
        for name, found in ranked.items():
            vote = Vote(voter=name, reply=ballot(found))
            weighted.add(vote)
            majority.add(vote)
        texts["consensus"] = [c.value["text"] for c in weighted.candidates if isinstance(c.value, dict)]  # type: ignore[misc]
        for name, quotes in texts.items():
            at_1[name].append(_answers(quotes[:1], asked["answers"]))
            at_3[name].append(_answers(quotes[:3], asked["answers"]))
        decision = majority.close()
        agreed.append(decision.agreed)
        if isinstance(decision.value, dict):
            agreed_hits.append(_answers([str(decision.value["text"])], asked["answers"]))
    hits = {name: np.array(found, dtype=np.float64) for name, found in at_1.items()}
    second_half = np.array([_is_second_half(asked["doc"], documents) for asked in questions])
    report = _compare(hits)
    report["hit_at_3"] = {name: float(np.mean(found)) for name, found in at_3.items()}
    report["halves"] = {
        "even articles": _compare({name: found[~second_half] for name, found in hits.items()}),
        "odd articles": _compare({name: found[second_half] for name, found in hits.items()}),
    }
    report["majority"] = {
        "agreed": float(np.mean(agreed)),
        "hit_at_1_when_agreed": float(np.mean(agreed_hits)) if agreed_hits else None,
    }
    report |= {"questions": len(questions), "shards": len(indexes), "seconds": time.perf_counter() - began}
    return report


def _compare(hits: dict[str, Hits]) -> dict[str, Any]:
    """Hit@1, and how far the vote leads the best single method: with its 95 % interval, and wins and losses."""
    best = max(METHODS, key=lambda name: hits[name].mean())
    gain = hits["consensus"] - hits[best]
    picks = np.random.default_rng(0).integers(0, len(gain), size=(RESAMPLES, len(gain)))
    low, high = np.percentile(gain[picks].mean(axis=1), [2.5, 97.5])
    return {
        "hit_at_1": {name: float(found.mean()) for name, found in hits.items()},
        "best_single": best,
        "gain": float(gain.mean()),
        "gain_95": [float(low), float(high)],
        "won": int((gain > 0).sum()),
        "lost": int((gain < 0).sum()),
    }


def _answers(quotes: list[str], answers: list[str]) -> bool:
    return any(answer.casefold() in quote.casefold() for quote in quotes for answer in answers)


def _is_second_half(name: str, documents: list[Any]) -> bool:
    return bool([ref.name for ref in documents].index(name) % 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="a folder with questions.jsonl and docs/")
    parser.add_argument("--shard-bytes", type=int, default=256_000, help="document bytes in one shard")
    parser.add_argument("--finds", type=int, default=FINDS_PER_SHARD, help="quotes on a method's ballot")
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    options = parser.parse_args()
    report = measure(options.folder, shard_bytes=options.shard_bytes, k=options.finds)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['questions']} questions, {report['shards']} shards, {report['seconds']:.1f} s")
    for name, share in report["hit_at_1"].items():
        print(f"  {name:10} hit@1 {share:.3f}   hit@3 {report['hit_at_3'][name]:.3f}")
    for label, part in {"all articles": report, **report["halves"]}.items():
        low, high = part["gain_95"]
        print(
            f"  {label}: consensus {part['hit_at_1']['consensus']:.3f}, best single {part['best_single']} "
            f"{part['hit_at_1'][part['best_single']]:.3f}, gain {part['gain']:+.3f} "
            f"(95 % {low:+.3f} to {high:+.3f}; won {part['won']}, lost {part['lost']})"
        )
    majority = report["majority"]
    print(
        f"  majority: {majority['agreed']:.3f} agreed, hit@1 when agreed {majority['hit_at_1_when_agreed'] or 0.0:.3f}"
    )


if __name__ == "__main__":
    main()
