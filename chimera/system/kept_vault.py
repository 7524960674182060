"""A vault that stays: whoever runs the treasury starts it again when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from chimera.core.errors import ChimeraError
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.vault.process import VaultProcess

WATCH_S = 0.2
"""How often it is seen whether the vault lives."""
SOONEST_S, LATEST_S = 0.1, 10.0
"""How long a vault that died waits for its next start: twice as long each time, until one has lived for STEADY_S."""
STEADY_S = 60.0

log = logging.getLogger(__name__)


class KeptVault:
    """A vault that is started again when it dies, for as long as it is kept. `start` starts one, and blocks."""

    def __init__(self, start: Callable[[], VaultProcess]) -> None:
        self._start = start
        self._over = asyncio.Event()
        self.starts = 0

    @property
    def pid(self) -> int:
        """Of the one that runs, or ran last."""
        return self._vault.pid

    def path(self, role: LedgerRole = LedgerRole.APP) -> Path:
        """The socket for that role, which stays the same."""
        return self._vault.path(role)

    async def begin(self) -> None:
        """Raises LedgerUnavailable where it does not start at all."""
        self._vault = await asyncio.to_thread(self._start)
        self.starts = 1
        self._keeping = asyncio.create_task(self._keep())

    async def end(self) -> None:
        """End the vault, and keep it no longer."""
        self._over.set()
        try:
            await self._keeping  # not cancelled: a start that is under way would leave a vault behind
        finally:
            await asyncio.to_thread(self._vault.stop)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s, began_s = SOONEST_S, loop.time()
        while not await self._over_within(WATCH_S):
            if self._vault.running:
                continue
            pause_s = SOONEST_S if loop.time() - began_s > STEADY_S else min(2 * pause_s, LATEST_S)
            log.error("the vault (process %d) has died: it is started again in %.1f s", self.pid, pause_s)
            if await self._over_within(pause_s):
                return
            began_s = loop.time()
            try:
                self._vault = await asyncio.to_thread(self._start)
                self.starts += 1
                log.warning("the vault runs again, as process %d", self.pid)
            except (ChimeraError, OSError) as error:
                log.error("%s", error)

    async def _over_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()
        return self._over.is_set()
