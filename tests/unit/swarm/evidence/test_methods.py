"""Ranking the sentences of a shard, and the ballots made of it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from chimera.core.types import Consensus, Quote, Vote
from chimera.swarm.consensus import ConsensusEngine
from chimera.swarm.evidence import index as index_module
from chimera.swarm.evidence.ballots import ballot
from chimera.swarm.evidence.documents import DocumentRef, list_documents
from chimera.swarm.evidence.index import ShardIndex
from chimera.swarm.evidence.methods import METHODS, Scored
from chimera.swarm.evidence.question import split_question

ROOT = Path(__file__).parents[4]
ALL = tuple(METHODS)


def index_of(folder: Path, **files: str) -> ShardIndex:
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return ShardIndex(list_documents(str(folder))[0])


def top(method: str, index: ShardIndex, question: str) -> str:
    return METHODS[method].rank(index, [question], 0, 5)[0].quote.text


TREES = """Oaks grow slowly and live for three hundred years. Their wood is hard. It was used for ships until 1862.

Elms fell ill in the last century. A beetle carried the fungus from tree to tree.

Birches are white. They stand in the north, where few other trees can live."""


def test_the_methods_are_in_the_order_of_their_names() -> None:
    assert ALL == ("bm25", "graph", "tfidf")
    assert all(METHODS[name].name == name for name in ALL)


@pytest.mark.parametrize("method", ALL)
def test_every_method_finds_a_plain_answer(method: str, tmp_path: Path) -> None:
    index = index_of(tmp_path, trees=TREES, cats="Cats sleep. They hunt mice at night.")
    assert top(method, index, "What carried the fungus?") == "A beetle carried the fungus from tree to tree."
    assert top(method, index, "Which animals hunt mice?") == "They hunt mice at night."


@pytest.mark.parametrize("method", ALL)
def test_confidence_is_a_share_and_falls(method: str, tmp_path: Path) -> None:
    found = METHODS[method].rank(index_of(tmp_path, trees=TREES), ["How long do oaks live?"], 0, 100)
    shares = [scored.confidence for scored in found]
    assert shares == sorted(shares, reverse=True)
    assert all(0 < share <= 1 for share in shares)
    assert len({scored.quote for scored in found}) == len(found)


@pytest.mark.parametrize("method", ALL)
def test_a_shard_that_lacks_the_rare_word_is_less_sure(method: str, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    knows = index_of(tmp_path / "one", a="The Horniman museum has drums. Other rooms have flutes. Some have maps.")
    lacks = index_of(tmp_path / "two", a="A museum has drums. Other rooms have flutes. Some have maps.")
    question = ["How many drums has the Horniman museum?"]
    sure, unsure = (METHODS[method].rank(index, question, 0, 1)[0].confidence for index in (knows, lacks))
    assert sure > unsure


def test_bm25_knows_what_kind_is_asked_for(tmp_path: Path) -> None:
    index = index_of(tmp_path, a="The bridge was opened by the mayor. The bridge was opened by May 1971. Nobody came.")
    assert top("bm25", index, "When was the bridge opened?") == "The bridge was opened by May 1971."


def test_tfidf_forgives_spelling(tmp_path: Path) -> None:
    index = index_of(tmp_path, a="Cydippids have tentacles. Lobates have lobes. Beroids have neither of these things.")
    assert top("tfidf", index, "cydipids tentackles") == "Cydippids have tentacles."
    assert METHODS["bm25"].rank(index, ["cydipids tentackles"], 0, 1) == []


def test_graph_sees_what_stands_around(tmp_path: Path) -> None:
    mill = "The mill stands in Kent. It burned down twice. Visitors may come on Sundays."
    index = index_of(tmp_path, a="The inn stands in Wales. It burned down twice. Visitors may come on Mondays.", b=mill)
    question = ["How often did the Kent mill burn down?"]
    found = {name: METHODS[name].rank(index, question, 0, 9) for name in ("bm25", "graph")}
    burned = {
        name: {s.quote.file: s.confidence for s in ranked if s.quote.text == "It burned down twice."}
        for name, ranked in found.items()
    }
    assert burned["bm25"]["b.txt"] == burned["bm25"]["a.txt"]
    assert burned["graph"]["b.txt"] > 1.5 * burned["graph"]["a.txt"]


def test_graph_sees_headings_and_the_file_s_name(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Oak\n\nIt lives long.\n\n# Elm\n\nIt lives long.\n")
    index = ShardIndex(list_documents(str(tmp_path))[0])
    assert METHODS["graph"].rank(index, ["How long lives the elm?"], 0, 1)[0].quote.line == 7


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("second", ["how many features has it?", "how many features has the dataset?"])
def test_a_part_that_refers_back_is_read_in_the_light_of_the_first(method: str, second: str, tmp_path: Path) -> None:
    index = index_of(
        tmp_path,
        a="This dataset is about irises.\n\nEach of its 4 features was scaled.\n\nIt is small.",
        b="This dataset is about wines.\n\nEach of its 13 features was scaled.\n\nIt is large.",
    )
    parts = ["Which dataset is about wines", second]
    assert METHODS[method].rank(index, parts[1:], 0, 1)[0].quote.file == "a.txt"
    assert METHODS[method].rank(index, parts, 1, 1)[0].quote.file == "b.txt"


def test_a_part_on_its_own_stays_on_its_own(tmp_path: Path) -> None:
    index = index_of(tmp_path, trees=TREES, cats="Cats sleep. Mice are hunted by owls.")
    parts = ["Who sleeps", "what are ships made of?"]
    assert METHODS["bm25"].rank(index, parts, 1, 3) == METHODS["bm25"].rank(index, parts[1:], 0, 3)


def test_the_vote_answers_both_parts_of_a_question() -> None:
    index = ShardIndex(list_documents("package:sklearn/datasets/descr")[0])
    parts = split_question("Which dataset came from a study of diabetes patients, and how many features has it?")
    best = []
    for part in range(len(parts)):
        engine = ConsensusEngine(method=Consensus.WEIGHTED, electorate=len(ALL))
        for name in ALL:
            engine.add(Vote(voter=name, reply=ballot(METHODS[name].rank(index, parts, part, 5))))
        best.append(Quote.model_validate(engine.candidates[0].value))
    assert [quote.file for quote in best] == ["diabetes.rst", "diabetes.rst"]
    assert "diabetes" in best[0].text
    assert "10" in best[1].text


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("question", ["", "?", "xyzzy qwrtzp", "\u4f60\u597d", "the of and"])
def test_an_odd_question_is_no_error(method: str, question: str, tmp_path: Path) -> None:
    found = METHODS[method].rank(index_of(tmp_path, trees=TREES), [question], 0, 3)
    assert len(found) <= 3


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("text", ["", "\n\n", "---", "ab", "Oak."])
def test_an_odd_document_is_no_error(method: str, text: str, tmp_path: Path) -> None:
    index = index_of(tmp_path, a=text)
    assert len(METHODS[method].rank(index, ["Is it an oak?"], 0, 3)) <= len(index) <= 1


@pytest.mark.parametrize("method", ALL)
def test_ties_go_to_the_earlier_file_and_line(method: str, tmp_path: Path) -> None:
    index = index_of(tmp_path, b="Oaks are trees.\n\nOaks are trees.", a="Oaks are trees.", c="Cats are not.")
    found = METHODS[method].rank(index, ["oaks trees"], 0, 3)
    assert [(s.quote.file, s.quote.line) for s in found] == [("a.txt", 1), ("b.txt", 1), ("b.txt", 3)]


def test_an_index_names_what_it_could_not_read(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("Oaks are trees.")
    (tmp_path / "junk.txt").write_bytes(b"\x00\x01")
    index = ShardIndex([*list_documents(str(tmp_path))[0], DocumentRef(str(tmp_path / "gone.txt"), "gone.txt", 1)])
    assert [passage.text for passage in index.passages] == ["Oaks are trees."]
    assert [error.file for error in index.skipped] == ["junk.txt", "gone.txt"]


def test_an_index_is_bounded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "MAX_CHARACTERS", 40)
    index = index_of(tmp_path, a="Oaks are trees.\n\nElms are trees.\n\nBirches are trees.", b="Cats are not.")
    assert [passage.text for passage in index.passages] == ["Oaks are trees.", "Elms are trees."]
    assert [error.file for error in index.skipped] == ["a.txt", "b.txt"]
    assert "up to line 5" in index.skipped[0].cause


def test_size_grows_with_the_text(tmp_path: Path) -> None:
    small = index_of(tmp_path, a="Oaks are trees.").size_bytes
    assert 0 < small < index_of(tmp_path, a="Oaks are trees.", b=TREES).size_bytes


def test_a_ballot_names_the_best_and_the_others() -> None:
    quotes = [Quote(text=text, file="a.txt", line=1) for text in ("One.", "Two.", "Three.")]
    reply = ballot([Scored(quote, share) for quote, share in zip(quotes, (0.9, 0.5, 0.1), strict=True)])
    assert (reply.value, reply.confidence) == (quotes[0].model_dump(), 0.9)
    assert [(other.value, other.confidence) for other in reply.alternatives] == [
        (quotes[1].model_dump(), 0.5),
        (quotes[2].model_dump(), 0.1),
    ]


def test_a_ballot_of_nothing_votes_for_nothing() -> None:
    reply = ballot([])
    assert (reply.value, reply.confidence, reply.alternatives) == (None, 0.0, ())


def test_a_ballot_is_bounded() -> None:
    quote = Quote(text="One.", file="a.txt", line=1)
    assert len(ballot([Scored(quote, 0.5)] * 200).alternatives) == 64


def test_results_do_not_depend_on_the_hash_seed() -> None:
    script = """
from chimera.swarm.evidence.documents import list_documents
from chimera.swarm.evidence.index import ShardIndex
from chimera.swarm.evidence.methods import METHODS
index = ShardIndex(list_documents("package:sklearn/datasets/descr")[0])
for question in ("How many wines are there?", "Who collected the iris data?", "When were the faces taken?"):
    for name, method in METHODS.items():
        print(name, [(s.quote.citation, s.confidence) for s in method.rank(index, [question], 0, 10)])
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    outputs = {process.communicate(timeout=60)[0] for process in started}
    assert len(outputs) == 1
    assert len(next(iter(outputs)).splitlines()) == 9


def test_the_hash_of_ngrams_is_the_same_everywhere() -> None:
    counts = index_module._count_ngrams(["An oak is a tree.", "x", ""])
    seen = hashlib.sha256(counts.indices.tobytes() + counts.data.tobytes()).hexdigest()
    assert counts.sum(axis=1).tolist() == [14 + 13 + 12, 0, 0]
    assert seen == "46448ded64ed11eee4445b1e64717246024786e21e175eae71bc60103ff24f1a"
