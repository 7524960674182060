"""Batches of threats: what is claimed of them is true, and what they say that they cost covers what was asked."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from chimera.core.errors import ProofError
from chimera.sandbox.batch_files import (
    BATCH_FILE,
    DATA_FILE,
    OPENING_FILE,
    Unproved,
    check_opened,
    read_batch,
    read_opening,
    write_batch,
)
from chimera.sandbox.batches import generate_threats, reference_of
from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.hardening import MarginalDetector
from chimera.sandbox.model import Model
from chimera.sandbox.proofs.claim import ChangedClaim, MeanClaim
from chimera.sandbox.schema import Column, Schema, Table
from chimera.sandbox.settings import GanSettings
from chimera.sandbox.threats import ThreatKind

SCHEMA = Schema(
    columns=(Column(name="a", low=-4, high=4), Column(name="n", low=0, high=9, step=1)), classes=("no", "yes")
)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    values = np.column_stack([rng.normal(labels - 0.5, 0.5), rng.integers(0, 10, 400)])
    settings = GanSettings(epsilon=5.0, delta=1e-4, steps=20, batch=32, hidden=16)
    return AdversarialEngine(Table(SCHEMA, np.clip(values, -4, 9), labels), settings, entropy=1).model()


@pytest.mark.parametrize("kind", ThreatKind)
def test_what_is_claimed_is_so(model: Model, kind: ThreatKind) -> None:
    detector = MarginalDetector(reference_of(model.moments))
    rng = np.random.default_rng(1)
    batch = generate_threats(model, 64, kind, 0.25, rng=rng, detector=detector, public_detector=True)
    assert (SCHEMA.snap(batch.data.values) == batch.data.values).all()
    assert (batch.places[-1] == SCHEMA.index(batch.data.values)).all()
    assert batch.epsilon == model.privacy.epsilon and "epsilon" in batch.provenance["privacy"]
    reference = reference_of(model.moments)
    if isinstance(batch.claim, ChangedClaim):
        assert kind is ThreatKind.POISONED
        before, after = batch.places
        assert batch.claim.changed == (before != after).any(axis=1).sum() > 0
    else:
        assert isinstance(batch.claim, MeanClaim)
        means = np.array(batch.claim.reference) + np.array(batch.claim.bias)
        assert np.allclose(batch.data.values.mean(axis=0), means)
        assert np.allclose(batch.claim.reference, reference.means)
        size = np.abs(np.array(batch.claim.bias) / reference.sds)
        assert size.mean() == pytest.approx(0.125 if kind is ThreatKind.DRIFTED else 0.25, rel=0.3)


def test_a_detector_that_nobody_has_counted_costs_without_end(model: Model) -> None:
    private = MarginalDetector(reference_of(model.moments))
    rng = np.random.default_rng(1)
    batch = generate_threats(model, 16, ThreatKind.EVASIVE, 0.2, rng=rng, detector=private)
    assert batch.epsilon == math.inf and "infinite" in batch.provenance["privacy"]
    other = generate_threats(model, 16, ThreatKind.BIASED, 0.2, rng=rng, detector=private)
    assert other.epsilon == model.privacy.epsilon, "no detector was asked"


@pytest.mark.parametrize(
    ("cell", "why"),
    [("0.123456", "not that of the committed batch"), ("999999999", "out of its column's range"), ("x", "no finite")],
)
def test_other_data_is_not_the_committed_batch(model: Model, tmp_path: Path, cell: str, why: str) -> None:
    batch = generate_threats(model, 16, ThreatKind.BIASED, 0.2, rng=np.random.default_rng(1))
    write_batch(tmp_path / "b", Unproved(claim=batch.claim, commitment=batch.commitment), batch.data, batch.openings)
    sent, opening = read_batch(tmp_path / "b" / BATCH_FILE), read_opening(tmp_path / "b" / OPENING_FILE)
    data = tmp_path / "b" / DATA_FILE
    check_opened(sent, opening, data)
    lines = data.read_text(encoding="utf-8").splitlines()
    value = SCHEMA.snap(np.array([[float(cell), 0.0]]))[0, 0] if cell == "0.123456" else cell
    lines[3] = ",".join([str(value), *lines[3].split(",")[1:]])
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ProofError, match=why):
        check_opened(sent, opening, data)


def test_a_cell_between_two_places_of_the_lattice_is_not_the_committed_one(model: Model, tmp_path: Path) -> None:
    batch = generate_threats(model, 16, ThreatKind.BIASED, 0.2, rng=np.random.default_rng(1))
    write_batch(tmp_path / "b", Unproved(claim=batch.claim, commitment=batch.commitment), batch.data, batch.openings)
    data = tmp_path / "b" / DATA_FILE
    lines = data.read_text(encoding="utf-8").splitlines()
    a, n, label = lines[5].split(",")
    lines[5] = ",".join([a, str(float(n) + 0.4), label])
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sent, opening = read_batch(tmp_path / "b" / BATCH_FILE), read_opening(tmp_path / "b" / OPENING_FILE)
    with pytest.raises(ProofError, match="off its lattice"):
        check_opened(sent, opening, data)
