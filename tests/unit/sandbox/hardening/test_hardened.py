"""A hardened detector is kept as numbers, read back the same, and never from a file that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from chimera.core.errors import InputError, StorageError
from chimera.sandbox.hardening import Hardened, MarginalDetector, MomentsDetector
from chimera.sandbox.hardening.detector import view
from chimera.sandbox.hardening.hardened import threshold_of
from chimera.sandbox.hardening.head import Head, logistic
from chimera.sandbox.schema import Column, Floats, Schema, Table
from chimera.sandbox.threats import Reference

SCHEMA = Schema(columns=tuple(Column(name=name, low=-10.0, high=10.0) for name in "abc"))
CLEAN = Table(SCHEMA, np.random.default_rng(0).standard_normal((1_000, 3)))
DETECTOR = MarginalDetector(Reference.of(CLEAN))


def batches(count: int, shift: float, seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, 16, 3)) + shift


@pytest.fixture(scope="module")
def hardened() -> Hardened:
    usual, odd = batches(2_000, 0.0, 1), batches(200, 0.4, 2)
    seen = view(DETECTOR, usual)
    head = Head.fit(CLEAN.values, (usual, seen), [(odd, view(DETECTOR, odd))])
    return Hardened.calibrated(DETECTOR, head, seen[:, -1], head.score(usual, seen), 5.0)


def test_the_budget_is_kept_where_it_is_set(hardened: Hardened) -> None:
    alarms = (hardened.score(batches(2_000, 0.0, 1)) > hardened.threshold).sum()
    assert 5 <= alarms <= 10
    own = DETECTOR.score(batches(2_000, 0.0, 1))
    assert (own > threshold_of(own, 5.0)).sum() == 10


def test_the_head_learns_what_the_detector_cannot_see(hardened: Hardened) -> None:
    odd = batches(500, 0.4, 3)
    own = DETECTOR.score(batches(2_000, 0.0, 1))
    assert (hardened.score(odd) > 1.0).mean() > (DETECTOR.score(odd) > threshold_of(own, 5.0)).mean() + 0.1


def test_a_batch_farther_out_is_never_less_odd(hardened: Hardened) -> None:
    usual = batches(200, 0.0, 4)
    middle = CLEAN.values.mean(axis=0)
    for direction in np.random.default_rng(5).standard_normal((20, 3)):
        scored = [
            hardened.head.score(middle + far * direction + 0.0 * usual, np.zeros((200, 4))) for far in (0.5, 1.0, 2.0)
        ]
        assert (np.diff(scored, axis=0) >= 0).all()
    assert (hardened.head.weights >= 0).all()


def test_saved_and_read_it_says_the_same(hardened: Hardened, tmp_path: Path) -> None:
    path = tmp_path / "hardened.npz"
    hardened.save(path)
    again = Hardened.load(path, DETECTOR)
    some = batches(50, 0.2, 6)
    assert (again.score(some) == hardened.score(some)).all()
    assert again.name == "hardened marginal"
    with pytest.raises(InputError, match="marginal, not of moments"):
        Hardened.load(path, MomentsDetector.of(CLEAN))


def test_files_that_are_not_one_are_refused(hardened: Hardened, tmp_path: Path) -> None:
    path = tmp_path / "hardened.npz"
    hardened.save(path)
    data = path.read_bytes()
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files}
    for number, bad in enumerate((b"", b"no", data[: len(data) // 2])):
        broken = tmp_path / f"{number}.npz"
        broken.write_bytes(bad)
        with pytest.raises(StorageError):
            Hardened.load(broken, DETECTOR)
    for name, array in (
        ("format", np.array("another")),
        ("scales", np.array([0.0, np.nan, 0.0, 1.0])),
        ("scales", np.array([1.0, 0.0, 0.0, 1.0])),
        ("head.weights", np.zeros(3)),
        ("head.means", np.array([object()], object)),
        ("head.axes", np.full((3, 3), np.inf)),
    ):
        np.savez(path, **{**kept, name: array})
        with pytest.raises(StorageError):
            Hardened.load(path, DETECTOR)
    with pytest.raises(StorageError):
        Hardened.load(tmp_path / "none.npz", DETECTOR)


def test_a_budget_that_so_few_batches_cannot_tell_is_refused() -> None:
    with pytest.raises(InputError, match="more batches"):
        threshold_of(np.arange(100.0), 1.0)


def test_the_moments_detector_sees_means_and_spreads() -> None:
    detector = MomentsDetector.of(CLEAN)
    usual = detector.score(batches(500, 0.0, 7))
    assert 0.5 < usual.mean() / 6.0 < 1.7  # six squares of about 1
    assert detector.score(batches(500, 0.8, 8)).mean() > 3.0 * usual.mean()
    assert detector.score(batches(500, 0.0, 7) * 2.0).mean() > 3.0 * usual.mean()
    assert np.isfinite(detector.score(np.zeros((2, 1, 3)))).all()
    with pytest.raises(InputError):
        detector.score(np.zeros((2, 16, 4)))


def test_logistic_finds_the_weights_of_what_it_was_made_from() -> None:
    rng = np.random.default_rng(9)
    inputs = rng.random((20_000, 2))
    answers = (rng.random(20_000) < 1.0 / (1.0 + np.exp(2.0 - 4.0 * inputs[:, 0] + 4.0 * inputs[:, 1]))).astype(float)
    found = logistic(inputs, answers, np.full(20_000, 1.0))
    assert found[0] == pytest.approx(4.0, abs=1.0)
    assert found[1] == 0.0  # it would be negative
