"""Keys that words are signed by, and whose word counts as whose: Ed25519 (RFC 8032).

`SigningKey` is the port that a key service can fill; `FileKey` is a key in a file of this machine. A `Keyring` is what
everybody else has: public keys by whom they belong to, the CFO's old ones among them, since what they signed stays.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from chimera.core.errors import InputError, MissingExtra, SecurityError
from chimera.security.strangers import is_strangers
from chimera.treasury.types import Approval, CfoDecision, PaymentRequest, Signed

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError:
    raise MissingExtra("cryptography", "security") from None

MAX_FILE_BYTES = 10_000
MAX_PEOPLE = 1_000
MAX_KEYS_EACH = 32
PUBLIC_BYTES = 32
REMEMBERED = 50_000
"""Good signatures that are not checked again: each is asked for when a word is written, and when money moves on it."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-:]{0,95}")
_NAMED = "key-id: "

W = TypeVar("W", bound=Signed)


def write_key(path: Path, data: bytes) -> None:
    """A secret in a new file (mode 0600), durably. Its folder is made for the owner alone if it is not there.

    Raises SecurityError for a folder that others can write to or read, and InputError if the file is there.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _private_only(path.parent)
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise InputError(f"{path} is there already: a key is never written over") from None
    with open(file, "wb") as writing:
        writing.write(data)
        writing.flush()
        os.fsync(writing.fileno())
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def verifies(public: bytes, signature: str, payload: bytes) -> bool:
    """Whether an Ed25519 signature, in hex, is good under that public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(signature), payload)
    except (InvalidSignature, ValueError):
        return False
    return True


class SigningKey(Protocol):
    """Signs, and does not show how."""

    @property
    def key_id(self) -> str: ...

    @property
    def public(self) -> bytes:
        """32 bytes."""
        ...

    def sign(self, payload: bytes) -> bytes:
        """64 bytes. Raises SecurityError where the key is out of reach."""
        ...


class FileKey:
    """A key in a file that only its owner reads (PKCS8 in PEM, mode 0600), below a line with its id.

    It stays in this process: it cannot be pickled, copied or shown.
    """

    def __init__(self, key_id: str, private: Ed25519PrivateKey) -> None:
        if not _ID.fullmatch(key_id):
            raise InputError(f"{key_id!r:.60} is no key id: use letters, digits and . _ - :, such as cfo-1")
        self.key_id = key_id
        self.public = private.public_key().public_bytes_raw()
        self._private = private

    @classmethod
    def create(cls, path: Path, key_id: str, passphrase: str = "") -> FileKey:
        """A new key in a new file. Raises what `write_key` does."""
        key = cls(key_id, Ed25519PrivateKey.generate())
        cipher = _cipher(passphrase)
        pem = key._private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)
        write_key(path, f"{_NAMED}{key_id}\n".encode() + pem)
        return key

    @classmethod
    def open(cls, path: Path, passphrase: str = "") -> FileKey:
        """The key in the file at `path`.

        Raises SecurityError for a file or folder that others can read or own, and for one that holds no such key.
        """
        _private_only(path.parent)
        head, _, pem = _read(path).partition("\n")
        if not head.startswith(_NAMED):
            raise SecurityError(f"{path} holds no key of the treasury: restore it")
        try:
            private = serialization.load_pem_private_key(pem.encode(), passphrase.encode() or None)
        except (ValueError, TypeError):
            raise SecurityError(f"{path} cannot be read as a key: restore it, or give its passphrase") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise SecurityError(f"{path} holds a key of another kind: the treasury signs with Ed25519")
        return cls(head.removeprefix(_NAMED), private)

    def sign(self, payload: bytes) -> bytes:
        return self._private.sign(payload)

    def __repr__(self) -> str:
        return f"FileKey({self.key_id!r}, public={self.public.hex()})"

    def __reduce__(self) -> NoReturn:
        raise SecurityError("a signing key stays in its process: hand on its public half")

    def __copy__(self) -> NoReturn:
        self.__reduce__()

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__reduce__()


