"""The roles that read: planner, extracting workers, judge, and the default policy. Each is a policy like a user's own.

Their imports take seconds where nothing is cached. They stand at the top, so that a cell has done them when it takes an
agent in, before any attempt's clock runs; whoever needs only the names finds them in `roles`, at no cost.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import JsonValue

from chimera.core.errors import DocumentsError, MissionError, UnreadableDocument
from chimera.core.hashing import canonical_json
from chimera.core.types import Alternative, Quote, Reply, Task
from chimera.swarm import brief
from chimera.swarm.attempt import Settled
from chimera.swarm.evidence.ballots import ballot
from chimera.swarm.evidence.cache import index_of
from chimera.swarm.evidence.documents import (
    Document,
    DocumentRef,
    list_documents,
    read_document,
    resolve_folder,
    shard_documents,
)
from chimera.swarm.evidence.formats import Line
from chimera.swarm.evidence.index import ShardIndex
from chimera.swarm.evidence.methods import METHODS
from chimera.swarm.evidence.passages import stands_in
from chimera.swarm.evidence.question import split_question
from chimera.swarm.policy import Context
from chimera.swarm.roles import text_input

FINDS_PER_SHARD = 10


def respond(task: Task, context: Context) -> Reply:
    """The default policy: the sentence of the task's inputs (and of what it waited for) that best answers its goal.

    Replica i uses the i-th method, so that three agents look in three ways. A value that is no text is read as one line
    `name: value`. Raises MissionError when there is nothing to answer from.
    """
    values = {**task.inputs, **{name: settled.decision.value for name, settled in context.upstream.items()}}
    texts = {name: _as_text(name, value) for name, value in sorted(values.items())}
    if not any(texts.values()):
        raise MissionError("nothing to answer from: give the task inputs with text, or the agent a policy of your own")
    refs = [DocumentRef(path="", name=name, size_bytes=len(text)) for name, text in texts.items() if text]
    lines = {name: tuple(Line(n, line) for n, line in enumerate(text.splitlines(), 1)) for name, text in texts.items()}
    index = ShardIndex(refs, read=lambda ref: Document(ref, lines[ref.name]))
    ranked = METHODS[sorted(METHODS)[context.replica % len(METHODS)]].rank(index, [task.goal], 0, FINDS_PER_SHARD)
    if not ranked:
        return Reply(value=None, confidence=0.0)
    best, *rest = ranked
    others = tuple(Alternative(value=found.quote.text, confidence=found.confidence) for found in rest)
    return Reply(value=best.quote.text, confidence=best.confidence, alternatives=others)


def _as_text(name: str, value: JsonValue) -> str:
    return value if isinstance(value, str) else f"{name}: {canonical_json(value)}"


def plan(task: Task, context: Context) -> Reply:
    """Cut the work: one item for each part of the question and shard of the documents. Reads no document."""
    folder = resolve_folder(text_input(task, "docs"))
    documents, unreadable = list_documents(str(folder))
    shards = shard_documents(documents, context.settings.shard_bytes)
    parts = split_question(text_input(task, "question"))
    items: list[JsonValue] = [
        {
            "part": part,
            "question": question,
            "parts": list(parts),
            "folder": str(folder),
            "files": [[ref.name, ref.size_bytes] for ref in shard],
        }
        for part, question in enumerate(parts)
        for shard in shards
    ]
    if (size := len(canonical_json(items))) > context.settings.max_reply_bytes:
        raise DocumentsError(
            f"{len(documents)} files make a plan of {size} bytes; the limit is {context.settings.max_reply_bytes} "
            f"(CHIMERA_MAX_REPLY_BYTES): ask over fewer files at once"
        )
    skipped: list[JsonValue] = [{"file": file.file, "cause": file.cause} for file in unreadable]
    return Reply(value=items, details={"skipped": skipped, "documents": len(documents)})


class Extract:
    """A worker that ranks the sentences of a shard by one method. Honest: it quotes, or says that it found nothing."""

    def __init__(self, method: str) -> None:
        self.method = method

    def __call__(self, task: Task, context: Context) -> Reply:
        item = task.inputs.get("item")
        if not isinstance(item, dict):
            raise MissionError(
                "an extraction task has an item with part, parts and files; see chimera.swarm.readers.plan"
            )
        index = index_of(_refs(item), limit_bytes=context.settings.index_cache_bytes)
        parts, part = item.get("parts"), item.get("part")
        if not isinstance(parts, list) or not isinstance(part, int) or not 0 <= part < len(parts):
            raise MissionError("an extraction's item has no such part; see chimera.swarm.readers.plan")
        ranked = METHODS[self.method].rank(index, [str(text) for text in parts], part, FINDS_PER_SHARD)
        skipped: list[JsonValue] = [{"file": file.file, "cause": file.cause} for file in index.skipped]
        return ballot(ranked).model_copy(update={"details": {"skipped": skipped}})


bm25 = Extract("bm25")
graph = Extract("graph")
tfidf = Extract("tfidf")


def judge(task: Task, context: Context) -> Reply:
    """Check that every quote stands word for word in its source, and keep each voter's best that do."""
    read: dict[str, Document | None] = {}

    def document(ref: DocumentRef) -> Document | None:
        if ref.path not in read:
            if len(read) >= 64:
                read.pop(next(iter(read)))
            try:
                read[ref.path] = read_document(ref)
            except UnreadableDocument:
                read[ref.path] = None
        return read[ref.path]

    def stands(quote: Quote, settled: Settled) -> bool:
        item = settled.inputs["item"]
        refs = _refs(item) if isinstance(item, dict) else []
        source = next((document(ref) for ref in refs if ref.name == quote.file), None)
        return source is not None and stands_in(quote, source)

    return Reply(value=brief.gather(context.upstream, stands).model_dump(mode="json"))


def _refs(item: Mapping[str, JsonValue]) -> list[DocumentRef]:
    folder, files = item.get("folder"), item.get("files")
    if not isinstance(folder, str) or not isinstance(files, list):
        raise MissionError("an extraction's item has a folder and its files; see chimera.swarm.readers.plan")
    refs = []
    for file in files:
        name, size_bytes = file if isinstance(file, list) and len(file) == 2 else ("", -1)
        if not isinstance(name, str) or not name or not isinstance(size_bytes, int):
            raise MissionError("a file of an extraction's item is a pair of name and bytes")
        refs.append(DocumentRef(path=os.path.join(folder, name), name=name, size_bytes=size_bytes))
    return refs
