"""Pictures with an origin: none goes out without credentials that hold and name the account that shows it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from chimera.content.accounts import Account
from chimera.content.provenance.c2pa import Identity, State, verify
from chimera.content.provenance.registry import Made
from chimera.content.rules.phrases import whole
from chimera.core.errors import InputError, MissingExtra
from chimera.security.safety.findings import Attachment, Finding, Output

MAX_PICTURE_BYTES: Final = 1_000_000
"""Bluesky's limit for an image, kept everywhere."""

_BEGINNINGS: Final = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


class MadeHere(Protocol):
    """What this house made: a `Registry`."""

    def find(self, data: bytes) -> tuple[Made, ...]: ...


class ProvenanceCheck:
    """Asks of each picture for C2PA credentials by which it is untouched and this account's and operator's.

    Anybody can sign in anybody's name. So with a `registry`, the account has made these very bytes too. What cannot be
    checked is blocked: a file that is gone, a format without credentials, a missing `c2pa-python`.
    """

    name = "provenance"

    def __init__(self, accounts: Mapping[str, Account], *, registry: MadeHere | None = None) -> None:
        self._accounts = dict(accounts)
        self._registry = registry

    def findings(self, output: Output) -> Iterator[Finding]:
        account = self._accounts.get(output.channel)
        for picture in output.attached:
            rule, advice = self._wrong(picture, account)
            if rule:
                yield whole(rule, output, advice)

    def _wrong(self, picture: Attachment, account: Account | None) -> tuple[str, str]:
        """The rule that it breaks, and what to do; nothing for one that may be shown."""
        if account is None:
            return "provenance.identity", "declare the account whose picture this is"
        try:
            data = picture_bytes(picture)
            found = verify(data, picture.media_type)
        except (InputError, MissingExtra) as error:
            return "provenance.unchecked", str(error)
        if found.state is State.NONE:
            return "provenance.missing", f"{picture.path.name} has no content credentials: have the studio sign it"
        if found.state is State.INVALID:
            return "provenance.invalid", f"{picture.path.name} was changed after it was signed: have it signed anew"
        if found.identity != Identity(account=account.name, operator=account.operator.name):
            return "provenance.identity", f"the credentials of {picture.path.name} do not name {account.name}"
        if self._registry is not None and not any(
            one.how == "same" and one.account == account.name for one in self._registry.find(data)
        ):
            return "provenance.unregistered", f"{picture.path.name} is not among what {account.name} has made"
        return "", ""


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
