"""How good the catalog is at finding the right tool: hits, recall, rank and time on a file of tools and queries.

Methods are compared on the same queries. A share of a set's queries serves as the tools' examples and another for
choosing weights; what is reported is measured on the rest, which neither has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from chimera.core.clock import Clock
from chimera.core.errors import InputError
from chimera.core.rng import derive_seed
from chimera.core.stats import percentile, wilson_interval
from chimera.core.types import Frozen, Share
from chimera.mcp.catalog.document import tool_id
from chimera.mcp.catalog.embedder import Embedder
from chimera.mcp.catalog.index import MAX_TOOLS, Catalog
from chimera.mcp.catalog.vectors import VectorFile
from chimera.mcp.types import ToolDefinition

MAX_FILE_BYTES = 64_000_000
MAX_QUERIES = 50_000
DEPTH = 10
"""Ranks that are looked at; a right tool below counts as not found."""

_RESAMPLES = 2_000

Part = Literal["examples", "tuning", "reported"]
Examples = Mapping[str, Sequence[str]]


class About(Frozen):
    """What a set is. `split`: some of its queries are examples and some for tuning; else all are reported."""

    name: str
    source: str = ""
    licence: str = ""
    split: bool = True


class Question(Frozen):
    """What somebody wants done, and the tools, by `server/name`, any of which is a right one."""

    query: Annotated[str, Field(min_length=1, max_length=4_000)]
    tools: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]


class ToolSet(Frozen):
    """Tools, and questions about them."""

    about: About
    tools: tuple[ToolDefinition, ...]
    questions: tuple[Question, ...]

    def part(self, part: Part) -> tuple[Question, ...]:
        """The questions of one part: 40 % examples, 20 % tuning, 40 % reported, by the hash of their text."""
        if not self.about.split:
            return self.questions if part == "reported" else ()
        return tuple(question for question in self.questions if part_of(question.query) == part)

    def examples(self) -> dict[str, list[str]]:
        """By tool, the queries that are its examples."""
        examples: dict[str, list[str]] = {}
        for question in self.part("examples"):
            for tool in question.tools:
                examples.setdefault(tool, []).append(question.query)
        return examples


class Estimate(Frozen):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Score(Frozen):
    """How one method did. `gain_5` is by how much its hit@5 is above that of BM25 alone, on the same queries."""

    method: str
    hit_1: Estimate
    hit_5: Estimate
    recall_5: Share
    mrr: Share
    """Mean reciprocal rank of the first right tool, within the first 10."""
    gain_5: Estimate | None = None
    p95_ms: float


class Report(Frozen):
    """A set, and how each method did on it."""

    name: str
    tools: int
    queries: int
    gold_tools: int
    """Different tools that are the right answer to something."""
    scores: tuple[Score, ...]

    def table(self) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The header and the rows, as text."""
        header = ("method", "hit@1", "hit@5", "recall@5", "MRR", "hit@5 above BM25", "p95 ms")
        rows = tuple(
            (
                score.method,
                str(score.hit_1),
                str(score.hit_5),
                f"{score.recall_5:.3f}",
                f"{score.mrr:.3f}",
                "" if score.gain_5 is None else str(score.gain_5),
                f"{score.p95_ms:.1f}",
            )
            for score in self.scores
        )
        return header, rows


def part_of(query: str) -> Part:
    """Where a query belongs. It follows from its text alone, so that no query is ever in two parts."""
    bucket = hashlib.sha256(query.strip().encode()).digest()[0] % 10
    return "examples" if bucket < 4 else "tuning" if bucket < 6 else "reported"


async def evaluate_file(
    path: Path,
    *,
    clock: Clock,
    embedder: Embedder | None = None,
    vectors: VectorFile | None = None,
    part: Part = "reported",
) -> Report:
    """`evaluate` of a file; what `read_set` says about its form holds."""
    return await evaluate(read_set(path), clock=clock, embedder=embedder, vectors=vectors, part=part)


async def evaluate(
    tool_set: ToolSet,
    *,
    clock: Clock,
    embedder: Embedder | None = None,
    vectors: VectorFile | None = None,
    part: Part = "reported",
) -> Report:
    """BM25; and with an embedder embeddings alone and both; each with and without examples where there are some.

    With `vectors` the tools are embedded once instead of once a method. Raises InputError for a set without questions.
    """
    questions = tool_set.part(part)
    if not questions:
        raise InputError(f"{tool_set.about.name} has no queries to measure on: add some, or say that it is not split")
    scores: list[Score] = []
    base: npt.NDArray[np.float64] | None = None
    for name, weight, examples in _methods(embedder is not None, tool_set.examples()):
        catalog = Catalog(
            tool_set.tools,
            approved=tuple,
            embedder=embedder,
            examples=examples,
            vectors=vectors,
            semantic_weight=weight,
        )
        await catalog.prepare()
        ranks, times_ms = await _asked(catalog, questions, clock)
        score, hits = _score(name, questions, ranks, times_ms)
        if base is None:
            base = hits
        else:
            clusters = [question.tools[0] for question in questions]
            score = score.model_copy(update={"gain_5": _gain(hits - base, clusters, tool_set.about.name)})
        scores.append(score)
    return Report(
        name=tool_set.about.name,
        tools=len(tool_set.tools),
        queries=len(questions),
        gold_tools=len({tool for question in questions for tool in question.tools}),
        scores=tuple(scores),
    )


