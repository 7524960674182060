"""Vectors kept on disk, so that 2,000 tools are embedded once and not at every start.

A cache: what it loses is embedded again. Queries are not kept here, because they may say what nobody else should read.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from chimera.storage.sqlite_file import Layout, boundary, open_file, transaction

MAX_VECTORS = 100_000
"""The oldest go first. 100,000 of MiniLM's take 170 MB."""

_AT_ONCE = 500
_BUSY_TIMEOUT_S = 5.0

Vector = npt.NDArray[np.float32]


def _to_1(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE vectors (n INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, vector BLOB NOT NULL)")


VECTORS = Layout(what="cache of embeddings", application_id=0x43485645, upgrades=(_to_1,))  # "CHVE"


class VectorFile:
    """Vectors by the embedder's name (model and weights) and the text. Threads and processes may share the file."""

    def __init__(self, path: Path, *, max_vectors: int = MAX_VECTORS) -> None:
        self._path = path
        self._max_vectors = max_vectors
        self._lock = threading.Lock()
        self._connection = open_file(path, VECTORS, _BUSY_TIMEOUT_S)

    def get(self, name: str, texts: Sequence[str]) -> dict[str, Vector]:
        """Those of `texts` that are there. Raises StorageError."""
        text_of = {_key(name, text): text for text in texts}
        keys, found = list(text_of), {}
        with self._lock, boundary(self._path, VECTORS.what):
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = self._connection.execute(f"SELECT key, vector FROM vectors WHERE key IN ({marks})", some)
                found.update({text_of[key]: np.frombuffer(vector, dtype="<f4") for key, vector in rows})
        return found

    def put(self, name: str, vectors: Mapping[str, Vector]) -> None:
        """Keep the vectors of these texts. Raises StorageError."""
        rows = [(_key(name, text), vector.astype("<f4").tobytes()) for text, vector in vectors.items()]
        with self._lock, boundary(self._path, VECTORS.what), transaction(self._connection):
            self._connection.executemany("INSERT OR REPLACE INTO vectors (key, vector) VALUES (?, ?)", rows)
            newest = "SELECT n FROM vectors ORDER BY n DESC LIMIT 1 OFFSET ?"
            self._connection.execute(f"DELETE FROM vectors WHERE n <= ({newest})", (self._max_vectors,))

    def close(self) -> None:
        with self._lock, boundary(self._path, VECTORS.what):
            self._connection.close()


def _key(name: str, text: str) -> bytes:
    return hashlib.sha256(f"{len(name)}:{name}{text}".encode("utf-8", "surrogatepass")).digest()
