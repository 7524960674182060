"""Sharing chunks among provers: in order, around deaths, and here without any."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chimera.actors import cluster
from chimera.actors.prover import Prover
from chimera.core.errors import ClusterError, InputError, NotBegun, ProofError
from chimera.sandbox.proofs.batch import Task, plan, verify
from chimera.sandbox.proofs.envelope import Chunk, check_opening
from chimera.system.proving import MAX_DEATHS, prove_batch, share
from tests.unit.sandbox.proofs.conftest import Keys, Proved, biased, mean_claim


class Dying:
    """A prover that dies over the first tasks it takes, and comes back a little later; then it answers with `chunk`."""

    def __init__(self, chunk: Chunk, deaths: int) -> None:
        self._chunk, self._deaths = chunk, deaths
        self.taken: list[Task] = []

    async def ready(self) -> None:
        await asyncio.sleep(0)

    async def prove(self, task: Task) -> Chunk:
        self.taken.append(task)
        await asyncio.sleep(0)
        if self._deaths:
            self._deaths -= 1
            raise cluster.ACTOR_GONE[0]
        return self._chunk.model_copy(update={"sums": task.statement.sums})


@pytest.fixture
def key_file(tmp_path: Path, mean_keys: Keys) -> Path:
    path = tmp_path / "proving.key"
    path.write_bytes(mean_keys.proving)
    return path


async def test_a_batch_is_proved_here(key_file: Path, mean_keys: Keys) -> None:
    told: list[tuple[int, int]] = []
    envelope, openings = await prove_batch(
        mean_claim(),
        (biased(),),
        proving_key=key_file,
        verifying_key=mean_keys.verifying,
        progress=lambda done, total: told.append((done, total)),
    )
    verify(envelope, mean_keys.verifying)
    check_opening(envelope, openings[0])
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


async def test_a_prover_proves_what_its_key_is_for(mean_keys: Keys) -> None:
    prover = Prover(named="one")
    tasks, _ = plan(mean_claim(), (biased(),))
    with pytest.raises(NotBegun):
        await prover.prove(tasks[0])
    await prover.begin(mean_keys.proving)
    chunk = await prover.prove(tasks[0])
    assert chunk.sums == tasks[0].statement.sums


async def test_chunks_come_in_order_around_a_death(proved: Proved) -> None:
    tasks, _ = plan(mean_claim(), (biased(),))
    provers = [Dying(proved.envelope.chunks[0], 2), Dying(proved.envelope.chunks[0], 0)]
    told: list[int] = []
    chunks = await share(tasks, provers, lambda done, total: told.append(done))
    assert [chunk.sums for chunk in chunks] == [task.statement.sums for task in tasks]
    assert told == [1, 2, 3]
    assert sum(len(prover.taken) for prover in provers) == 3 + 2


async def test_a_chunk_that_kills_every_prover_is_given_up(proved: Proved) -> None:
    tasks, _ = plan(mean_claim(), (biased(),))
    provers = [Dying(proved.envelope.chunks[0], 100) for _ in range(2)]
    with pytest.raises(ClusterError, match=f"{MAX_DEATHS} provers died over chunk"):
        await share(tasks, provers, lambda done, total: None)
    assert sum(len(prover.taken) for prover in provers) <= MAX_DEATHS * len(tasks)


async def test_keys_and_numbers_that_do_not_fit_are_refused_first(
    key_file: Path, mean_keys: Keys, changed_keys: Keys
) -> None:
    with pytest.raises(InputError, match="provers"):
        await prove_batch(
            mean_claim(), (biased(),), proving_key=key_file, verifying_key=mean_keys.verifying, provers=65
        )
    with pytest.raises(ProofError, match="another circuit"):
        await prove_batch(mean_claim(), (biased(),), proving_key=key_file, verifying_key=changed_keys.verifying)
    with pytest.raises(ProofError, match="is not the proving key"):
        await prove_batch(mean_claim(), (biased(),), proving_key=Path(__file__), verifying_key=mean_keys.verifying)