class Keyring:
    """Public keys: `cfo` by key id, and those of `people` by who they are. It is what a ledger takes for `verify`.

    Raises InputError for what is no key, and for a key that two have: one person would be two.
    """

    def __init__(self, *, cfo: Mapping[str, bytes], people: Mapping[str, Mapping[str, bytes]] | None = None) -> None:
        people = people or {}
        if len(people) > MAX_PEOPLE or any(len(keys) > MAX_KEYS_EACH for keys in (cfo, *people.values())):
            raise InputError(f"a keyring holds at most {MAX_PEOPLE} people, with {MAX_KEYS_EACH} keys each")
        self.cfo = dict(cfo)
        self.people = {who: dict(keys) for who, keys in people.items()}
        self._cfo = _loaded("the CFO", cfo)
        self._people = {who: _loaded(who, keys) for who, keys in people.items()}
        self._good: dict[bytes, None] = {}
        self._lock = threading.Lock()
        holders: dict[bytes, str] = {}
        for who, keys in (("the CFO", cfo), *people.items()):
            for public in keys.values():
                if holders.setdefault(bytes(public), who) != who:
                    raise InputError(
                        f"{holders[bytes(public)]} and {who} have the same key: each needs one of their own"
                    )

    def verify(self, word: Signed) -> bool:
        """Whether it is signed by who is said to have: a decision by the CFO, an approval by exactly its approver."""
        match word:
            case CfoDecision():
                key = self._cfo.get(word.key_id)
            case Approval():
                key = self._people.get(word.approver, {}).get(word.key_id)
            case _:
                return False
        if key is None or not word.signature:
            return False
        payload, signature = word.payload(), bytes.fromhex(word.signature)
        known = hashlib.sha256(key.public_bytes_raw() + signature + payload).digest()
        with self._lock:
            if known in self._good:
                return True
        try:
            key.verify(signature, payload)
        except InvalidSignature:
            return False
        with self._lock:
            self._good[known] = None
            if len(self._good) > REMEMBERED:
                del self._good[next(iter(self._good))]
        return True


def signed(word: W, key: SigningKey) -> W:
    """The same word under that key, with its id. Whoever calls it answers for what the word says."""
    named = word.model_copy(update={"key_id": key.key_id, "signature": ""})
    return named.model_copy(update={"signature": key.sign(named.payload()).hex()})


def approve(
    request: PaymentRequest,
    *,
    approver: str,
    key: SigningKey | None = None,
    at: int,
    expires_at: int,
    refuse: bool = False,
) -> Approval:
    """What a person says of exactly this request, from `at` until `expires_at` (microseconds), under their key."""
    word = Approval(
        request_id=request.id,
        request_digest=request.digest(),
        approver=approver,
        verdict="refused" if refuse else "approved",
        at=at,
        expires_at=expires_at,
    )
    return word if key is None else signed(word, key)


def public_key(text: str) -> bytes:
    """The 32 bytes of a public key in hex. Raises InputError."""
    try:
        public = bytes.fromhex(text)
    except ValueError:
        public = b""
    if len(public) != PUBLIC_BYTES:
        raise InputError(f"{text!r:.80} is no public key: write its {PUBLIC_BYTES} bytes in hex")
    return public


def private_text(path: Path, max_bytes: int = MAX_FILE_BYTES) -> str:
    """A small file that only its owner can read. Raises SecurityError if others can, or if it is another's."""
    return _read(path, max_bytes)


def _loaded(who: str, keys: Mapping[str, bytes]) -> dict[str, Ed25519PublicKey]:
    if any(len(public) != PUBLIC_BYTES for public in keys.values()):
        raise InputError(f"a public key of {who} has not {PUBLIC_BYTES} bytes")
    return {key_id: Ed25519PublicKey.from_public_bytes(public) for key_id, public in keys.items()}


def _cipher(passphrase: str) -> serialization.KeySerializationEncryption:
    if not passphrase:
        return serialization.NoEncryption()
    return serialization.BestAvailableEncryption(passphrase.encode())


def _read(path: Path, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Checked when it is open: what is looked at first and opened then may be another file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SecurityError(f"{path} cannot be read ({error.strerror}): restore it") from None
    with open(file, "rb") as reading:
        _check(path, os.fstat(file))
        data = reading.read(max_bytes + 1)
    try:
        if len(data) > max_bytes:
            raise ValueError
        return data.decode()
    except ValueError:
        raise SecurityError(f"{path} is not what the treasury has written: restore it") from None


def _private_only(path: Path) -> None:
    try:
        _check(path, path.lstat())
    except OSError as error:
        raise SecurityError(f"{path} cannot be read ({error.strerror}): restore it") from None


def _check(path: Path, status: os.stat_result) -> None:
    if is_strangers(status):
        raise SecurityError(f"{path} is another user's: restore your own, or start with a new key")
    if status.st_mode & 0o077:
        raise SecurityError(f"{path} can be read by others: chmod go-rwx it, and make a new key if it may have been")
