"""The one place that knows biscuit: signed blocks in, plain Python values out.

Of a token whose signatures hold, `Opened` tells each block's text and id, and whether its Datalog allows a request.
Import it late: biscuit is an optional package. It is written in Rust, where a defect is a panic, which pyo3 raises
outside of Exception; `closed` turns every failure into NotOpened, so that nothing that goes wrong can pass for a yes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any

from chimera.core.errors import MissingExtra

try:
    from biscuit_auth import (
        Algorithm,
        AuthorizerBuilder,
        Biscuit,
        BiscuitBuilder,
        BlockBuilder,
        KeyPair,
        PrivateKey,
        PublicKey,
        UnverifiedBiscuit,
    )
except ImportError:
    raise MissingExtra("biscuit-python", "security") from None

ED25519: Any = Algorithm.Ed25519  # type: ignore[attr-defined]

POLICIES = """
allow if operation($o), right($o, $p), resource($p);
allow if operation($o), under($o, $p), resource($r), $r.starts_with($p);
"""

MAX_FACTS = 256
MAX_ITERATIONS = 16


class NotOpened(Exception):
    """The token is not what it should be. Its text is for the log of the verifier, not for whoever sent the token."""


@contextmanager
def closed(what: str) -> Iterator[None]:
    """Any failure within is a NotOpened."""
    try:
        yield
    except NotOpened:
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise NotOpened(what) from None
        raise


def public_of(private: bytes) -> bytes:
    """The 32 bytes of the public key that belongs to the 32 of a private one (Ed25519)."""
    return bytes(KeyPair.from_private_key(_private(private)).public_key.to_bytes())


def build(source: str, private: bytes, key_id: int) -> str:
    """A token of one block, in URL-safe base64."""
    builder = BiscuitBuilder(source)
    builder.set_root_key_id(key_id)
    return builder.build(_private(private)).to_base64()


def append(text: str, public: bytes, source: str) -> str:
    """The token with one more block. No secret is needed but the one in the token. Raises NotOpened."""
    with closed("not a token of its key"):
        return Biscuit.from_base64(text, _public(public)).append(BlockBuilder(source)).to_base64()


def block_id(signature: str) -> str:
    """By what a block is revoked: 128 bits of the digest of its signature, in hex, as signatures are not for logs."""
    return hashlib.sha256(bytes.fromhex(signature)).hexdigest()[:32]


def peek(text: str, max_blocks: int) -> tuple[list[str], list[str]]:
    """The blocks' texts and ids. Nothing is checked but that they can be read. Raises NotOpened."""
    with closed("cannot be read"):
        found = UnverifiedBiscuit.from_base64(text)
        blocks = found.block_count()
        if blocks > max_blocks:
            raise NotOpened("too many blocks")
        return [found.block_source(n) for n in range(blocks)], [block_id(s) for s in found.revocation_ids]


class Opened:
    """A token whose signatures hold, by the root key that it names.

    `public_key` gives the 32 bytes of a key by its id, or None. Raises NotOpened: unknown key, signatures that do not
    hold, a block signed by a third party, more than `max_blocks`, or another spelling of the same bytes.
    """

    def __init__(self, text: str, public_key: Callable[[int], bytes | None], max_blocks: int) -> None:
        with closed("signatures"):
            unverified = UnverifiedBiscuit.from_base64(text)
            blocks = range(unverified.block_count())
            if len(blocks) > max_blocks:
                raise NotOpened("too many blocks")
            key_id = unverified.root_key_id()
            public = None if key_id is None else public_key(key_id)
            if public is None:
                raise NotOpened("unknown root key")
            self._biscuit = unverified.verify(_public(public))
            if self._biscuit.to_base64() != text:
                raise NotOpened("another spelling of a token")
            if any(self._biscuit.block_external_key(n) is not None for n in blocks):
                raise NotOpened("a block of a third party")
            self.public: bytes = public
            self.sources = [self._biscuit.block_source(n) for n in blocks]
            self.ids = [block_id(signature) for signature in self._biscuit.revocation_ids]
            if len(self.ids) != len(blocks):
                raise NotOpened("blocks without an id")

    def authorize(self, facts: str, values: Mapping[str, Any], max_time_s: float) -> None:
        """Raises NotOpened unless the first block gives the right and every block's checks hold, within the limits."""
        with closed("not allowed"):
            builder: Any = AuthorizerBuilder(facts + POLICIES, dict(values))
            limits = builder.limits()
            limits.max_time = timedelta(seconds=max_time_s)
            limits.max_facts = MAX_FACTS
            limits.max_iterations = MAX_ITERATIONS
            builder.set_limits(limits)
            builder.build(self._biscuit).authorize()


def _private(private: bytes) -> PrivateKey:
    make: Any = PrivateKey.from_bytes
    key: PrivateKey = make(private, ED25519)
    return key


@lru_cache(maxsize=64)
def _public(public: bytes) -> PublicKey:
    make: Any = PublicKey.from_bytes
    key: PublicKey = make(public, ED25519)
    return key
