"""What a holder of a key is told, by a file of its own: which network and node, which ledger, whose word counts.

It does not take the public keys from the vault: whoever had taken that over could then name their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.treasury.evm.rules import KeyRole
from chimera.treasury.evm.types import Network
from chimera.treasury.keys import Keyring, private_text, public_key

FILE = "evm.yaml"
MAX_BYTES = 64_000

KeyText = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class HolderSettings(Frozen):
    """`node` is the URL of a node of the chain, `ledger` the vault's `app.sock`; public keys are hex, by key id.

    `uids` are the users who may ask for signatures, besides our own and root.
    """

    network: Network
    node: Annotated[str, Field(max_length=2_000)]
    ledger: Path
    cfo: Annotated[dict[str, KeyText], Field(min_length=1, max_length=32)]
    people: Annotated[dict[str, dict[str, KeyText]], Field(max_length=1_000, default_factory=dict)]
    uids: Annotated[frozenset[int], Field(max_length=32)] = frozenset()

    def keyring(self) -> Keyring:
        """Raises InputError for a key that two have."""
        return Keyring(
            cfo={key_id: public_key(text) for key_id, text in self.cfo.items()},
            people={
                who: {key_id: public_key(text) for key_id, text in keys.items()} for who, keys in self.people.items()
            },
        )


class HolderHome:
    """A folder that holds the keys of one or more roles, and is its owner's alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, role: KeyRole) -> Path:
        return self.folder / f"{role}.key"

    def memory(self, role: KeyRole) -> Path:
        return self.folder / f"{role}.db"

    def socket(self, role: KeyRole) -> Path:
        return self.folder / f"{role}.sock"

    def settings(self) -> HolderSettings:
        """Raises InputError for what is wrong, SecurityError where others can read it: a URL often holds a secret."""
        path = self.folder / FILE
        text = private_text(path, MAX_BYTES)
        try:
            return HolderSettings.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, RecursionError):
            raise InputError(f"{path} is not YAML: see docs/treasury-chain.md for what it holds") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            raise InputError(f"{path}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
