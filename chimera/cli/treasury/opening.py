"""How a command gets at the treasury: through the vault that runs, or through one that ends with the command."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chimera.cli.settings import read_settings
from chimera.core.clock import SystemClock
from chimera.core.errors import InputError, LedgerUnavailable
from chimera.system.treasury import Treasury
from chimera.treasury.keys import Keyring
from chimera.treasury.ledger import Ledger, LedgerRole
from chimera.treasury.vault.config import read_config
from chimera.treasury.vault.home import LEDGER_URL, VaultHome, check_ledger
from chimera.treasury.vault.process import start_vault
from chimera.treasury.vault.run import open_ledger

TURN_S = 120.0
LOOK_S = 0.02


@asynccontextmanager
async def open_treasury() -> AsyncIterator[Treasury]:
    """The treasury of CHIMERA_HOME. Raises InputError where there is none, or where its vault is another user's."""
    settings = read_settings()
    place = VaultHome.at(settings.home)
    if not place.config.exists():
        raise InputError(f"there is no treasury in {place.folder}: `chimera treasury init` makes one")
    if not os.access(place.vault, os.R_OK | os.W_OK | os.X_OK):
        if not await _answers(place):
            raise InputError(f"no vault runs on {place.folder}, and it is another user's: let them run it")
        async with Treasury(settings) as treasury:
            yield treasury
        return
    async with turn(place, fcntl.LOCK_SH):
        lasting = await _answers(place)
    if lasting:
        async with Treasury(settings) as treasury:
            yield treasury
        return
    async with turn(place, fcntl.LOCK_EX):
        check_ledger(read_config(place.config), os.environ.get(LEDGER_URL, ""))
        vault = None if await _answers(place) else await asyncio.to_thread(start_vault, settings.home, end_with_me=True)
        try:
            async with Treasury(settings) as treasury:
                yield treasury
        finally:
            if vault is not None:
                await asyncio.to_thread(vault.stop)


@asynccontextmanager
async def open_for_audit() -> AsyncIterator[tuple[Ledger, Keyring]]:
    """The ledger, and the keys that count: through the vault that runs, else from the file or the database itself.

    No vault starts on a ledger that somebody has changed, and that is the one to be looked at.
    """
    settings = read_settings()
    place = VaultHome.at(settings.home)
    if not os.access(place.vault, os.R_OK | os.W_OK | os.X_OK):
        async with open_treasury() as treasury:  # it says what is wrong, if there is none
            yield treasury.ledger(), await treasury.keyring()
        return
    async with turn(place, fcntl.LOCK_EX):
        if await _answers(place):
            async with Treasury(settings) as treasury:
                yield treasury.ledger(), await treasury.keyring()
            return
        config = read_config(place.config)
        keyring = config.keyring(place.cfo_keys())
        ledger = open_ledger(place, config, LedgerRole.APP, keyring, SystemClock())
        try:
            yield ledger, keyring
        finally:
            await ledger.close()


@asynccontextmanager
async def turn(place: VaultHome, how: int = fcntl.LOCK_EX) -> AsyncIterator[None]:
    """Whoever has a vault for one command has LOCK_EX; the others wait, as it would end under their hands.

    Raises LedgerUnavailable when that takes too long.
    """
    file = os.open(place.vault / "command.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        until_s = asyncio.get_running_loop().time() + TURN_S
        while True:
            try:
                fcntl.flock(file, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if asyncio.get_running_loop().time() > until_s:
                    raise LedgerUnavailable(
                        f"another command has worked on {place.folder} for {TURN_S:.0f} s: with `chimera treasury run`"
                        " commands do not wait for one another"
                    ) from None
            await asyncio.sleep(LOOK_S)
        yield
    finally:
        os.close(file)


async def _answers(place: VaultHome) -> bool:
    socket: Path = place.socket(LedgerRole.APP)
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True
