"""Indexed shards that a worker process keeps, least recently used first to go, bounded by bytes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence

from chimera.swarm.evidence.documents import DocumentRef
from chimera.swarm.evidence.index import ShardIndex

Key = tuple[tuple[str, int, int], ...]


class IndexCache:
    """One for each process. Thread-safe: two agents that want the same shard wait for one to build it."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, ShardIndex] = OrderedDict()
        self._building: dict[Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, refs: Sequence[DocumentRef], *, limit_bytes: int) -> ShardIndex:
        """The index of these documents as they are on disk now."""
        key = tuple((ref.path, *_version(ref.path)) for ref in refs)
        with self._lock:
            if (index := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return index
            building = self._building.setdefault(key, threading.Lock())
        with building:
            with self._lock:
                if (index := self._kept.get(key)) is not None:
                    return index
            try:
                index = ShardIndex(list(refs))
            finally:
                with self._lock:
                    self._building.pop(key, None)
            with self._lock:
                self._kept[key] = index
                while len(self._kept) > 1 and sum(kept.size_bytes for kept in self._kept.values()) > limit_bytes:
                    self._kept.popitem(last=False)
        return index


_CACHE = IndexCache()


def index_of(refs: Sequence[DocumentRef], *, limit_bytes: int) -> ShardIndex:
    """This process's index of the documents, built when it is not there; at least the newest is kept."""
    return _CACHE.get(refs, limit_bytes=limit_bytes)


def _version(path: str) -> tuple[int, int]:
    """Size and modification time: an index of a file that has changed is not served."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
