"""A Duel actor as Ray hands it out, without Ray, which can be made to die."""

from __future__ import annotations

import asyncio
from typing import Any

from chimera.actors.duel import Duel


class DuelHandle:
    """What Ray gives for an actor: each method has a `remote`. `door` is missing, so there is no line."""

    def __init__(self, *, dies_after: tuple[int, ...] = ()) -> None:
        self.incarnation = Duel(named="test")
        self.lives = 1
        self._dies_after = dies_after
        self._collected = 0

    def __getattr__(self, method: str) -> Any:
        if method == "door":
            raise AttributeError(method)
        return _Method(self, method)

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        if method == "collect":
            self._collected += 1
            if self._collected in self._dies_after:  # after it has played, before anybody heard of it
                await asyncio.sleep(0.05)
                await self.incarnation.stop()
                self.incarnation = Duel(named="test")
                self.lives += 1
        return await getattr(self.incarnation, method)(*arguments)


class _Method:
    def __init__(self, handle: DuelHandle, name: str) -> None:
        self._handle, self._name = handle, name

    async def remote(self, *arguments: Any) -> Any:
        return await self._handle.call(self._name, arguments)
