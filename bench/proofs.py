"""What proofs of committed batches cost: set-up, proving, verifying, and the sizes of keys and proofs.

    python -m bench.proofs [--rows 128] [--columns 8] [--chunks 16] [--provers 0 1 2] [--json] [--quick]

A circuit of `rows` times `columns` cells of 65,536 places is set up, its key loaded, and a chunk proved and verified, a
few times each, of which the median counts. Then a batch of `chunks` chunks is proved: with 0 provers in this process,
else by that many actors of a Ray started for it, each with a core. `with start` is what a caller waits for: starting
the processes and loading the key in each of them are in it. `a chunk` is from the first proved chunk to the last.
A busy machine adds to every figure but the CPU seconds. The targets, on a quiet core: a chunk of 1,024 cells proved in
less than 8 s, verified in less than 50 ms.

The figures of others are as published, on their machines and for other circuits: they say in what region this is, and
nothing more. Sources stand beside them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from chimera.core.config import Settings
from chimera.sandbox.proofs.batch import plan, prove_task, verify
from chimera.sandbox.proofs.circuit import constraint_count
from chimera.sandbox.proofs.claim import MeanClaim
from chimera.sandbox.proofs.envelope import Envelope
from chimera.sandbox.proofs.keys import PROVING_FILE, VERIFYING_FILE, read_proving_key, set_up
from chimera.sandbox.proofs.system import VerifyingKey, open_system
from chimera.sandbox.schema import Column, Integers, Schema

PUBLISHED = (
    (
        "ezkl, a model of 10,497 parameters",
        "prove 1.484 s, verify 31 ms, proof 24.9 kB",
        "a laptop; Spectral's documentation, 'zkML Proof Generation'",
    ),
    (
        "ezkl, a model of 118,721 parameters",
        "prove 12.83 s, verify 187 ms, proof 38 kB",
        "the same",
    ),
    (
        "snarkjs, Nightfall's transfer (constraints: not found)",
        "prove 2.395 s",
        "Ryzen 7 4800HS, 8 cores; EYBlockchain/nightfall_3, pull request 1390",
    ),
    (
        "rapidsnark, Nightfall's transfer",
        "prove 1.572 s",
        "the same",
    ),
    (
        "rapidsnark, RSA, 157,746 constraints",
        "prove 1.0 s, key 78 MB",
        "Threadripper PRO 5975WX, 32 cores; kroma-network/tachyon, issue 460",
    ),
)

Value = TypeVar("Value")


def timed(action: Callable[[], Value]) -> tuple[float, Value]:
    """Seconds that it took, and what came of it."""
    began = time.perf_counter()
    value = action()
    return time.perf_counter() - began, value


def batch_of(rows: int, columns: int, chunk_rows: int) -> tuple[MeanClaim, Integers]:
    """Records whose every column is 0.95 above a mean of 0, and the claim of that."""
    schema = Schema(columns=tuple(Column(name=f"column-{i}", low=-6.0, high=6.0) for i in range(columns)))
    values = np.random.default_rng(1).normal(0.0, 1.0, (rows, columns))
    cells = schema.index(values - values.mean(axis=0) + 0.95)
    claim = MeanClaim(
        records=schema,
        rows=rows,
        chunk_rows=chunk_rows,
        reference=(0.0,) * columns,
        bias=(0.95,) * columns,
        tolerance=(0.01,) * columns,
    )
    return claim, cells


def one_chunk(rows: int, columns: int, folder: Path, repeats: int) -> tuple[dict[str, Any], VerifyingKey]:
    """The figures of one circuit. Its keys are left in `folder`."""
    claim, cells = batch_of(rows, columns, rows)
    trace_s, constraints = timed(claim.circuit.constraints)
    set_up_s, key = timed(lambda: set_up(claim.circuit, folder, made_by="bench"))
    system = open_system()
    load_s, loaded = timed(lambda: system.load(read_proving_key(folder / PROVING_FILE, key)))
    plan_s, (tasks, _) = timed(lambda: plan(claim, (cells,)))
    cpu_s = time.process_time()
    proved = [timed(lambda: prove_task(system, loaded, tasks[0])) for _ in range(repeats)]
    cpu_s = (time.process_time() - cpu_s) / repeats
    envelope = Envelope(claim=claim, key_id=key.id, chunks=(proved[-1][1],))
    verified = [timed(lambda: verify(envelope, key))[0] for _ in range(4 * repeats)]
    return {
        "cells": rows * columns,
        "constraints": constraint_count(claim.circuit),
        "variables": constraints.variables,
        "trace_s": trace_s,
        "set_up_s": set_up_s,
        "load_s": load_s,
        "plan_s": plan_s,
        "prove_s": statistics.median(seconds for seconds, _ in proved),
        "prove_cpu_s": cpu_s,
        "verify_ms": 1e3 * statistics.median(verified),
        "verify_first_ms": 1e3 * verified[0],
        "proving_key_bytes": (folder / PROVING_FILE).stat().st_size,
        "verifying_key_bytes": (folder / VERIFYING_FILE).stat().st_size,
        "proof_bytes": len(proved[-1][1].proof) // 2,
        "envelope_bytes": len(envelope.write()),
    }, key


async def many_chunks(
    rows: int, columns: int, chunks: int, folder: Path, key: VerifyingKey, provers: int
) -> dict[str, Any]:
    """The figures of a batch in chunks, with so many prover actors."""
    from chimera.system.proving import prove_batch

    claim, cells = batch_of(rows * chunks, columns, rows)
    at: list[float] = []
    began = time.perf_counter()
    envelope, _ = await prove_batch(
        claim,
        (cells,),
        proving_key=folder / PROVING_FILE,
        verifying_key=key,
        provers=provers,
        settings=Settings(address="local"),
        progress=lambda done, total: at.append(time.perf_counter()) if done else None,
    )
    whole_s = time.perf_counter() - began
    verify_s, _ = timed(lambda: verify(envelope, key))
    return {
        "cells": rows * columns * chunks,
        "provers": provers,
        "with_start_s": whole_s,
        "chunk_s": (at[-1] - at[0]) / max(1, len(at) - 1),
        "verify_ms": 1e3 * verify_s,
        "envelope_bytes": len(envelope.write()),
    }


def show(chunk: dict[str, Any], batches: Sequence[dict[str, Any]]) -> None:
    print(f"{chunk['cells']:,} cells, {chunk['constraints']:,} constraints (research-grade, unaudited)\n")
    for name, text in (
        ("set-up", f"{chunk['set_up_s']:.1f} s, once, by the verifier or an auditor"),
        ("load the key", f"{chunk['load_s']:.1f} s, once a process"),
        ("prove", f"{chunk['prove_s']:.2f} s, of the CPU {chunk['prove_cpu_s']:.2f} s (target: less than 8 s)"),
        (
            "verify",
            f"{chunk['verify_ms']:.1f} ms, the first time {chunk['verify_first_ms']:.1f} ms (target: less than 50 ms)",
        ),
        ("proof", f"{chunk['proof_bytes']} bytes"),
        ("proving key", f"{chunk['proving_key_bytes'] / 1e6:.1f} MB"),
        ("verifying key", f"{chunk['verifying_key_bytes']:,} bytes"),
    ):
        print(f"  {name:<14}{text}")
    print(f"\n{'cells':>8} {'provers':>8} {'with start':>11} {'a chunk':>9} {'verify':>9}")
    for batch in batches:
        where = batch["provers"] or "here"
        print(
            f"{batch['cells']:>8,} {where:>8} {batch['with_start_s']:>9.1f} s {batch['chunk_s']:>7.2f} s"
            f" {batch['verify_ms']:>6.0f} ms"
        )
    print("\nas published by others, on their machines and for other circuits:")
    for what, figures, source in PUBLISHED:
        print(f"  {what}: {figures} ({source})")


async def main(arguments: argparse.Namespace) -> None:
    rows, columns, chunks = arguments.rows, arguments.columns, arguments.chunks
    if arguments.quick:
        rows, columns, chunks = 8, 4, 4
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chunk, key = one_chunk(rows, columns, folder, 2 if arguments.quick else 5)
        batches = [await many_chunks(rows, columns, chunks, folder, key, provers) for provers in arguments.provers]
    if arguments.json:
        print(json.dumps({"chunk": chunk, "batches": batches}))
    else:
        show(chunk, batches)


if __name__ == "__main__":
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # all figures are of one core, or of one for each prover
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--provers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    asyncio.run(main(parser.parse_args()))
