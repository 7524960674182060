"""Where a patch comes into use: in this process, or in all the cells of a swarm."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Protocol

from chimera.core.errors import ChimeraError, MissionError
from chimera.reload.manager import HotReloadManager
from chimera.reload.messages import Reloaded, ReloadStatus

_log = logging.getLogger(__name__)


class SwarmClient(Protocol):
    """What is asked of a swarm: `chimera.SwarmCoordinator` has it."""

    async def reload(self, module: str, source: Path) -> Reloaded: ...

    async def roll_back(self, module: str, *, lossy: bool = False) -> Reloaded: ...

    async def reload_status(self) -> ReloadStatus: ...


class Loading(Protocol):
    """Modules run in versions somewhere, and `file` is the one that a module's next version is read from."""

    async def in_use(self, module: str, file: Path) -> int | None:
        """The version that runs; None if none does: the next import takes the file. Raises MissionError."""
        ...

    async def load(self, module: str, file: Path) -> None:
        """The version in `file` comes into use, or ReloadError is raised."""
        ...

    async def go_back(self, module: str, version: int) -> bool:
        """Whether that older version is in use again, states kept where they can be."""
        ...


class InProcess:
    """Here, by the `HotReloadManager` of this process."""

    def __init__(self, manager: HotReloadManager) -> None:
        self._manager = manager

    async def in_use(self, module: str, file: Path) -> int | None:
        loaded = sys.modules.get(module)
        if loaded is None:
            return None
        runs = getattr(loaded, "__file__", None) or ""
        if not _same(runs, file):
            raise MissionError(f"{module} runs here from {runs or 'no file'}, not from {file}")
        return self._manager.reloader.current(module).version

    async def load(self, module: str, file: Path) -> None:
        await self._manager.reload(module, file)

    async def go_back(self, module: str, version: int) -> bool:
        for lossy in (False, True):
            loaded = [each.version for each in self._manager.reloader.versions(module)]
            if loaded[-1] == version:
                return True
            if loaded[-2:-1] != [version]:
                return False
            try:
                await self._manager.roll_back(module, lossy=lossy)
            except ChimeraError as error:
                _log.warning("%s cannot go back to version %d: %s", module, version, error)
            else:
                return True
        return False


class InSwarm:
    """In every cell of a swarm, or in none. What its agents were deployed with counts as loaded."""

    def __init__(self, swarm: SwarmClient) -> None:
        self._swarm = swarm

    async def in_use(self, module: str, file: Path) -> int | None:
        now = (await self._swarm.reload_status()).modules.get(module)
        return now.version if now else 1

    async def load(self, module: str, file: Path) -> None:
        await self._swarm.reload(module, file)

    async def go_back(self, module: str, version: int) -> bool:
        for lossy in (False, True):
            if await self.in_use(module, Path()) == version:
                return True
            try:
                return (await self._swarm.roll_back(module, lossy=lossy)).version == version
            except ChimeraError as error:
                _log.warning("%s cannot go back to version %d: %s", module, version, error)
        return False


def _same(one: str, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
