"""A shard of documents, read and cut into sentences, with what each method needs to rank them.

Each structure is built when a method first asks for it, and kept: a cell that runs one method pays for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain

import bm25s
import numpy as np
import numpy.typing as npt
import scipy.sparse as sparse
from sklearn.feature_extraction.text import TfidfTransformer

from chimera.core.errors import UnreadableDocument
from chimera.swarm.evidence.documents import Document, DocumentRef, read_document
from chimera.swarm.evidence.kinds import Kind, things
from chimera.swarm.evidence.passages import Passage, iter_passages
from chimera.swarm.evidence.words import fold, stem_all

Scores = npt.NDArray[np.float64]
"""One number from 0 to 1 for each passage of a shard."""

MAX_PASSAGES = 50_000
MAX_CHARACTERS = 4_000_000

K1, B = 1.2, 0.75
NGRAM_SIZES = (4, 5, 6)
NGRAM_BITS = 18

_HASH_BASE = np.uint64(0x100000001B3)
_HASH_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 1_000

_BYTES_A_PASSAGE = 1_200
_BYTES_A_CHARACTER = 40


class ShardIndex:
    """The passages of some documents. `skipped` names the files that could not be read, or not to their end."""

    def __init__(self, refs: Sequence[DocumentRef], read: Callable[[DocumentRef], Document] = read_document) -> None:
        found: list[Passage] = []
        self.skipped: list[UnreadableDocument] = []
        room = MAX_CHARACTERS
        for ref in refs:
            try:
                for passage in iter_passages(read(ref)):
                    room -= len(passage.text)
                    if room < 0 or len(found) == MAX_PASSAGES:
                        limits = f"{MAX_CHARACTERS} characters or {MAX_PASSAGES} sentences"
                        cause = f"read up to line {passage.line} only: a shard's index holds at most {limits}"
                        self.skipped.append(UnreadableDocument(ref.name, cause))
                        break
                    found.append(passage)
            except UnreadableDocument as error:
                self.skipped.append(error)
        self.passages: tuple[Passage, ...] = tuple(found)

    def __len__(self) -> int:
        return len(self.passages)

    @cached_property
    def size_bytes(self) -> int:
        """Memory of this index once every method has used it, in bytes: an estimate from measured indexes."""
        return _BYTES_A_PASSAGE * len(self) + _BYTES_A_CHARACTER * sum(len(passage.text) for passage in self.passages)

    @cached_property
    def words(self) -> Words:
        return Words([passage.text for passage in self.passages])

    @cached_property
    def bm25(self) -> bm25s.BM25:
        """BM25 in Lucene's form, which keeps a word's share below its idf (Kamphuis et al., ECIR 2020)."""
        ranker = bm25s.BM25(k1=K1, b=B, method="lucene")
        words = self.words
        ranker.index((words.columns, words.vocabulary), show_progress=False)
        return ranker

    @cached_property
    def ngrams(self) -> Ngrams:
        return Ngrams([passage.text for passage in self.passages])

    @cached_property
    def context(self) -> Words:
        """Words of each document's name and of the headings above a passage."""
        return Words([f"{passage.file} {passage.heading}" for passage in self.passages])

    @cached_property
    def paragraph_starts(self) -> npt.NDArray[np.intp]:
        """Where each paragraph begins among the passages."""
        return _starts([(passage.file, passage.paragraph) for passage in self.passages])

    @cached_property
    def continues(self) -> npt.NDArray[np.bool_]:
        """Whether a passage stands in one paragraph with the passage before it."""
        mask = np.ones(len(self), dtype=np.bool_)
        mask[self.paragraph_starts] = False
        return mask

    @cached_property
    def document_starts(self) -> npt.NDArray[np.intp]:
        """Where each document begins among the passages."""
        return _starts([passage.file for passage in self.passages])

    def best_of(self, values: npt.NDArray[np.float64], starts: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """For each passage the largest value (column by column) in its group; groups begin at `starts`."""
        sizes = np.diff(starts, append=len(self))
        return np.repeat(np.maximum.reduceat(values, starts, axis=0), sizes, axis=0)

    def things(self, kind: Kind) -> tuple[frozenset[str], ...]:
        """The dates, numbers or names in each passage."""
        if kind not in self._things:
            self._things[kind] = tuple(things(kind, passage.text) for passage in self.passages)
        return self._things[kind]

    @cached_property
    def _things(self) -> dict[Kind, tuple[frozenset[str], ...]]:
        return {}


class Words:
    """Which stem stands in which passage."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.vocabulary: dict[str, int] = {}
        self.columns = [[self.vocabulary.setdefault(s, len(self.vocabulary)) for s in row] for row in stem_all(texts)]
        rows = np.repeat(np.arange(len(texts)), [len(row) for row in self.columns])
        flat = np.fromiter(chain.from_iterable(self.columns), dtype=np.int32)
        shape = (len(texts), len(self.vocabulary))
        self._holders = sparse.coo_array((np.ones(len(flat), dtype=np.float32), (rows, flat)), shape=shape).tocsc()

    def present(self, wanted: Sequence[str]) -> npt.NDArray[np.float64]:
        """1.0 where a stem stands in a passage: one row a passage, one column a stem."""
        found = np.zeros((self._holders.shape[0], len(wanted)))
        for column, stem in enumerate(wanted):
            found[self._rows(stem), column] = 1.0
        return found

    def weight(self, stem: str) -> float:
        """A stem's idf, as in BM25; a stem that stands nowhere weighs most, so that shards compare."""
        passages, holders = self._holders.shape[0], len(self._rows(stem))
        return math.log(1.0 + (passages - holders + 0.5) / (holders + 0.5))

    def _rows(self, stem: str) -> npt.NDArray[np.int32]:
        """The passages that hold a stem."""
        at = self.vocabulary.get(stem)
        if at is None:
            return np.empty(0, dtype=np.int32)
        starts = self._holders.indptr
        return np.asarray(self._holders.indices[starts[at] : starts[at + 1]], dtype=np.int32)


class Ngrams:
    """TF-IDF over runs of characters, hashed: what a misspelt or inflected word still shares, and short phrases."""

    def __init__(self, texts: Sequence[str]) -> None:
        blocks = [_count_ngrams(texts[at : at + _BLOCK]) for at in range(0, len(texts), _BLOCK)]
        self._weigh = TfidfTransformer(sublinear_tf=True)
        self._vectors = self._weigh.fit_transform(sparse.vstack(blocks, format="csr"))

    def similarity(self, question: str) -> Scores:
        """The cosine between the question and each passage."""
        asked = self._weigh.transform(_count_ngrams([" ".join(question.split())]))
        return np.asarray(self._vectors @ asked.toarray().ravel(), dtype=np.float64)


def _count_ngrams(texts: Sequence[str]) -> sparse.csr_array:
    """How often each hashed run of characters stands in each text: one row a text, one column a bucket.

    Rolling polynomial hashes of all texts at once (Karp and Rabin, 1987), spread over the buckets by multiplication
    (Knuth, TAOCP 6.4): tens of times faster than cutting strings, and the same in every process.
    """
    folded = [fold(text) for text in texts]
    codes = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    owners = np.repeat(np.arange(len(folded), dtype=np.int32), [len(text) for text in folded])
    rows, columns = [], []
    for size in NGRAM_SIZES:
        count = max(0, len(codes) - size + 1)
        hashed = np.full(count, size, dtype=np.uint64)
        for offset in range(size):
            hashed = hashed * _HASH_BASE + codes[offset : offset + count]
        within = owners[:count] == owners[size - 1 : size - 1 + count]
        rows.append(owners[:count][within])
        columns.append((hashed[within] * _HASH_SPREAD >> np.uint64(64 - NGRAM_BITS)).astype(np.int32))
    row, column = np.concatenate(rows), np.concatenate(columns)
    ones = np.ones(len(row), dtype=np.float32)
    return sparse.coo_array((ones, (row, column)), shape=(len(texts), 1 << NGRAM_BITS)).tocsr()


def _starts(labels: Sequence[object]) -> npt.NDArray[np.intp]:
    return np.array([i for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]], dtype=np.intp)
