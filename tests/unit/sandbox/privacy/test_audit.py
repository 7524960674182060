"""The audit: an honest training passes, one that is broken does not, and the bound is the one that was published."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from chimera.core.errors import InputError, PrivacyError
from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.privacy.audit import Audit, attack, audit, judge, plant
from chimera.sandbox.privacy.auditing_bound import chance_of, lower_bound
from chimera.sandbox.schema import Column, Schema, Table
from chimera.sandbox.settings import GanSettings

SCHEMA = Schema(columns=tuple(Column(name=f"c{place}", low=-3, high=3) for place in range(24)), classes=("no", "yes"))

SMALL = GanSettings(epsilon=1.0, steps=20, batch=128, hidden=48, latent_share=0.05, clip=0.01)
"""Full batches; and no gradient is as short as the clip, so that it shows if they are not clipped."""

CANARIES = 200


def table(n: int = 100) -> Table:
    rng = np.random.default_rng(0)
    return Table(SCHEMA, np.clip(rng.normal(0.0, 1.0, (n, 24)), -3, 3), rng.integers(0, 2, n))


def honest(optimizer: Any) -> None:
    pass


def without_noise(optimizer: Any) -> None:
    optimizer.noise_multiplier = 0.0


def without_clipping(optimizer: Any) -> None:
    """The noise stays as if every gradient were as short as it should be."""
    optimizer.noise_multiplier /= 1_000.0
    optimizer.max_grad_norm *= 1_000.0


def made(fault: Callable[[Any], None], seed: int) -> Callable[[Table, GanSettings], AdversarialEngine]:
    def make(table: Table, settings: GanSettings) -> AdversarialEngine:
        engine = AdversarialEngine(table, settings, entropy=seed)
        fault(engine._gan._push)
        return engine

    return make


def attacked(claim: float, fault: Callable[[Any], None], seed: int) -> Audit:
    settings = SMALL.model_copy(update={"epsilon": claim, "seed": seed})
    return attack(table(), settings, canaries=CANARIES, seed=seed, make=made(fault, seed))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_an_honest_training_passes() -> None:
    found = audit(table(), SMALL, canaries=CANARIES, seed=0, make=made(honest, 0))
    assert found.passed and found.conclusive
    assert 0.9 < found.claimed <= 1.0
    assert "does not show that there is none" in found.said


@pytest.mark.parametrize("fault", [without_noise, without_clipping])
def test_a_training_that_leaks_more_than_it_claims_is_refused(fault: Callable[[Any], None]) -> None:
    with pytest.raises(PrivacyError, match="leaks more than it claims"):
        audit(table(), SMALL, canaries=CANARIES, seed=0, make=made(fault, 0))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("claim", [1.0, 3.0, 10.0])
def test_the_bound_never_exceeds_an_honest_claim(claim: float, seed: int) -> None:
    assert attacked(claim, honest, seed).passed


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fault", [without_noise, without_clipping])
def test_the_bound_exceeds_the_claim_of_every_broken_training(fault: Callable[[Any], None], seed: int) -> None:
    assert not attacked(1.0, fault, seed).passed


def test_the_gradients_of_the_attack_are_those_that_opacus_sums() -> None:
    """Fakes are the same for all records of a class here: no latent variance, no noise."""
    engine = AdversarialEngine(table(), SMALL.model_copy(update={"noise": 0, "batch": 128}), entropy=1)
    engine._roots.zero_()
    engine._gan._push.noise_multiplier = 0.0
    own = engine.observed(engine.table)
    engine.train_gan_step()
    assert engine.sample_rate == 1.0
    assert own.norm(dim=1).max() <= SMALL.clip * 1.001
    assert torch.allclose(engine.released(), own.sum(dim=0), rtol=1e-3, atol=1e-5)


def test_canaries_are_records_at_the_corners_and_their_coins_decide() -> None:
    planted = plant(table(30), 40, np.random.default_rng(3))
    assert (np.abs(planted.canaries.values) == 3.0).all()
    assert len(planted.table) == 30 + planted.coins.sum()
    assert 5 < planted.coins.sum() < 35
    assert (planted.table.values[30:] == planted.canaries.values[planted.coins]).all()


def test_it_says_when_it_could_not_have_found_anything() -> None:
    coins = np.arange(80) % 2 == 0
    found = judge(coins * 1.0, coins, claimed=10.0, delta=1e-5)
    assert (found.right, found.guesses) == (20, 20)
    assert found.passed and not found.conclusive
    assert "That says nothing" in found.said


def test_without_a_claim_or_canaries_there_is_nothing_to_audit() -> None:
    with pytest.raises(InputError, match="infinite"):
        audit(table(), SMALL.model_copy(update={"epsilon": math.inf}), seed=0)
    with pytest.raises(InputError, match="3 canaries"):
        audit(table(), SMALL, canaries=3, seed=0)
    with pytest.raises(InputError, match="0 known"):
        audit(table(), SMALL, known=0, seed=0)


def test_without_delta_the_chance_is_a_binomial_test_s() -> None:
    for right, epsilon in [(70, 0.0), (70, 0.5), (100, 3.0), (0, 1.0)]:
        alone = 1 / (1 + math.exp(-epsilon))
        expected = binomtest(right, 100, alone, alternative="greater").pvalue
        found = chance_of(canaries=200, guesses=100, right=right, epsilon=epsilon, delta=0.0)
        assert found == pytest.approx(expected, rel=1e-9)


def test_delta_adds_what_theorem_5_2_says() -> None:
    """Beside the chance of the binomial: 2 m delta max over i of P[v > B >= v - i] / i, here summed term by term."""
    canaries, guesses, right, epsilon, delta = 80, 30, 24, 1.0, 1e-3
    alone = 1 / (1 + math.exp(-epsilon))
    mass = [math.comb(guesses, k) * alone**k * (1 - alone) ** (guesses - k) for k in range(guesses + 1)]
    most = max(sum(mass[right - i : right]) / i for i in range(1, right + 1))
    found = chance_of(canaries=canaries, guesses=guesses, right=right, epsilon=epsilon, delta=delta)
    assert found == pytest.approx(sum(mass[right:]) + 2 * canaries * delta * most, rel=1e-9)


def test_randomised_response_is_seldom_found_to_leak_more_than_it_does() -> None:
    """The mechanism for which the bound is tight: each coin told rightly with the chance that epsilon allows."""
    rng, epsilon = np.random.default_rng(0), 1.0
    right = rng.binomial(100, 1 / (1 + math.exp(-epsilon)), 2_000)
    bounds = {
        count: lower_bound(canaries=100, guesses=100, right=count, delta=0.0, confidence=0.95)
        for count in set(right.tolist())
    }
    above = float(np.mean([bounds[count] > epsilon for count in right.tolist()]))
    assert 0.005 < above < 0.06
    assert float(np.mean([bounds[count] for count in right.tolist()])) > 0.4


@given(st.integers(1, 60), st.data())
def test_more_right_guesses_refute_more_and_delta_costs_some(guesses: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, guesses - 1))

    def bound(right: int, delta: float = 0.0, confidence: float = 0.95) -> float:
        return lower_bound(canaries=60, guesses=guesses, right=right, delta=delta, confidence=confidence)

    assert bound(right) <= bound(right + 1)
    assert bound(right, delta=1e-4) <= bound(right)
    assert bound(right, confidence=0.99) <= bound(right)
    if bound(right) > 0.0:
        held = chance_of(canaries=60, guesses=guesses, right=right, epsilon=bound(right) + 1e-6, delta=0.0)
        assert held == pytest.approx(0.05, rel=1e-3)


def test_guesses_that_cannot_be_are_refused() -> None:
    for canaries, guesses, right in [(10, 11, 3), (10, 5, 6), (0, 0, 0), (10, 5, -1)]:
        with pytest.raises(InputError):
            chance_of(canaries=canaries, guesses=guesses, right=right, epsilon=1.0, delta=0.0)
    with pytest.raises(InputError):
        lower_bound(canaries=10, guesses=5, right=5, delta=0.0, confidence=1.0)


def test_no_record_of_the_table_is_looked_at() -> None:
    """So the audit's result is no release of it."""
    seen: list[Table] = []

    def stop(planted: Table, settings: GanSettings) -> AdversarialEngine:
        seen.append(planted)
        raise KeyboardInterrupt

    mine = table(40)
    other = Table(mine.schema, mine.schema.low + 0 * mine.values, None if mine.labels is None else 0 * mine.labels)
    for held in (mine, other):
        with pytest.raises(KeyboardInterrupt):
            attack(held, GanSettings(), canaries=50, seed=1, make=stop)
    assert (seen[0].values == seen[1].values).all()
