"""Hotkeys: where a validator's signing key comes from. Nothing here shows, logs or stores a secret.

Wallets are those of Bittensor's own tools: `~/.bittensor/wallets/NAME/hotkeys/HOTKEY`, in the clear or encrypted. Their
format is read by `bittensor_core`, which needs none of `bittensor`'s two seconds.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

import bittensor_core

from chimera.core.errors import InputError

MAX_KEYFILE_BYTES = 65_536

FORMS = "WALLET/HOTKEY, file:PATH, or //NAME for a development key"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\- ]{0,63}")

_DEVELOPMENT = re.compile(r"(//[A-Za-z0-9_\-]{1,64}){1,4}")


class DevelopmentKey(UserWarning):
    """A key that everybody has is in use."""


def open_hotkey(spec: str, *, wallets: Path | None = None, password: str | None = None) -> bittensor_core.Keypair:
    """The sr25519 hotkey that `spec` names: `WALLET/HOTKEY`, `file:PATH`, or `//Alice` (with a DevelopmentKey warning).

    `wallets` is the folder of wallets (the default is Bittensor's own). An encrypted key is opened with `password`, or
    with what Bittensor's tools keep for it in the environment (`BT_PW_...`); nobody is asked. Raises InputError, which
    never holds more of the key than its path.
    """
    if spec.startswith("//"):
        return _development(spec)
    if spec.startswith("file:"):
        return _from_file(Path(spec.removeprefix("file:")).expanduser(), password)
    wallet, _, name = spec.partition("/")
    if not (_NAME.fullmatch(wallet) and _NAME.fullmatch(name)):
        # Not echoed: it may be a mnemonic or a seed that was pasted here.
        raise InputError(f"that is not the name of a hotkey: use {FORMS}")
    folder = wallets if wallets is not None else Path.home() / ".bittensor" / "wallets"
    return _from_file(folder / wallet / "hotkeys" / name, password)


def _development(uri: str) -> bittensor_core.Keypair:
    if not _DEVELOPMENT.fullmatch(uri):
        raise InputError("a development key is //NAME, such as //Alice")
    keypair = bittensor_core.Keypair.create_from_uri(uri)
    warnings.warn(
        f"{keypair.ss58_address} is a development key: its secret is public, and anybody can sign with it. Use it for"
        " demos and tests only.",
        DevelopmentKey,
        stacklevel=3,
    )
    return keypair


def _from_file(path: Path, password: str | None) -> bittensor_core.Keypair:
    data = _read(path)
    try:
        if bittensor_core.keyfile_data_is_encrypted(data):
            data = bytes(bittensor_core.decrypt_keyfile_data(data, password or _kept_password(path)))
        keypair = bittensor_core.deserialize_keypair_from_keyfile_data(data)
    except bittensor_core.WrongPasswordError:
        raise InputError(f"{path}: that is not its password") from None
    except (bittensor_core.KeyfileError, ValueError):
        # From None, and without what was said: it may quote the file.
        raise InputError(f"{path} is not a Bittensor keyfile") from None
    if keypair.crypto_type != bittensor_core.CRYPTO_SR25519:
        raise InputError(f"{path} is not an sr25519 key, and blocks are signed with sr25519")
    try:
        keypair.sign(b"")
    except ValueError:
        raise InputError(f"{path} holds a public key only, which cannot sign") from None
    return keypair


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEYFILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"the hotkey cannot be read: {error}") from error
    if len(data) > MAX_KEYFILE_BYTES:
        raise InputError(f"{path} is too long for a keyfile")
    return data


def _kept_password(path: Path) -> str:
    """The password that Bittensor's tools keep for the key at `path` in the environment, in a form of their own."""
    variable = "BT_PW_" + str(path).replace(os.sep, "_").replace(".", "_").upper()
    try:
        kept: str | None = bittensor_core.get_password_from_environment(variable)
    except bittensor_core.KeyfileError:
        raise InputError(f"{variable} is not as bittensor_core.save_password_to_environment writes it") from None
    if not kept:
        raise InputError(f"{path} is encrypted: give its password, or let Bittensor's tools keep it in {variable}")
    return kept
