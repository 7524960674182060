"""What all accounts' publishers have in common: they send what is claimed and fully checked, and find it again."""

from __future__ import annotations

import hashlib
import os
import stat
from abc import abstractmethod
from typing import Any, Final

from chimera.content.accounts import Account
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.types import Claim
from chimera.content.rules.every import CONTENT_CHECKS
from chimera.core.errors import Forbidden, InputError
from chimera.security.safety.cleared import Publisher
from chimera.security.safety.findings import Attachment, Output

MAX_PICTURE_BYTES: Final = 1_000_000
"""Bluesky's limit for an image, kept everywhere."""

_BEGINNINGS: Final = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


class AccountPublisher(Publisher):
    """Sends by one account. It asks for all checks of content and a disclosure, and no subclass asks for less.

    Errors tell what is known: `InputError`, the platform refused it, and would again; `RateLimited`, it was refused for
    now; `Forbidden`, the account may not; `SourceError`, the platform may have it or not: look before sending again.
    """

    requires = CONTENT_CHECKS
    public = True

    def __init__(self, account: Account, ledger: PostLedger) -> None:
        self.account = account
        self.channel = account.name
        self._ledger = ledger

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.public or not cls.requires >= CONTENT_CHECKS:
            raise TypeError(f"{cls.__name__}: an account's publisher asks for all checks and a disclosure")

    @abstractmethod
    async def find(self, claim: Claim) -> str:
        """The reference of the part that was sent under this claim; "" if it certainly is not out."""

    @abstractmethod
    async def take_down(self, reference: str) -> None:
        """Delete what has this reference; fine if it is gone already."""

    async def close(self) -> None:
        """Let go of connections."""
        return

    def _claimed(self, output: Output) -> Claim:
        """The right to send it, which sending asks for first: so nothing passes the caps, or goes out twice."""
        return self._ledger.claimed(output.key, self.account.name)


def picture_bytes(picture: Attachment) -> bytes:
    """The bytes that were reviewed, and no others. Raises InputError if the file is not there, too large or changed."""
    try:
        handle = os.open(picture.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"{picture.path} is no plain file")
            data = file.read(MAX_PICTURE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{picture.path}: {error.strerror}: the picture is gone") from None
    if len(data) > MAX_PICTURE_BYTES:
        raise InputError(f"{picture.path}: a picture has at most {MAX_PICTURE_BYTES} bytes")
    if hashlib.sha256(data).hexdigest() != picture.sha256:
        raise InputError(f"{picture.path} is another file than the one that was reviewed: hand the post in anew")
    if not data.startswith(_BEGINNINGS[picture.media_type]):
        raise InputError(f"{picture.path} is no {picture.media_type}")
    return data


def same_handle(account: Account, found: str) -> None:
    """Raises Forbidden if the platform knows the credentials' owner by another handle than the declared one."""
    found_as = account.model_copy(update={"handle": found}).identity
    if found_as != account.identity:
        raise Forbidden(f"the credentials of {account.name} are those of {found}: an account has one identity")
