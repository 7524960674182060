"""`python -m chimera.treasury.vault --home DIR [--user NAME]`: the vault, until it is told to end (SIGTERM)."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

from chimera.core.errors import ChimeraError, InputError, SecurityError
from chimera.treasury.keys import private_text
from chimera.treasury.vault import hardening
from chimera.treasury.vault.config import read_config
from chimera.treasury.vault.home import LEDGER_URL, VaultHome, check_ledger
from chimera.treasury.vault.run import run

MAX_LOG_BYTES = 1_000_000


def main() -> int:
    """The exit code: 2 for bad input, 1 for another fault."""
    parser = argparse.ArgumentParser(prog="python -m chimera.treasury.vault", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="CHIMERA_HOME")
    parser.add_argument("--user", default="", help="run as that user (root only)")
    parser.add_argument("--passphrase-file", type=Path, help="of the CFO's key")
    parser.add_argument("--end-with", type=int, metavar="PID", help="end when this process does, which started it")
    told = parser.parse_args()
    try:
        if told.user:
            hardening.become(told.user)
        hardening.harden()
        if told.end_with:
            hardening.end_with(told.end_with)
        place = VaultHome.at(told.home)
        try:
            place.config.stat()
            _log_to(place.vault / "vault.log")
        except OSError as error:
            raise InputError(
                f"{error.filename}: {error.strerror}: this has to be a home that init has made, in a place that the"
                " vault's user can reach"
            ) from None
        check_ledger(read_config(place.config), os.environ.get(LEDGER_URL, ""))
        passphrase = private_text(told.passphrase_file).rstrip("\n") if told.passphrase_file else ""
        asyncio.run(run(place, passphrase=passphrase))
    except ChimeraError as error:
        logging.getLogger(__name__).error("%s", error)
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, InputError | SecurityError) else 1
    return 0


def _log_to(path: Path) -> None:
    handler = RotatingFileHandler(path, maxBytes=MAX_LOG_BYTES, backupCount=2)
    logging.basicConfig(
        level=logging.INFO, handlers=[handler], format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


if __name__ == "__main__":
    sys.exit(main())
