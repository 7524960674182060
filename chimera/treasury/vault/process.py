"""Starts the vault as a process of its own, outside Ray, and ends it again."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from chimera.core.errors import LedgerUnavailable
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.vault.home import VaultHome

START_S = 60.0
"""A long ledger is read from its first row on before the vault answers."""
STOP_S = 30.0
LOOK_S = 0.02


class VaultProcess:
    """A vault that runs. `pid` is its process; `path` the socket for each role."""

    def __init__(self, place: VaultHome, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self.place = place
        self._process = process
        self._said = said

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def path(self, role: LedgerRole = LedgerRole.APP) -> Path:
        return self.place.socket(role)

    def answers(self) -> bool:
        """Whether it, and no other process, listens."""
        with socket.socket(socket.AF_UNIX) as end, suppress(OSError):
            end.connect(str(self.path()))
            pid, _, _ = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return bool(pid == self.pid)
        return False

    def wait(self, timeout_s: float = START_S) -> None:
        """Until it answers. Raises LedgerUnavailable with what it said, if it does not."""
        until_s = time.monotonic() + timeout_s
        while not self.answers():
            if not self.running or time.monotonic() > until_s:
                self.stop()
                self._said.seek(0)
                said = self._said.read(2_000).decode("utf-8", "replace").strip()
                raise LedgerUnavailable(f"the vault of {self.place.folder} does not start: {said or 'it says nothing'}")
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """End it: what it has begun to write, it writes."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """As a crash would end it."""
        self._process.kill()
        self._process.wait()


def start_vault(
    home: Path, *, user: str = "", passphrase_file: Path | None = None, end_with_me: bool = False
) -> VaultProcess:
    """A vault on the folder that `init` made below `home`, as `user` if one is named (root only), once it answers.

    It outlives this process unless it is to `end_with_me`. Raises LedgerUnavailable.
    """
    place = VaultHome.at(home)
    command = [sys.executable, "-P", "-m", "chimera.treasury.vault", "--home", str(place.home)]
    command += ["--user", user] if user else []
    command += ["--passphrase-file", str(passphrase_file)] if passphrase_file else []
    command += ["--end-with", str(os.getpid())] if end_with_me else []
    said = tempfile.TemporaryFile()  # noqa: SIM115 - it is the process's for as long as that lives
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/", start_new_session=True
    )
    started = VaultProcess(place, process, said)
    started.wait()
    return started
