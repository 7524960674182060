"""The keys that tokens are signed with: one signs, those before it still verify until their last token has ended.

They lie in one private file beside the store, which is replaced whole, so that a reader sees all of it or the one
before. Each lookup looks whether the file is still the one that was read, so other processes follow a rotation at once.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from chimera.core.clock import Clock
from chimera.core.errors import InputError, MissingExtra, SecurityError
from chimera.security.strangers import is_strangers

Algorithm = Literal["EdDSA", "ES256"]

ALGORITHMS: tuple[Algorithm, ...] = ("EdDSA", "ES256")
"""Signatures only: with a shared secret, whoever verifies could sign."""

MAX_KEYS = 16
MAX_BYTES = 64_000
FILE = "signing-keys.json"

_KID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key and the one algorithm that it is for. `ends_at` (wall seconds) is set once another signs in its place."""

    kid: str
    algorithm: Algorithm
    made_at: float
    ends_at: float | None
    private: Any = field(repr=False)
    public: Any = field(repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a signing key does not leave its process")

    def jwk(self) -> dict[str, str]:
        """The public half, as RFC 7517 and RFC 8037 write it."""
        return {**_public_numbers(self.public), "kid": self.kid, "alg": self.algorithm, "use": "sig"}


class KeyRing:
    """The signing keys in `folder`. A retired key verifies for `keep_s` more: as long as a token of it can last.

    Raises SecurityError if the file is damaged, or other users can read it.
    """

    def __init__(self, folder: Path, *, clock: Clock, keep_s: float, algorithm: Algorithm = "EdDSA") -> None:
        if algorithm not in ALGORITHMS:
            raise InputError(f"no such algorithm for signing: {algorithm!r}; there are {', '.join(ALGORITHMS)}")
        if not 0.0 < keep_s <= 366 * 86_400:
            raise InputError(f"a retired key verifies for up to a year more, not {keep_s} s")
        _needs_jwt()
        self.path = folder / FILE
        self._clock = clock
        self._keep_s = keep_s
        self._algorithm = algorithm
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, SigningKey] = {}

    def current(self) -> SigningKey:
        """The key that signs. It is made if there is none."""
        key = self._signing()
        if key is None:
            with self._locked():
                key = self._signing()
                if key is None:
                    key = self._new()
                    self._save([key])
        return key

    def find(self, kid: object) -> SigningKey | None:
        """The key of this id, if tokens of it are still good."""
        if not isinstance(kid, str) or _KID.fullmatch(kid) is None:
            return None
        key = self._read().get(kid)
        return None if key is None or (key.ends_at is not None and key.ends_at <= self._clock.now()) else key

    def rotate(self) -> str:
        """Sign with a new key from now on. Its id. Raises InputError if too many older ones still verify."""
        with self._locked():
            return self._rotate(self._kept())

    def drop(self, kid: str) -> None:
        """Refuse every token of this key from now on: it is known to others. If it signs, a new one does.

        Raises InputError for a key there is not: the one that was meant would go on.
        """
        with self._locked():
            there = self._kept()
            kept = [key for key in there if key.kid != kid]
            if len(kept) == len(there):
                raise InputError(f"no signing key {str(kid)[:64]!a} is in use: {', '.join(key.kid for key in there)}")
            if any(key.ends_at is None for key in kept):
                self._save(kept)
            else:
                self._rotate(kept)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys that tokens may be verified with (RFC 7517, section 5)."""
        self.current()
        return {"keys": [key.jwk() for key in self._kept()]}

    def _kept(self) -> list[SigningKey]:
        now = self._clock.now()
        return [key for key in self._read().values() if key.ends_at is None or key.ends_at > now]

    def _signing(self) -> SigningKey | None:
        return next((key for key in self._read().values() if key.ends_at is None), None)

    def _rotate(self, kept: Sequence[SigningKey]) -> str:
        if len(kept) >= MAX_KEYS:
            raise InputError(f"{MAX_KEYS} signing keys are still in use: wait until the oldest has ended, or drop one")
        ends_at, new = self._clock.now() + self._keep_s, self._new()
        retired = [
            SigningKey(old.kid, old.algorithm, old.made_at, old.ends_at or ends_at, old.private, old.public)
            for old in kept
        ]
        self._save([new, *retired])
        return new.kid

    def _new(self) -> SigningKey:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        private: Any
        if self._algorithm == "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        else:
            private = ec.generate_private_key(ec.SECP256R1())
        return SigningKey(secrets.token_hex(8), self._algorithm, self._clock.now(), None, private, private.public_key())

    def _read(self) -> dict[str, SigningKey]:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return {}
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            with self._lock:
                if found.st_mode & 0o077:
                    raise SecurityError(f"{self.path} can be read by other users: chmod 600 it, then rotate the keys")
                if is_strangers(found):
                    raise SecurityError(f"{self.path} is another user's: remove it, which logs everybody out")
                if found.st_size > MAX_BYTES:
                    raise SecurityError(f"{self.path} is larger than {MAX_BYTES} bytes: restore a copy")
                self._keys = _parse(self.path)
                self._seen = seen
        return self._keys

    def _save(self, keys: Sequence[SigningKey]) -> None:
        text = json.dumps({"version": 1, "keys": [_written(key) for key in keys]})
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{FILE}.")  # 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
            self._seen = None
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process, and one thread of it, changes the file at a time."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _written(key: SigningKey) -> dict[str, object]:
    from cryptography.hazmat.primitives import serialization as s

    pem = key.private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    return {
        "kid": key.kid,
        "alg": key.algorithm,
        "made_at": key.made_at,
        "ends_at": key.ends_at,
        "private": pem.decode(),
    }


def _parse(path: Path) -> dict[str, SigningKey]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    kinds = {"EdDSA": ed25519.Ed25519PrivateKey, "ES256": ec.EllipticCurvePrivateKey}
    keys: dict[str, SigningKey] = {}
    try:
        for entry in json.loads(path.read_bytes())["keys"]:
            kid, algorithm, private = entry["kid"], entry["alg"], load_pem_private_key(entry["private"].encode(), None)
            ends_at = None if entry["ends_at"] is None else float(entry["ends_at"])
            if _KID.fullmatch(kid) is None or not isinstance(private, kinds[algorithm]):
                raise ValueError(kid)
            keys[kid] = SigningKey(kid, algorithm, float(entry["made_at"]), ends_at, private, private.public_key())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SecurityError(f"{path} is damaged: restore a copy, or remove it, which logs everybody out") from None
    return keys


def _public_numbers(public: Any) -> dict[str, str]:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": _b64(public.public_bytes_raw())}
    numbers = public.public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": _b64(numbers.x.to_bytes(32)), "y": _b64(numbers.y.to_bytes(32))}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _needs_jwt() -> None:
    try:
        import cryptography
        import jwt  # noqa: F401
    except ImportError:
        raise MissingExtra("pyjwt", "security") from None
    del cryptography
