"""A batch of threats as files: what is sent with it, the records, and what shows that they are the committed ones.

`BATCH.json` is for everybody: an envelope, or a claim with a commitment where nothing was proved. `data.csv` and
`opening.json` are the batch itself, for whoever may see it. Reading them needs no torch.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
import yaml
from pydantic import Field, ValidationError

from chimera.core.errors import InputError, ProofError, StorageError
from chimera.core.types import Frozen
from chimera.sandbox.datasets import SchemaFile, read_table
from chimera.sandbox.proofs.batch import plan
from chimera.sandbox.proofs.claim import Claim
from chimera.sandbox.proofs.envelope import MAX_ENVELOPE_BYTES, Envelope, Opening, batch_commitment, check_opening
from chimera.sandbox.proofs.system import Hex32
from chimera.sandbox.schema import Schema, Table

BATCH_FILE, DATA_FILE, SCHEMA_FILE, OPENING_FILE = "BATCH.json", "data.csv", "schema.yaml", "opening.json"

MAX_OPENING_BYTES = 1 << 30

PRIVATE: Literal["private: these are the records themselves, and what opens their commitments"] = (
    "private: these are the records themselves, and what opens their commitments"
)


class Unproved(Frozen):
    """A claim and the commitment of the batch that it is about, without any proof."""

    version: Literal[1] = 1
    notice: Literal["not proved"] = "not proved"
    claim: Claim
    commitment: Hex32


Batch: TypeAlias = Envelope | Unproved


class OpeningFile(Frozen):
    """What is in `opening.json`. Of a claim that records were changed: the original, and the changed batch."""

    version: Literal[1] = 1
    notice: Literal["private: these are the records themselves, and what opens their commitments"] = PRIVATE
    openings: Annotated[tuple[Opening, ...], Field(min_length=1, max_length=2)]


def write_batch(folder: Path, batch: Batch, data: Table, openings: Sequence[Opening]) -> None:
    """Put a batch into a new folder that only its owner can look into. Raises InputError where there is one already."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty: name a new folder for the batch")
        folder.chmod(0o700)
        opening = OpeningFile(openings=tuple(openings))
        schema = _schema_file(data.schema)
        for name, text in (
            (BATCH_FILE, batch.model_dump_json(indent=1)),
            (OPENING_FILE, opening.model_dump_json()),
            (SCHEMA_FILE, yaml.safe_dump(schema.model_dump(mode="json"), sort_keys=False)),
        ):
            _write_new(folder / name, text + "\n")
        with (folder / DATA_FILE).open("x", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(schema.header)
            labels = [()] * len(data) if data.labels is None else [(data.schema.classes[at],) for at in data.labels]
            rows.writerows(
                (*(f"{cell:.15g}" for cell in record), *label)
                for record, label in zip(data.values.tolist(), labels, strict=True)
            )
    except OSError as error:
        raise StorageError(f"the batch cannot be written to {folder}: {error.strerror}") from error


def read_batch(path: Path) -> Batch:
    """What is in a `BATCH.json`. Raises InputError where it cannot be read, ProofError where it is none."""
    data = _read(path, MAX_ENVELOPE_BYTES)
    try:
        return Unproved.model_validate_json(data)
    except ValidationError:
        return Envelope.read(data)


def read_opening(path: Path) -> OpeningFile:
    """What is in an `opening.json`. Raises InputError where it cannot be read, ProofError where it is none."""
    try:
        return OpeningFile.model_validate_json(_read(path, MAX_OPENING_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        raise ProofError(f"{path} is no opening: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def check_opened(batch: Batch, opening: OpeningFile, data: Path | None = None) -> None:
    """Whether the opening is that of the committed batch, and the records of the CSV or Parquet `data` are its own.

    Raises ProofError where they are not, InputError for a file that cannot be read.
    """
    claim = batch.claim
    places = [opened.place for opened in opening.openings]
    if places != list(range(claim.circuit.batches)):
        raise ProofError(f"the claim is about {claim.circuit.batches} batches, and the opening has {len(places)}")
    if isinstance(batch, Envelope):
        for opened in opening.openings:
            check_opening(batch, opened)
    elif _commitment(claim, opening.openings) != batch.commitment:
        raise ProofError("the opening is not that of the committed batch: the data or a salt was changed")
    if data is not None:
        records = claim.records
        try:
            table = read_table(data, SchemaFile(columns=records.columns), exact=True)
        except InputError as error:
            raise ProofError(f"{data} is not the committed batch: {error}") from error
        cells = np.array(opening.openings[-1].cells, np.int64)
        index = records.index(table.values)
        if index.shape != cells.shape:
            raise ProofError(f"{data} has {len(index)} records, and the committed batch {len(cells)}")
        if (differs := np.flatnonzero((index != cells).any(axis=1))).size:
            raise ProofError(f"{data}: record {differs[0] + 1} is not that of the committed batch")


def _commitment(claim: Claim, openings: Sequence[Opening]) -> str:
    """What a batch's openings come to. Raises ProofError where the claim is not true of them."""
    batches = [np.array(opened.cells, np.int64) for opened in openings]
    try:
        tasks, _ = plan(claim, batches, salts=[[int(salt, 16) for salt in opened.salts] for opened in openings])
    except (InputError, ValueError) as error:
        raise ProofError(f"the opening cannot be a committed batch: {error}") from None
    return batch_commitment(claim, [task.statement.commitments for task in tasks])


def _schema_file(schema: Schema) -> SchemaFile:
    taken = {column.name for column in schema.columns}
    label = next(
        name for name in ("class", *(f"class_{number}" for number in range(len(taken) + 1))) if name not in taken
    )
    return SchemaFile(columns=schema.columns, classes=schema.classes, label=label if schema.classes else None)


def _write_new(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > most_bytes:
        raise InputError(f"{path} is larger than {most_bytes} bytes: it is no file of a batch")
    return data
