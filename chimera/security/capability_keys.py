"""The root keys that capabilities are signed by: a folder with a file for each, named by its id, for the owner alone.

The key of the highest id signs; the others are there for what they have signed, until they are retired. Other processes
see a new or retired key within half a second: ids are never used twice, so that only names have to be read again.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, Protocol

from chimera.core.clock import Clock
from chimera.core.errors import InputError, SecurityError
from chimera.security.strangers import is_strangers

MAX_KEYS = 16
REREAD_S = 0.5
KEY_BYTES = 32

_FILE = re.compile(r"capability-(\d{1,9})\.key")


class RootKeys(Protocol):
    """What an authority asks for keys."""

    def public_key(self, key_id: int) -> bytes | None:
        """The 32 bytes of an Ed25519 public key; None where no such key is trusted."""
        ...

    def signing_key(self) -> tuple[int, bytes]:
        """The id and the 32 secret bytes of the key that signs now. Raises SecurityError where there is none."""
        ...


class PublicKeys:
    """Public keys by id: for a verifier that issues nothing, on another machine."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        if len(keys) > MAX_KEYS or any(len(key) != KEY_BYTES for key in keys.values()):
            raise InputError(f"give at most {MAX_KEYS} public keys of {KEY_BYTES} bytes")
        self._keys = dict(keys)

    def public_key(self, key_id: int) -> bytes | None:
        return self._keys.get(key_id)

    def signing_key(self) -> tuple[int, bytes]:
        raise SecurityError("only public keys are here: issue capabilities where the folder of keys is")


class KeyFolder:
    """The keys in the folder at `path`, which is made with a first key if need be.

    Raises SecurityError for a folder or file that others can read, or that holds no key.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[int, tuple[bytes, bytes]] = {}
        self._read_at_s = clock.monotonic()
        if not path.exists():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._read()
        if not self._keys:
            self._make(1)

    def __repr__(self) -> str:
        return f"KeyFolder({str(self.path)!r}, ids={sorted(self._keys)})"

    def __reduce__(self) -> NoReturn:
        raise SecurityError(
            "root keys are not sent about: hand on `public_keys()`, or the folder's path on one machine"
        )

    def public_key(self, key_id: int) -> bytes | None:
        self._refresh()
        found = self._keys.get(key_id)
        return None if found is None else found[1]

    def signing_key(self) -> tuple[int, bytes]:
        self._refresh()
        keys = self._keys
        if not keys:
            raise SecurityError(f"{self.path} holds no key any more: restore one, or start with a new folder")
        newest = max(keys)
        return newest, keys[newest][0]

    def public_keys(self) -> PublicKeys:
        """The public halves, as they are now."""
        self._refresh()
        return PublicKeys({key_id: public for key_id, (_, public) in self._keys.items()})

    def rotate(self) -> int:
        """Make a new key, which signs from now on; its id. Raises SecurityError when MAX_KEYS are there already."""
        with self._lock:
            self._read()
            if len(self._keys) >= MAX_KEYS:
                raise SecurityError(f"{self.path} holds {MAX_KEYS} keys: retire those whose capabilities have expired")
            return self._make(max(self._keys, default=0) + 1)

    def retire(self, key_id: int) -> None:
        """Trust a key no longer, and so nothing that it has signed. Raises InputError for the key that signs now."""
        with self._lock:
            self._read()
            if key_id not in self._keys or key_id == max(self._keys):
                raise InputError(f"key {key_id} is unknown or signs now: rotate first, then retire an earlier key")
            self._file(key_id).unlink(missing_ok=True)
            _sync(self.path)
            self._keys = {known: key for known, key in self._keys.items() if known != key_id}

    def _refresh(self) -> None:
        now_s = self._clock.monotonic()
        if now_s - self._read_at_s < REREAD_S:
            return
        with self._lock:
            self._read()
            self._read_at_s = now_s  # not before: what cannot be read is refused until it can

    def _read(self) -> None:
        _private_only(self.path)
        ids = sorted(int(match[1]) for name in os.listdir(self.path) if (match := _FILE.fullmatch(name)))[-MAX_KEYS:]
        found = {key_id: self._keys.get(key_id) or _load(self._file(key_id)) for key_id in ids}
        self._keys = {key_id: key for key_id, key in found.items() if key}

    def _file(self, key_id: int) -> Path:
        return self.path / f"capability-{key_id}.key"

    def _make(self, key_id: int) -> int:
        """Write a key under the first id from `key_id` on that no other process takes meanwhile."""
        private = secrets.token_bytes(KEY_BYTES)
        draft = self.path / f".{secrets.token_hex(8)}"
        with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(private.hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            while True:
                with suppress(FileExistsError):
                    os.link(draft, self._file(key_id))
                    break
                key_id += 1
        finally:
            draft.unlink()
        _sync(self.path)
        self._read()
        return key_id


def _load(file: Path) -> tuple[bytes, bytes] | None:
    """The private and the public key of a file; None if it has just been retired."""
    from chimera.security.biscuits import public_of

    if not file.exists():
        return None
    _private_only(file)
    try:
        private = bytes.fromhex(file.read_text("ascii"))
    except (OSError, ValueError):
        private = b""
    if len(private) != KEY_BYTES:
        raise SecurityError(f"{file} holds no key: restore it, or remove it and all that it has signed is refused")
    return private, public_of(private)


def _private_only(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise SecurityError(f"{path} cannot be read ({error.strerror}): restore it") from None
    if is_strangers(status):
        raise SecurityError(f"{path} is another user's: restore your own, or start with a new folder")
    if status.st_mode & 0o077:
        raise SecurityError(f"{path} can be read by others: chmod go-rwx it, and rotate the keys if they may have been")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
