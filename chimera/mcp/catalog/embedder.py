"""The port for embeddings, and a language model's behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from chimera.core.errors import ModelError
from chimera.llm.chat import ChatModel

Vectors = npt.NDArray[np.float32]
"""Shape (texts, dimension); each row has length 1."""

BATCH = 256
"""Texts that one call of a language model embeds."""


class Embedder(Protocol):
    """Texts as vectors, whose inner product says how near they are in meaning.

    `name` stands for the model and its weights: vectors of one name can be compared, and kept on disk under it.
    """

    name: str

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """A row of length 1 for each text, in their order. Raises ModelError if it cannot be done now, or ever."""
        ...


class ModelEmbedder:
    """Embeddings of a language model (`ChatModel.embed`), in batches.

    `weights` names what stands behind the model's name where that can change: a revision, a hash.
    """

    def __init__(self, *, model: ChatModel, weights: str = "") -> None:
        self.name = f"{model.name}@{weights}" if weights else model.name
        self._model = model

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, 0), dtype=np.float32)
        rows: list[tuple[float, ...]] = []
        for start in range(0, len(texts), BATCH):
            batch = texts[start : start + BATCH]
            vectors = (await self._model.embed(batch)).vectors
            if len(vectors) != len(batch):
                raise ModelError(f"{self.name} gave {len(vectors)} vectors for {len(batch)} texts: use another model")
            rows.extend(vectors)
        if len({len(row) for row in rows}) != 1:
            raise ModelError(f"{self.name} gave vectors of different lengths: use another model")
        return unit(np.array(rows, dtype=np.float32))


def unit(vectors: Vectors) -> Vectors:
    """Each row at length 1. Raises ModelError for one that has none: zeros, or what is no number."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or np.any(lengths == 0):
        raise ModelError("a text has no embedding: the model gave zeros, or what is no number")
    return np.asarray(vectors / lengths, dtype=np.float32)