def read_set(path: Path) -> ToolSet:
    """A set in a file of JSON lines: `{"about": ...}` first, then `{"tool": ...}` and `{"query": ..., "tools": [...]}`.

    Raises InputError, which names the line, for a file that is not so, is too large, or names a tool that is not there.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path} has more than {MAX_FILE_BYTES:,} bytes: measure on a part of it")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    about, tools, questions = About(name=path.stem), [], []
    for number, line in enumerate(lines, start=1):
        try:
            row = _Line.model_validate_json(line)
        except ValidationError as error:
            raise InputError(f"{path}, line {number}: {error.errors()[0]['msg']}") from error
        if row.about:
            about = row.about
        if row.tool:
            tools.append(row.tool)
        if row.query is not None:
            questions.append(Question(query=row.query, tools=row.tools))
    if not tools or len(tools) > MAX_TOOLS or len(questions) > MAX_QUERIES:
        raise InputError(f"{path} has to have 1 to {MAX_TOOLS:,} tools and at most {MAX_QUERIES:,} queries")
    known = {tool_id(tool) for tool in tools}
    for question in questions:
        if unknown := sorted(set(question.tools) - known):
            raise InputError(f"{path} asks for {unknown[0]}, and has no such tool: name tools as server/name")
    return ToolSet(about=about, tools=tuple(tools), questions=tuple(questions))


class _Line(Frozen):
    about: About | None = None
    tool: ToolDefinition | None = None
    query: Annotated[str, Field(min_length=1, max_length=4_000)] | None = None
    tools: Annotated[tuple[str, ...], Field(max_length=100)] = ()


def _methods(semantic: bool, examples: Examples) -> list[tuple[str, float | None, Examples]]:
    """Name, weight of meaning, examples; BM25 first, because the others are measured against it."""
    weights: list[tuple[str, float | None]] = [("BM25", 0.0)]
    if semantic:
        weights += [("embeddings", 1.0), ("hybrid", None)]
    methods: list[tuple[str, float | None, Examples]] = [(name, weight, {}) for name, weight in weights]
    if examples:
        methods += [(f"{name}, examples", weight, examples) for name, weight in weights]
    return methods


async def _asked(catalog: Catalog, questions: Sequence[Question], clock: Clock) -> tuple[list[list[str]], list[float]]:
    """For each question the tools found, best first, and how long that took."""
    ranks, times_ms = [], []
    for question in questions:
        started = clock.monotonic()
        found = await catalog.search(question.query, DEPTH)
        times_ms.append((clock.monotonic() - started) * 1_000)
        ranks.append([tool_id(one.tool) for one in found])
    return ranks, times_ms


def _score(
    method: str, questions: Sequence[Question], ranks: Sequence[Sequence[str]], times_ms: Sequence[float]
) -> tuple[Score, npt.NDArray[np.float64]]:
    """The figures of one method, and for each question whether it was a hit at 5."""

    def each(figure: Callable[[Sequence[str], frozenset[str]], float]) -> npt.NDArray[np.float64]:
        return np.array([figure(found, frozenset(q.tools)) for found, q in zip(ranks, questions, strict=True)])

    hit_1 = each(lambda found, right: float(not right.isdisjoint(found[:1])))
    hit_5 = each(lambda found, right: float(not right.isdisjoint(found[:5])))
    recall = each(lambda found, right: len(right.intersection(found[:5])) / min(5, len(right)))
    reciprocal = each(lambda found, right: next((1 / at for at, one in enumerate(found, 1) if one in right), 0.0))
    score = Score(
        method=method,
        hit_1=_share(hit_1),
        hit_5=_share(hit_5),
        recall_5=float(recall.mean()),
        mrr=float(reciprocal.mean()),
        p95_ms=percentile(times_ms, 0.95),
    )
    return score, hit_5


def _share(hits: npt.NDArray[np.float64]) -> Estimate:
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return Estimate(value=float(hits.mean()), low=low, high=high)


def _gain(gains: npt.NDArray[np.float64], clusters: Sequence[str], name: str) -> Estimate:
    """The mean gain, with a paired bootstrap that draws whole clusters: queries for one tool are much alike.

    Source: Field and Welsh, "Bootstrapping Clustered Data", JRSS B 69 (2007).
    """
    labels, members = np.unique(np.array(clusters), return_inverse=True)
    sums, sizes = np.bincount(members, weights=gains), np.bincount(members)
    chance = np.random.default_rng(derive_seed("tools evaluate", name))
    drawn = chance.integers(len(labels), size=(_RESAMPLES, len(labels)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(value=float(gains.mean()), low=float(low), high=float(high))
