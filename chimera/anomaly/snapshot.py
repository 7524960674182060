"""A watch as bytes, and back: arrays and a JSON header, checked before anything is believed. No pickle.

    8 bytes    MAGIC, which holds the version
    32 bytes   SHA-256 of the rest
    the rest   an .npz file; its first array, `header`, is UTF-8 JSON

The checksum tells of damage, not of forgery: a snapshot is as trusted as where it is kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from chimera.core.errors import StorageError

MAGIC = b"chimwt\x00\x01"

MAX_BYTES = 2**34


class Snapshot(NamedTuple):
    """What is kept: plain values, and arrays by part and name."""

    header: dict[str, Any]
    parts: dict[str, dict[str, npt.NDArray[Any]]]


def packed(snapshot: Snapshot) -> bytes:
    """The bytes of a snapshot. Names of parts hold no `/`."""
    header = np.frombuffer(json.dumps(snapshot.header).encode(), np.uint8)
    arrays = {f"{part}/{name}": array for part, held in snapshot.parts.items() for name, array in held.items()}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, header=header, **arrays)
    body = file.getbuffer()
    return b"".join((MAGIC, hashlib.sha256(body).digest(), body))


def unpacked(data: bytes) -> Snapshot:
    """The snapshot in `data`. Raises StorageError where that is damaged, of another version, or something else."""
    if data[:6] != MAGIC[:6]:
        raise StorageError("these bytes are no snapshot of a watch")
    if data[:8] != MAGIC:
        raise StorageError(f"the snapshot is of version {data[6:8].hex()}, and this program reads {MAGIC[6:].hex()}")
    if len(data) > MAX_BYTES:
        raise StorageError(f"the snapshot has {len(data)} bytes, more than {MAX_BYTES}")
    body = memoryview(data)[40:]
    if hashlib.sha256(body).digest() != data[8:40]:
        raise StorageError("the snapshot is damaged: its checksum is another. Restore an older one")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as loaded:
            header = json.loads(loaded["header"].tobytes())
            parts: dict[str, dict[str, npt.NDArray[Any]]] = {}
            for key in loaded.files:
                part, slash, name = key.partition("/")
                if slash:
                    parts.setdefault(part, {})[name] = loaded[key]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise StorageError(f"the snapshot cannot be read: {error}") from error
    return Snapshot(header, parts)
