"""The catalog of tools: a few words of what has to be done in, the few tools that can do it out.

A planner that is shown 2,000 tools reads nothing else. It is shown five. They are found by words (BM25), which needs
nothing, and by meaning where there is an embedder, and the two are added as z-scores (`fusion`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from chimera.core.errors import InputError, ModelError, StorageError
from chimera.core.types import Frozen
from chimera.mcp.catalog.document import MAX_EXAMPLE_CHARS, document_of, tool_id
from chimera.mcp.catalog.embedder import Embedder, Vectors
from chimera.mcp.catalog.fusion import Scores, best_of, fuse
from chimera.mcp.catalog.lexical import LexicalIndex
from chimera.mcp.catalog.vectors import Vector, VectorFile
from chimera.mcp.types import ToolDefinition

MAX_TOOLS = 20_000
MAX_EXAMPLES = 64
"""Example queries that count for one tool."""
MAX_QUERY_CHARS = 4_000
MAX_FOUND = 100

SEMANTIC_WEIGHT = 0.8
"""Of the z-scores of meaning; the words have the rest. Chosen on queries that are in no reported figure."""

Approved = Callable[[Sequence[ToolDefinition]], Sequence[ToolDefinition]]
"""Of the definitions that servers offer, those that may be used as they are now."""


class Found(Frozen):
    """A tool that fits, and why: `lexical` is its BM25 score, `semantic` the cosine of the best of its texts.

    `semantic` is None where nothing was compared by meaning: no embedder, or it could not be asked. `score` orders the
    tools of one search; it does not compare between searches.
    """

    tool: ToolDefinition
    score: float
    lexical: float
    semantic: float | None = None


class Catalog:
    """The tools that `approved` lets through, searchable.

    `approved` sees every definition before it is indexed, at the start and at each `replace`: one that it leaves out is
    in no answer. `examples` are, by `server/name`, queries that the tool was the right one for; each is one more text
    that a query may be near to. `vectors` keeps the tools' embeddings on disk. Belongs to one event loop.
    """

    def __init__(
        self,
        definitions: Sequence[ToolDefinition],
        *,
        approved: Approved,
        embedder: Embedder | None = None,
        examples: Mapping[str, Sequence[str]] | None = None,
        vectors: VectorFile | None = None,
        semantic_weight: float | None = None,
    ) -> None:
        semantic_weight = SEMANTIC_WEIGHT if semantic_weight is None else semantic_weight
        if not 0.0 <= semantic_weight <= 1.0:
            raise InputError(f"semantic_weight is from 0 to 1, not {semantic_weight}")
        self._approved = approved
        self._embedder = embedder
        self._examples = dict(examples or {})
        self._file = vectors
        self._weight = semantic_weight
        self._embedding = asyncio.Lock()
        self._known: dict[str, Vector] = {}
        self._shelf = _Shelf((), {})
        self.left_out = 0
        """Approved definitions beyond `MAX_TOOLS`, or of a name that their server has given before."""
        self.replace(definitions)

    @property
    def tools(self) -> tuple[ToolDefinition, ...]:
        """All that can be found, in the order of their `server/name`."""
        return self._shelf.tools

    def replace(self, definitions: Sequence[ToolDefinition]) -> None:
        """From now on these are all the definitions there are. What has changed or gone is in no later answer.

        Only the words are indexed here. What is new is embedded by the next `prepare` or `search`, once for each text.
        """
        distinct: dict[tuple[str, str], ToolDefinition] = {}
        approved = self._approved(definitions)
        for tool in approved:
            if len(distinct) < MAX_TOOLS:
                distinct.setdefault((tool.server, tool.name), tool)
        self.left_out = len(approved) - len(distinct)
        self._shelf = _Shelf(tuple(distinct[name] for name in sorted(distinct)), self._examples)

    async def prepare(self) -> None:
        """Embed what is new, so that no search waits for it. Raises ModelError.

        MiniLM takes 30 to 50 ms for a new tool on one core; one that `vectors` has, or that stayed, costs nothing.
        """
        await self._vectors(self._shelf)

    async def search(self, query: str, k: int = 5) -> tuple[Found, ...]:
        """The `k` tools that fit `query` best, best first; without an embedder, only such as share a word with it.

        Raises InputError for an empty or overlong query. If the embedder fails, the words decide alone.
        """
        if not query.strip() or len(query) > MAX_QUERY_CHARS:
            raise InputError(f"a query has 1 to {MAX_QUERY_CHARS:,} characters: say in a sentence what has to be done")
        if not 1 <= k <= MAX_FOUND:
            raise InputError(f"k is from 1 to {MAX_FOUND}, not {k}")
        shelf = self._shelf
        if not shelf.tools:
            return ()
        semantic = await self._cosines(shelf, query)
        lexical = shelf.best(shelf.lexical.scores(query))
        scores = lexical if semantic is None else fuse(lexical, semantic, self._weight)
        order = [at for at in np.argsort(-scores, kind="stable")[:k] if semantic is not None or lexical[at] > 0]
        if shelf is not self._shelf:  # replaced while the embedder worked: what has gone is not found
            order = [at for at in order if shelf.tools[at] in self._shelf.tools]
        return tuple(
            Found(
                tool=shelf.tools[at],
                score=float(scores[at]),
                lexical=float(lexical[at]),
                semantic=None if semantic is None else float(semantic[at]),
            )
            for at in order
        )

    async def _cosines(self, shelf: _Shelf, query: str) -> Scores | None:
        """By tool, the cosine of the query and the nearest of its texts."""
        if self._embedder is None or self._weight == 0.0:
            return None
        try:
            vectors = await self._vectors(shelf)
            asked = await self._embedder.embed([query])
        except ModelError:
            return None
        if asked.shape[1] != vectors.shape[1]:
            return None
        return shelf.best((vectors @ asked[0]).astype(np.float64))

    async def _vectors(self, shelf: _Shelf) -> Vectors:
        """Of all texts of a shelf, in order: those that are known, those on disk, and the rest embedded now."""
        if shelf.vectors is not None or self._embedder is None:
            return np.empty((0, 0), dtype=np.float32) if shelf.vectors is None else shelf.vectors
        async with self._embedding:
            if shelf.vectors is None:
                shelf.vectors = await self._embedded(self._embedder, shelf.texts)
        return shelf.vectors

    async def _embedded(self, embedder: Embedder, texts: Sequence[str]) -> Vectors:
        wanted = dict.fromkeys(texts)
        known = {text: self._known[text] for text in wanted if text in self._known}
        if self._file is not None:
            with suppress(StorageError):  # a cache
                known |= await asyncio.to_thread(self._file.get, embedder.name, [t for t in wanted if t not in known])
        missing = [text for text in wanted if text not in known]
        if missing:
            fresh = dict(zip(missing, await embedder.embed(missing), strict=True))
            known |= fresh
            if self._file is not None:
                with suppress(StorageError):
                    await asyncio.to_thread(self._file.put, embedder.name, fresh)
        if len({vector.size for vector in known.values()}) > 1:
            self._known = {}
            raise ModelError(f"vectors of {embedder.name} differ in length: name its weights, or empty the cache")
        self._known = known
        return np.stack([known[text] for text in texts])


class _Shelf:
    """The tools of one moment and their texts: a document each, then the examples. Nothing of it changes but that
    its vectors are filled in."""

    def __init__(self, tools: tuple[ToolDefinition, ...], examples: Mapping[str, Sequence[str]]) -> None:
        self.tools = tools
        documents = [document_of(tool) for tool in tools]
        owners = list(range(len(tools)))
        said: list[str] = []
        for at, tool in enumerate(tools):
            some = examples.get(tool_id(tool), ())[:MAX_EXAMPLES]
            said += [example[:MAX_EXAMPLE_CHARS] for example in some]
            owners += [at] * len(some)
        self.lexical = LexicalIndex([*(document.words for document in documents), *said])
        self.texts = (*(document.meaning for document in documents), *said)
        self.vectors: Vectors | None = None
        self._owners: npt.NDArray[np.intp] = np.array(owners, dtype=np.intp)

    def best(self, scores: Scores) -> Scores:
        """From a score for each text, the best for each tool."""
        return best_of(scores, self._owners, len(self.tools))
