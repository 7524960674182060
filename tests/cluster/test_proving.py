"""Proofs on a real Ray: chunks shared by provers, and a prover that is killed over one."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import ray
from ray.util.state import list_actors

from chimera.core.config import Settings
from chimera.sandbox.proofs.batch import verify
from chimera.sandbox.proofs.keys import PROVING_FILE, set_up
from chimera.system.proving import prove_batch
from tests.unit.sandbox.proofs.conftest import biased, mean_claim

pytestmark = pytest.mark.cluster


def provers() -> list[int]:
    """The processes of living provers."""
    here = ray.get_runtime_context().gcs_address  # there may be other Rays on this machine
    actors = list_actors(address=here, filters=[("state", "=", "ALIVE"), ("class_name", "=", "Prover")])
    return [actor.pid for actor in actors if actor.pid]


async def test_a_killed_prover_loses_no_chunk(local_ray: Settings, tmp_path: Path) -> None:
    claim = mean_claim(chunk_rows=1)
    key = set_up(claim.circuit, tmp_path, made_by="an auditor")
    killed: list[int] = []

    def kill(done: int, total: int) -> None:
        if done == 2 and not killed:
            killed.append(provers()[0])
            os.kill(killed[0], signal.SIGKILL)

    proving = prove_batch(
        claim,
        (biased(),),
        proving_key=tmp_path / PROVING_FILE,
        verifying_key=key,
        provers=2,
        settings=local_ray,
        progress=kill,
    )
    envelope, _ = await asyncio.wait_for(proving, 90)
    assert killed
    verify(envelope, key)
    assert not set(provers()) - set(killed)
