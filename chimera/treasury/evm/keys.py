"""Keys of Ethereum's kind (secp256k1): in a file that only its owner reads, and in one process.

libsecp256k1 (coincurve) signs: it is many times faster than Python, and takes the same time whatever the key is.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import NoReturn

from chimera.core.errors import InputError, MissingExtra, SecurityError
from chimera.treasury.evm.types import Envelope, SafeSignature, Sealed
from chimera.treasury.keys import private_text, write_key

try:
    from coincurve import PrivateKey
    from eth_account import Account
    from eth_account.typed_transactions.typed_transaction import TypedTransaction
    from eth_keys.datatypes import PublicKey
except ImportError:
    raise MissingExtra("web3", "evm") from None

KEY_BYTES = 32
MAX_KEYSTORE_BYTES = 10_000


class EvmKey:
    """A key in this process: it cannot be pickled, copied or shown. `address` is what it is known by."""

    def __init__(self, secret: bytes) -> None:
        try:
            self._key = PrivateKey(secret)
        except ValueError:
            raise InputError("this is no key: it has 32 bytes, and is a number below the order of secp256k1") from None
        self.address = str(PublicKey(self._key.public_key.format(compressed=False)[1:]).to_checksum_address())

    @classmethod
    def create(cls, path: Path, passphrase: str = "") -> EvmKey:
        """A new key in a new file (mode 0600): raw, or with a passphrase a keystore (version 3). Durable on return.

        Raises what `write_key` does.
        """
        key = cls(secrets.token_bytes(KEY_BYTES))
        text = json.dumps(Account.encrypt(key._key.secret, passphrase)) if passphrase else key._key.secret.hex()
        write_key(path, f"{text}\n".encode())
        return key

    @classmethod
    def open(cls, path: Path, passphrase: str = "") -> EvmKey:
        """The key in the file at `path`. Raises SecurityError if others can read it, or it holds no key."""
        text = private_text(path, MAX_KEYSTORE_BYTES).strip()
        try:
            secret = Account.decrypt(json.loads(text), passphrase) if text.startswith("{") else bytes.fromhex(text)
            return cls(bytes(secret))
        except (ValueError, TypeError, KeyError, InputError):
            raise SecurityError(f"{path} cannot be read as a key: restore it, or give its passphrase") from None

    def sign(self, digest: bytes) -> SafeSignature:
        """Of 32 bytes that are a hash already."""
        signature = self._key.sign_recoverable(digest, hasher=None)
        return SafeSignature(owner=self.address, signature=f"0x{signature[:64].hex()}{signature[64] + 27:02x}")

    def seal(self, envelope: Envelope) -> Sealed:
        """The transaction under this key, as it is sent."""
        told = TypedTransaction.from_dict(
            {
                "type": 2,
                "chainId": envelope.chain_id,
                "nonce": envelope.nonce,
                "to": envelope.to,
                "value": 0,
                "data": envelope.data,
                "gas": envelope.gas,
                "maxFeePerGas": envelope.max_fee,
                "maxPriorityFeePerGas": envelope.tip,
            }
        )
        signature = self._key.sign_recoverable(told.hash(), hasher=None)
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:64])
        fields = {**told.as_dict(), "v": signature[64], "r": r, "s": s}
        return Sealed(raw="0x" + bytes(TypedTransaction.from_dict(fields).encode()).hex())

    def __repr__(self) -> str:
        return f"EvmKey({self.address})"

    def __reduce__(self) -> NoReturn:
        raise SecurityError("a key stays in its process: hand on its address")

    def __copy__(self) -> NoReturn:
        self.__reduce__()

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__reduce__()
