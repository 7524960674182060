"""Whose mission it is, told by its id: nothing has to be kept, and nothing is forgotten at a restart.

The id holds a random part, and keyed hashes over it and its owner, and over it and its owner's tenant. Only who has the
key can make one for an owner, and whoever has it sees at once whether an id is somebody's.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

PREFIX = "mission-"

NONCE, TAG = 12, 16
"""Hex characters."""


class Owned:
    """`key` has at least 16 bytes."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("the key needs at least 16 bytes")
        self._key = key

    @classmethod
    def kept_in(cls, path: Path) -> Owned:
        """With the key in that file, which is made at the first use, for its owner alone. Blocks."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        if not path.exists():
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)  # whole or not at all, and the first one stays
            draft.unlink()
        return cls(path.read_bytes())

    def new(self, owner: str, tenant: str = "") -> str:
        """An id for a mission of `owner`."""
        nonce = secrets.token_hex(NONCE // 2)
        return f"{PREFIX}{nonce}{self._tag('owner', owner, nonce)}{self._tag('tenant', tenant, nonce)}"

    def is_of(self, mission_id: str, owner: str) -> bool:
        return self._has(mission_id, NONCE, "owner", owner)

    def is_in(self, mission_id: str, tenant: str) -> bool:
        """Whether it is of somebody of this tenant."""
        return self._has(mission_id, NONCE + TAG, "tenant", tenant)

    def _has(self, mission_id: str, at: int, kind: str, name: str) -> bool:
        told = mission_id.removeprefix(PREFIX)
        if len(told) != NONCE + 2 * TAG or not mission_id.startswith(PREFIX):
            return False
        found = told[at : at + TAG].encode(errors="replace")
        return hmac.compare_digest(found, self._tag(kind, name, told[:NONCE]).encode())

    def _tag(self, kind: str, name: str, nonce: str) -> str:
        said = f"{kind}:{len(name)}:{name}:{nonce}".encode(errors="surrogatepass")
        return hmac.digest(self._key, said, hashlib.sha256).hex()[:TAG]
