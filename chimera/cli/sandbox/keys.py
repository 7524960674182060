"""What `chimera sandbox set-up` does."""

from __future__ import annotations

import asyncio
import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chimera.cli import render
from chimera.cli.arena import command
from chimera.core.errors import InputError
from chimera.sandbox.datasets import NAMES, load, read_schema
from chimera.sandbox.proofs.circuit import MAX_CONSTRAINTS, Circuit, constraint_count, rows_per_chunk
from chimera.sandbox.proofs.keys import PROVING_FILE, VERIFYING_FILE, set_up
from chimera.sandbox.proofs.system import NOTICE
from chimera.sandbox.schema import Column, Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As they were given."""

    out: Path
    data: str | None
    schema: Path | None
    columns: int | None
    rows: int | None
    kind: Literal["mean", "changed"]
    made_by: str
    as_json: bool


def execute(options: Options) -> int:
    return command.run(_set_up(options), as_json=options.as_json)


async def _set_up(options: Options) -> int:
    schema = await asyncio.to_thread(_schema, options)
    levels = tuple(int(level) for level in schema.levels)
    rows = options.rows
    if rows is None:
        rows = await asyncio.to_thread(rows_per_chunk, options.kind, schema)
    circuit = Circuit(kind=options.kind, rows=rows, levels=levels)
    size = await asyncio.to_thread(constraint_count, circuit)
    if size > MAX_CONSTRAINTS:
        raise InputError(f"{rows} records of {len(levels)} columns are too large for one circuit: give fewer --rows")
    for name in (PROVING_FILE, VERIFYING_FILE):
        if (options.out / name).exists():
            raise InputError(f"{options.out / name} is there already: name another folder with --out")
    render.note(f"making keys for chunks of {rows} records, {size:,} constraints; a large circuit takes half a minute")
    made_by = options.made_by or getpass.getuser()
    key = await asyncio.to_thread(set_up, circuit, options.out, made_by=made_by)
    proving, verifying = options.out / PROVING_FILE, options.out / VERIFYING_FILE
    if options.as_json:
        found = {"proving_key": str(proving), "verifying_key": str(verifying), "key_id": key.id, "made_by": made_by}
        render.line(render.to_line(found | {"rows": rows, "constraints": size, "notice": NOTICE}))
        return 0
    render.say((str(verifying), "bold"), f"  for you and whoever trusts {made_by!r} ({NOTICE})")
    render.say((str(proving), "bold"), f"  for the prover, {proving.stat().st_size / 2**20:.1f} MiB")
    render.say(("  Whoever ran this could have kept what was drawn, and would forge: it was you.", "dim"))
    return 0


def _schema(options: Options) -> Schema:
    """Raises InputError where not exactly one thing says what the columns are."""
    given = [options.data is not None, options.schema is not None, options.columns is not None]
    if sum(given) != 1:
        raise InputError(f"say what the columns are: one of a data set ({', '.join(NAMES)}), --schema or --columns")
    if options.columns is not None:
        return Schema(columns=tuple(Column(name=f"t{at}", low=0.0, high=1.0) for at in range(options.columns)))
    return read_schema(options.schema) if options.schema is not None else load(options.data or "").schema
