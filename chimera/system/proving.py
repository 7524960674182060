"""Wiring of proofs: a claim and its batches in, chunks proved by actors over the cluster or here, an envelope out."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from chimera.actors import cluster
from chimera.actors.prover import Prover
from chimera.core.config import Settings
from chimera.core.errors import ClusterError, InputError, NotBegun, ProofError
from chimera.sandbox.proofs.batch import Task, plan, prove_task
from chimera.sandbox.proofs.claim import ChangedClaim, MeanClaim
from chimera.sandbox.proofs.envelope import Chunk, Envelope, Opening
from chimera.sandbox.proofs.keys import read_proving_key
from chimera.sandbox.proofs.system import VerifyingKey, open_system
from chimera.sandbox.schema import Integers

MAX_PROVERS = 64

MAX_DEATHS = 3
"""Provers that may die over one chunk; then the batch is given up."""

Progress = Callable[[int, int], None]
"""Is told how many chunks are proved, and how many there are."""

PAUSE_S = 0.5
"""Between two looks at a prover that is being started again."""


async def prove_batch(
    claim: MeanClaim | ChangedClaim,
    batches: Sequence[Integers],
    *,
    proving_key: Path,
    verifying_key: VerifyingKey,
    provers: int = 0,
    settings: Settings | None = None,
    progress: Progress | None = None,
    salts: Sequence[Sequence[int]] = (),
) -> tuple[Envelope, tuple[Opening, ...]]:
    """Prove a claim about batches of lattice places, and open each of them; see `chimera.sandbox.proofs.batch.plan`.

    With `provers` so many actors share the chunks, on the Ray that `settings` name, and a chunk whose prover dies is
    proved by another. With 0 all is done in this process, without Ray. The openings hold the data: they go to whoever
    may see it. Raises ProofError where the claim is not true or the keys are not its, InputError, ClusterError.
    """
    if not 0 <= provers <= MAX_PROVERS:
        raise InputError(f"0 to {MAX_PROVERS} provers, not {provers}")
    if verifying_key.circuit != claim.circuit:
        raise ProofError(f"the keys were made for another circuit than the claim's: {claim.circuit.model_dump_json()}")
    tasks, openings = await asyncio.to_thread(plan, claim, batches, salts=salts)
    key = await asyncio.to_thread(read_proving_key, proving_key, verifying_key)
    told = progress or (lambda done, total: None)
    told(0, len(tasks))
    if provers:
        chunks = await _on_cluster(tasks, key, min(provers, len(tasks)), settings or Settings(), told)
    else:
        chunks = await _here(tasks, key, verifying_key, told)
    return Envelope(claim=claim, key_id=verifying_key.id, chunks=chunks), openings


async def _here(tasks: Sequence[Task], key: bytes, verifying_key: VerifyingKey, told: Progress) -> tuple[Chunk, ...]:
    system = open_system(verifying_key.system)
    loaded = await asyncio.to_thread(system.load, key)
    chunks: list[Chunk] = []
    for task in tasks:
        chunks.append(await asyncio.to_thread(prove_task, system, loaded, task))
        told(len(chunks), len(tasks))
    return tuple(chunks)


async def _on_cluster(
    tasks: Sequence[Task], key: bytes, provers: int, settings: Settings, told: Progress
) -> tuple[Chunk, ...]:
    connection = await asyncio.to_thread(cluster.connect, settings)
    name, actors = f"prover-{secrets.token_hex(3)}", []
    try:
        for number in range(provers):
            named = f"{name}/{number}"
            actors.append(cluster.spawn(Prover, name=named, place="cell", lasting=False, named=named))
        return await share(tasks, [Remote(actor, key) for actor in actors], told)
    finally:
        for actor in actors:
            cluster.kill(actor)
        await asyncio.to_thread(cluster.disconnect, connection)


class Proving(Protocol):
    """A prover as it is seen from here."""

    async def ready(self) -> None:
        """Wait until it takes tasks."""
        ...

    async def prove(self, task: Task) -> Chunk: ...


class Remote:
    """A prover actor. One whose process was killed is away for a while, and is then given the key again.

    Raises ClusterError if it stays away for `patience_s`.
    """

    def __init__(self, actor: Any, proving_key: bytes, *, patience_s: float = 120.0) -> None:
        self._actor = actor
        self._proving_key = proving_key
        self._patience_s = patience_s

    async def ready(self) -> None:
        until_s = time.monotonic() + self._patience_s
        while True:
            try:
                await self._begun()
                return
            except cluster.ACTOR_GONE as error:
                if time.monotonic() > until_s or getattr(error, "actor_init_failed", False):
                    raise cluster.unwrap(error) from error
                await asyncio.sleep(PAUSE_S)
            except cluster.CALL_FAILED as error:
                raise cluster.unwrap(error) from error

    async def _begun(self) -> None:
        try:
            await self._actor.ready.remote()
        except cluster.CALL_FAILED as error:
            if not isinstance(cluster.unwrap(error), NotBegun):
                raise
            await self._actor.begin.remote(self._proving_key)

    async def prove(self, task: Task) -> Chunk:
        try:
            chunk: Chunk = await self._actor.prove.remote(task)
        except cluster.ACTOR_GONE:
            raise
        except cluster.CALL_FAILED as error:
            raise cluster.unwrap(error) from error
        return chunk


LOST: tuple[type[BaseException], ...] = (NotBegun, *cluster.ACTOR_GONE)
"""What a call raises when the prover has died, or died just before it."""


async def share(tasks: Sequence[Task], provers: Sequence[Proving], told: Progress) -> tuple[Chunk, ...]:
    """Have each prover take the next task as it is ready, and put the chunks in the tasks' order.

    A task whose prover dies goes to the next that is ready. Raises ClusterError for one that `MAX_DEATHS` died over.
    """
    waiting: asyncio.Queue[int] = asyncio.Queue()
    for number in range(len(tasks)):
        waiting.put_nowait(number)
    deaths = [0] * len(tasks)
    chunks: dict[int, Chunk] = {}
    finished = asyncio.Event()

    async def work(prover: Proving) -> None:
        while True:
            await prover.ready()
            number = await waiting.get()
            try:
                chunks[number] = await prover.prove(tasks[number])
            except LOST as error:
                deaths[number] += 1
                if deaths[number] >= MAX_DEATHS:
                    raise ClusterError(
                        f"{MAX_DEATHS} provers died over chunk {number}: give them more memory"
                    ) from error
                waiting.put_nowait(number)
                continue
            told(len(chunks), len(tasks))
            if len(chunks) == len(tasks):
                finished.set()

    running = [asyncio.create_task(work(prover)) for prover in provers] + [asyncio.create_task(_wait(finished))]
    try:
        ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return tuple(chunks[number] for number in range(len(tasks)))


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
