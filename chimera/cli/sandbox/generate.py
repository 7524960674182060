"""What `chimera sandbox generate` does."""

from __future__ import annotations

import asyncio
import math
import secrets
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.sandbox.data import needs_torch, new_folder, say_epsilon
from chimera.cli.settings import read_settings
from chimera.core.errors import InputError, ProofError, StorageError
from chimera.sandbox.proofs.keys import VERIFYING_FILE, read_proving_key, read_verifying_key
from chimera.sandbox.proofs.system import NOTICE, VerifyingKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As they were given."""

    model: Path
    out: Path
    kind: str
    strength: float
    records: int
    proving_key: Path | None
    key: Path | None
    windows: bool
    provers: int
    address: str | None
    as_json: bool


def execute(options: Options) -> int:
    return command.run(_generate(options), as_json=options.as_json)


async def _generate(options: Options) -> int:
    needs_torch()
    from chimera.sandbox.batch_files import BATCH_FILE, DATA_FILE, OPENING_FILE, Batch, Unproved, write_batch
    from chimera.sandbox.batches import generate_threats, reference_of
    from chimera.sandbox.hardening import MarginalDetector
    from chimera.sandbox.model import Model
    from chimera.sandbox.threats import ThreatKind
    from chimera.system.sandbox_batches import Keys, prove_threats

    if options.key and not options.proving_key:
        raise InputError("--key goes with --proving-key: without it nothing is proved")
    model = await asyncio.to_thread(Model.load, options.model)
    keys = None
    if options.proving_key:
        keys = Keys(proving=options.proving_key, verifying=_verifying(options.proving_key, options.key))
    detector = MarginalDetector(reference_of(model.moments)) if options.kind == "evasive" else None
    folder = new_folder(options.out)
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if done * 10 // total > told or done == total:
            told = done * 10 // total
            render.note(f"proved {done} of {total} chunks")

    batch = await asyncio.to_thread(
        generate_threats,
        model,
        options.records,
        ThreatKind(options.kind),
        options.strength,
        rng=np.random.default_rng(secrets.randbits(128)),  # whoever has the model and a seed has the records
        detector=detector,
        public_detector=True,  # it knows the released moments, and no record
        windows=options.windows,
    )
    sent: Batch = Unproved(claim=batch.claim, commitment=batch.commitment)
    if keys is not None:
        ray = read_settings(address=options.address) if options.provers else None
        batch = await prove_threats(batch, keys, provers=options.provers, settings=ray, progress=progress)
        assert batch.proof is not None
        sent = batch.proof
    await asyncio.to_thread(write_batch, folder, sent, batch.data, batch.openings)
    epsilon = batch.epsilon if math.isfinite(batch.epsilon) else "infinite"
    if options.as_json:
        found = {"batch": str(folder / BATCH_FILE), "records": len(batch.data), "commitment": batch.commitment}
        found |= {"kind": options.kind, "strength": options.strength, "epsilon": epsilon}
        found |= {"delta": batch.delta, "provenance": batch.provenance, "proved": batch.proof is not None}
        render.line(render.to_line(found))
        return 0
    render.say((str(folder / BATCH_FILE), "bold"))
    render.say(f"  {len(batch.data)} {options.kind} records, strength {options.strength:g}")
    render.say(f"  {say_epsilon(batch.epsilon, batch.delta)}: what the model has cost; the batch adds nothing")
    render.say(f"  commitment {batch.commitment}")
    chunks = len(batch.claim.counts())
    render.say(f"  proved, {chunks} chunks ({NOTICE})" if batch.proof else "  not proved: that takes --proving-key")
    render.say(
        (f"  {DATA_FILE} and {OPENING_FILE} are the batch itself: they are for whoever may see the records.", "dim")
    )
    return 0


def _verifying(proving_key: Path, key: Path | None) -> VerifyingKey:
    """The verifying key that goes with a proving key. Raises InputError where there is none, or it is another's."""
    path = key or proving_key.with_name(VERIFYING_FILE)
    if not path.is_file():
        raise InputError(f"{path} is not there: name with --key the verifying key of the same set-up")
    try:
        verifying = read_verifying_key(path)
        read_proving_key(proving_key, verifying)
    except (ProofError, StorageError) as error:
        raise InputError(str(error)) from error
    return verifying
