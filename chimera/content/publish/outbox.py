"""The default way out: a folder, where each post is a file that people, or other programs, take further."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from chimera.content.accounts import Account
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.publisher import AccountPublisher
from chimera.content.publish.types import Claim
from chimera.content.rules.provenance import picture_bytes
from chimera.core.errors import InputError, StorageError
from chimera.core.hashing import canonical_json
from chimera.security.safety.findings import Output

TAKEN_DOWN: Final = "taken-down"
_ENDINGS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}


class OutboxPublisher(AccountPublisher):
    """Puts each part into `folder`/ACCOUNT as KEY.json, its pictures beside it under their SHA-256.

    A file appears whole, durably and once: it is written under another name and then linked to its own, which fails
    where that is taken (link(2)). What is taken down moves to the folder `taken-down`.
    """

    def __init__(self, account: Account, ledger: PostLedger, *, folder: Path) -> None:
        super().__init__(account, ledger)
        self.folder = folder / account.name

    async def _send(self, output: Output) -> str:
        return await asyncio.to_thread(self._put, output, self._claimed(output))

    def _put(self, output: Output, claim: Claim) -> str:
        pictures = [(picture, picture_bytes(picture)) for picture in output.attached]
        attached: list[JsonValue] = []
        for picture, data in pictures:
            file = f"{picture.sha256}.{_ENDINGS[picture.media_type]}"
            self._write(file, data)
            told: dict[str, JsonValue] = {"file": file, "sha256": picture.sha256, "alt": picture.alt}
            attached.append({**told, "media_type": picture.media_type})
        document: dict[str, JsonValue] = {
            "key": output.key,
            "account": self.account.name,
            "handle": self.account.handle,
            "operator": self.account.operator.model_dump(mode="json"),
            "automated": True,
            "audience": output.audience,
            "text": output.text,
            "language": output.language,
            "reply_to": claim.replies[-1] if claim.replies else output.reply_to,
            "attached": attached,
            "at_s": claim.at_s,
        }
        name = f"{output.key}.json"
        self._write(name, canonical_json(document).encode())
        return name

    def _write(self, name: str, data: bytes) -> None:
        """The file with this data, whole and on the disk; as it is, if it is there."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=self.folder, prefix=".draft-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                with suppress(FileExistsError):
                    os.link(draft, self.folder / name)
            finally:
                Path(draft).unlink()
            _settle(self.folder)
        except OSError as error:
            raise StorageError(f"{self.folder / name}: {error.strerror}") from error

    async def find(self, claim: Claim) -> str:
        name = f"{claim.key}.json"
        there = any((folder / name).exists() for folder in (self.folder, self.folder / TAKEN_DOWN))
        return name if there else ""

    async def take_down(self, reference: str) -> None:
        if Path(reference).name != reference or not reference.endswith(".json"):
            raise InputError(f"{reference!r} is no file of an outbox")
        gone = self.folder / TAKEN_DOWN
        try:
            gone.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                os.replace(self.folder / reference, gone / reference)
            _settle(gone)
            _settle(self.folder)
        except OSError as error:
            raise StorageError(f"{self.folder / reference}: {error.strerror}") from error


def _settle(folder: Path) -> None:
    """Make the folder's names durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
