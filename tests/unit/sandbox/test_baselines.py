"""Each baseline learns, keeps its epsilon, and makes the same records from the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from chimera.core.errors import InputError, PrivacyError
from chimera.sandbox.baselines.ctgan import CtganSynthesizer
from chimera.sandbox.baselines.gaussian import GaussianSynthesizer
from chimera.sandbox.baselines.merf import MerfSynthesizer, embedding_sums
from chimera.sandbox.baselines.synthesizer import Synthesizer, shared_noise
from chimera.sandbox.datasets import synthetic
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release
from chimera.sandbox.schema import Schema, Table
from chimera.sandbox.utility import utility

DELTA = 1e-5

PRIVATE = ("gaussian", "merf")
ALL: dict[str, Callable[[], Synthesizer]] = {
    "gaussian": GaussianSynthesizer,
    "merf": partial(MerfSynthesizer, steps=100),
    "ctgan": partial(CtganSynthesizer, steps=20),
}
LONG_ENOUGH: dict[str, Callable[[], Synthesizer]] = {
    "gaussian": GaussianSynthesizer,
    "merf": partial(MerfSynthesizer, steps=300),
    "ctgan": partial(CtganSynthesizer, steps=400),
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def table() -> Table:
    return synthetic(600, 1)


@pytest.fixture(scope="module")
def held_out() -> Table:
    return synthetic(400, 2)


def fitted(name: str, table: Table, *, epsilon: float, seed: int = 3) -> Synthesizer:
    made = ALL[name]()
    made.fit(table, epsilon=epsilon, delta=DELTA, seed=seed)
    return made


@pytest.mark.parametrize("name", ALL)
def test_without_noise_its_records_teach_a_model(name: str, table: Table, held_out: Table) -> None:
    synthesizer = LONG_ENOUGH[name]()
    synthesizer.fit(table, epsilon=math.inf, delta=DELTA, seed=3)
    made = synthesizer.sample(600, 0)
    assert utility(made, held_out).auroc_lr > {"gaussian": 0.95, "merf": 0.75, "ctgan": 0.75}[name]
    assert np.array_equal(made.values, table.schema.snap(made.values))
    assert synthesizer.ledger.epsilon() == math.inf


@pytest.mark.parametrize("name", PRIVATE)
@pytest.mark.parametrize("epsilon", [0.5, 4.0])
def test_it_spends_its_epsilon_and_no_more(name: str, epsilon: float, table: Table) -> None:
    ledger = fitted(name, table.take(np.arange(50)), epsilon=epsilon).ledger
    assert 0.97 * epsilon < ledger.epsilon() <= 1.01 * epsilon  # PRV's own error is on top of the exact mechanism's
    assert set(ledger.parts()) >= {"class counts"}
    assert len(ledger.releases) == 2


@pytest.mark.parametrize("name", PRIVATE)
def test_less_epsilon_is_less_use(name: str, table: Table, held_out: Table) -> None:
    scores = [
        np.mean([utility(fitted(name, table, epsilon=e, seed=s).sample(500, s), held_out).auroc_lr for s in range(2)])
        for e in (0.02, 100.0)
    ]
    assert scores[0] < scores[1] - 0.05


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_makes_the_same(name: str, table: Table) -> None:
    few = table.take(np.arange(60))
    one, other = (fitted(name, few, epsilon=math.inf).sample(20, 5) for _ in range(2))
    assert np.array_equal(one.values, other.values)
    assert one.labels is not None
    assert np.array_equal(one.labels, other.labels)  # type: ignore[arg-type]
    assert not np.array_equal(one.values, fitted(name, few, epsilon=math.inf).sample(20, 6).values)


@pytest.mark.parametrize("name", ALL)
def test_a_table_without_labels_is_learned_as_one_class(name: str, table: Table) -> None:
    bare = Table(Schema(columns=table.schema.columns), table.values[:80])
    made = fitted(name, bare, epsilon=math.inf).sample(10, 0)
    assert made.labels is None
    assert len(made) == 10


@pytest.mark.parametrize("name", ALL)
def test_what_cannot_be_is_refused(name: str, table: Table) -> None:
    with pytest.raises(InputError, match="fit this synthesizer"):
        ALL[name]().sample(1, 0)
    with pytest.raises(InputError, match="nothing to learn"):
        fitted(name, table.take(np.arange(0)), epsilon=math.inf)


def test_a_gan_without_privacy_keeps_no_epsilon(table: Table) -> None:
    with pytest.raises(PrivacyError, match="not private"):
        fitted("ctgan", table, epsilon=1.0)


def test_no_record_moves_an_embedding_further_than_one() -> None:
    table = synthetic(40, 7)
    frequencies = np.random.default_rng(0).standard_normal((10, 50))
    for row in range(40):
        others = table.take(np.arange(40) != row)
        moved = embedding_sums(table, frequencies, 2) - embedding_sums(others, frequencies, 2)
        assert np.linalg.norm(moved) == pytest.approx(1.0)


def test_a_budget_that_is_shared_comes_to_the_whole() -> None:
    noises = shared_noise(epsilon=2.0, delta=DELTA, shares=(0.1, 0.3, 0.6))
    ledger = PrivacyLedger(delta=DELTA, releases=[Release(what="part", noise_multiplier=each) for each in noises])
    assert ledger.epsilon() == pytest.approx(2.0, rel=0.01)
    assert shared_noise(epsilon=math.inf, delta=DELTA, shares=(1.0,)) == (0.0,)
    with pytest.raises(InputError, match="come to 1"):
        shared_noise(epsilon=2.0, delta=DELTA, shares=(0.5, 0.6))
