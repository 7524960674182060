"""Keys as files: set-up is run by the verifier or an auditor, who hands the proving key to whoever is to prove.

Set-up draws secrets and forgets them. Who keeps them can forge proofs of anything, so a verifying key is worth no more
than whoever made it, and one that comes along with a batch is worth nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError

from chimera.core.errors import ProofError, StorageError
from chimera.sandbox.proofs.circuit import Circuit
from chimera.sandbox.proofs.system import VerifyingKey, open_system

PROVING_FILE = "proving.key"

VERIFYING_FILE = "verifying.json"

MAX_PROVING_BYTES = 64 << 20

MAX_VERIFYING_BYTES = 1 << 20


def set_up(circuit: Circuit, folder: Path, *, made_by: str) -> VerifyingKey:
    """Make keys for a circuit and put them in `folder`, as `proving.key` and `verifying.json`.

    Takes 20 seconds for a circuit of 1,024 cells. Raises StorageError where there are keys already: those of earlier
    batches would be lost.
    """
    files = [folder / PROVING_FILE, folder / VERIFYING_FILE]
    for file in files:
        if file.exists():
            raise StorageError(f"{file} is there already: choose another folder, or move it away")
    proving, verifying = open_system().set_up(circuit, made_by=made_by)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in zip(files, (proving, verifying.model_dump_json(indent=1).encode()), strict=True):
            with file.open("xb") as opened:
                opened.write(data)
    except OSError as error:
        raise StorageError(f"the keys cannot be written to {folder}: {error.strerror}") from error
    return verifying


def read_verifying_key(path: Path) -> VerifyingKey:
    """Raises StorageError where it cannot be read, ProofError where it is no verifying key."""
    try:
        return VerifyingKey.model_validate_json(_read(path, MAX_VERIFYING_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        raise ProofError(f"{path} is no verifying key: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def read_proving_key(path: Path, verifying: VerifyingKey) -> bytes:
    """The proving key that belongs to a verifying key. Raises ProofError for any other: its proofs would be refused."""
    data = _read(path, MAX_PROVING_BYTES)
    if hashlib.sha256(data).hexdigest() != verifying.proving_key_sha256:
        raise ProofError(f"{path} is not the proving key that {verifying.made_by!r} made with this verifying key")
    return data


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > most_bytes:
        raise ProofError(f"{path} has more than the {most_bytes} bytes of a key")
    return data
