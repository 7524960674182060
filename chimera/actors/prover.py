"""The prover actor: loads a proving key once, and proves chunks of batches with it, one at a time."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from chimera.core.errors import NotBegun
from chimera.sandbox.proofs.batch import Task, prove_task
from chimera.sandbox.proofs.envelope import Chunk
from chimera.sandbox.proofs.system import ProofSystem, open_system


class Prover:
    """Proves in a process of its own, so that the chunks of a batch are proved side by side.

    It keeps nothing but the key. One that died knows not even that any more: it raises NotBegun, and whoever has work
    for it begins anew. (An argument of its constructor would be given again, but not one as large as a key.)
    """

    def __init__(self, *, named: str) -> None:
        # Each prover is given a core: without this, each would take all of them (it is read at the first product).
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
        self._named = named
        self._system: ProofSystem[Any] = open_system()
        self._loaded: Any = None
        self._one_at_a_time = asyncio.Lock()

    async def begin(self, proving_key: bytes) -> None:
        """Load a key: many seconds for a large circuit. Raises ProofError where it is none."""
        async with self._one_at_a_time:
            self._loaded = await asyncio.to_thread(self._system.load, proving_key)

    async def ready(self) -> None:
        """Raises NotBegun where no key is loaded."""
        if self._loaded is None:
            raise NotBegun(f"{self._named} has no key")

    async def prove(self, task: Task) -> Chunk:
        """Raises ProofError where the task's statement is not true of its cells, and NotBegun."""
        await self.ready()
        async with self._one_at_a_time:
            return await asyncio.to_thread(prove_task, self._system, self._loaded, task)

    def __repr__(self) -> str:  # the dashboard shows it
        return f"Prover[{self._named}]"
