"""Epsilon is Opacus' own and an independent computation's; no order, no merging and no budget changes or breaks it."""

from __future__ import annotations

import math
import random
import warnings
from itertools import pairwise

import pytest
from dp_accounting import DpEvent, GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant
from pydantic import ValidationError

from chimera.core.errors import InputError, PrivacyError
from chimera.sandbox.privacy.accountants import PRV_ERROR, estimate, history
from chimera.sandbox.privacy.ledger import PrivacyLedger, Release, noise_for

DELTA = 1e-5

COUNTS = Release(what="class counts", noise_multiplier=12.0)
MOMENTS = Release(what="moments", noise_multiplier=5.0)
STEPS = Release(what="discriminator", noise_multiplier=1.1, sample_rate=0.02, steps=400)

HISTORIES = {
    "one whole release": (MOMENTS,),
    "little noise": (Release(what="moments", noise_multiplier=0.6),),
    "steps": (STEPS,),
    "many steps": (Release(what="discriminator", noise_multiplier=4.0, sample_rate=0.1, steps=2_000),),
    "large batches": (Release(what="discriminator", noise_multiplier=2.0, sample_rate=0.25, steps=20),),
    "counts, moments, steps": (COUNTS, MOMENTS, STEPS),
    "all, and a second training": (COUNTS, MOMENTS, STEPS, Release(what="selection", noise_multiplier=8.0), STEPS),
}

releases = st.builds(
    Release,
    what=st.sampled_from(["moments", "discriminator"]),
    noise_multiplier=st.sampled_from([1.0, 2.5, 8.0]),
    sample_rate=st.sampled_from([0.01, 0.05, 1.0]),
    steps=st.integers(1, 5),
)


def event(release: Release) -> DpEvent:
    return SelfComposedDpEvent(
        PoissonSampledDpEvent(release.sample_rate, GaussianDpEvent(release.noise_multiplier)), release.steps
    )


@pytest.mark.parametrize("name", HISTORIES)
def test_prv_is_as_tight_as_an_independent_numerical_composition(name: str) -> None:
    independent = PLDAccountant(value_discretization_interval=1e-3)
    for release in HISTORIES[name]:
        independent.compose(event(release))

    ledger = PrivacyLedger(delta=DELTA, releases=HISTORIES[name])

    assert ledger.epsilon("prv") == pytest.approx(independent.get_epsilon(DELTA), rel=0.01)
    assert ledger.estimate("prv").accountant == "prv"


@pytest.mark.parametrize("name", HISTORIES)
def test_rdp_is_an_independent_rdp(name: str) -> None:
    independent = RdpAccountant(RDPAccountant.DEFAULT_ALPHAS)
    for release in HISTORIES[name]:
        independent.compose(event(release))

    epsilon = PrivacyLedger(delta=DELTA, releases=HISTORIES[name]).epsilon("rdp")

    assert epsilon == pytest.approx(independent.get_epsilon(DELTA), rel=0.01)


@pytest.mark.parametrize("name", HISTORIES)
def test_both_are_what_opacus_itself_says(name: str) -> None:
    prv, rdp = PRVAccountant(), RDPAccountant()
    for accountant in (prv, rdp):
        accountant.history = list(history((r.noise_multiplier, r.sample_rate, r.steps) for r in HISTORIES[name]))
    ledger = PrivacyLedger(delta=DELTA, releases=HISTORIES[name])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # log(0) in Opacus, for whole batches
        assert ledger.epsilon("rdp") == pytest.approx(rdp.get_epsilon(DELTA), rel=1e-12)
        exact = prv.get_epsilon(DELTA, eps_error=PRV_ERROR * ledger.epsilon("rdp"))
        usual = prv.get_epsilon(DELTA)
    assert ledger.epsilon("prv") == pytest.approx(exact, rel=1e-12)
    assert ledger.epsilon("prv") == pytest.approx(usual, abs=0.02, rel=0.01)  # Opacus' own default error is 0.01


def test_a_composition_costs_less_than_its_parts_and_more_than_each() -> None:
    ledger = PrivacyLedger(delta=DELTA, releases=(COUNTS, MOMENTS, STEPS))

    parts = ledger.parts()

    assert list(parts) == ["class counts", "moments", "discriminator"]
    assert max(parts.values()) < ledger.epsilon() < sum(parts.values())


def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    ledger = PrivacyLedger(delta=DELTA)
    assert ledger.epsilon() == ledger.epsilon("rdp") == 0.0
    ledger.add(MOMENTS)
    ledger.add(Release(what="scaler", noise_multiplier=0.0))
    assert ledger.epsilon() == ledger.epsilon("rdp") == math.inf
    assert ledger.parts()["scaler"] == math.inf
    assert ledger.parts()["moments"] < 1.0


def test_equal_releases_that_follow_each_other_are_one_entry() -> None:
    ledger = PrivacyLedger(delta=DELTA, releases=(COUNTS, STEPS, STEPS))
    ledger.add(STEPS)
    ledger.add(COUNTS)
    assert [release.steps for release in ledger.releases] == [1, 1_200, 1]

    for change in ({"noise_multiplier": 9.0}, {"sample_rate": 0.5}, {"what": "counts"}):
        ledger.add(ledger.releases[-1].model_copy(update=change))
    assert len(ledger.releases) == 6


@given(st.lists(releases, min_size=1, max_size=4), st.randoms())
@settings(max_examples=5, deadline=None)
def test_order_changes_nothing(story: list[Release], rng: random.Random) -> None:
    mixed = rng.sample(story, len(story))
    assert PrivacyLedger(delta=DELTA, releases=story).epsilon() == PrivacyLedger(delta=DELTA, releases=mixed).epsilon()


@given(st.lists(releases, max_size=2), releases)
@settings(max_examples=5, deadline=None)
def test_another_release_costs_more_and_more_noise_costs_less(story: list[Release], more: Release) -> None:
    def epsilon(*after: Release) -> float:
        return PrivacyLedger(delta=DELTA, releases=(*story, *after)).epsilon()

    quieter = more.model_copy(update={"noise_multiplier": more.noise_multiplier * 1.5})
    longer = more.model_copy(update={"steps": more.steps * 2})
    slack = 2.0 * PRV_ERROR * PrivacyLedger(delta=DELTA, releases=(*story, longer)).epsilon("rdp")
    costs = [epsilon(), epsilon(quieter), epsilon(more), epsilon(longer)]
    assert all(one <= other + slack for one, other in pairwise(costs))
    assert costs[0] < costs[-1]


@given(st.lists(releases, max_size=4), st.floats(0.3, 5.0))
@settings(max_examples=5, deadline=None)
def test_no_budget_is_ever_passed(story: list[Release], budget: float) -> None:
    ledger = PrivacyLedger(delta=DELTA, budget=budget)
    for release in story:
        before = ledger.releases
        try:
            ledger.add(release)
        except PrivacyError:
            assert ledger.releases == before
            assert PrivacyLedger(delta=DELTA, releases=(*before, release)).epsilon() > budget
        assert ledger.epsilon() <= budget


def test_steps_are_admitted_one_at_a_time_up_to_the_budget_and_no_further() -> None:
    ledger = PrivacyLedger(delta=DELTA, budget=2.0, releases=(MOMENTS,))
    step = Release(what="discriminator", noise_multiplier=1.0, sample_rate=0.05)

    def add_all() -> None:
        for _ in range(10_000):
            ledger.add(step)

    with pytest.raises(PrivacyError, match=r"the budget is 2: .* is left"):
        add_all()
    assert 1.97 < ledger.epsilon() <= 2.0
    assert PrivacyLedger(delta=DELTA, releases=(*ledger.releases, step)).epsilon() > 2.0


def test_what_was_cleared_ahead_is_for_so_many_steps_of_the_same_and_no_more() -> None:
    step = Release(what="discriminator", noise_multiplier=1.0, sample_rate=0.05)
    near = step.model_copy(update={"steps": 40})
    alone = PrivacyLedger(delta=DELTA, releases=(near,))
    budget = (alone.epsilon("rdp") + alone.epsilon("prv")) / 2.0
    for more in (step.model_copy(update={"steps": 500}), step.model_copy(update={"noise_multiplier": 0.3})):
        ledger = PrivacyLedger(delta=DELTA, budget=budget, releases=(near,))
        ledger.add(step)
        with pytest.raises(PrivacyError, match="left"):
            ledger.add(more)


@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(0.3, 1.0, 1), (1.0, 1.0, 1), (3.0, 0.05, 100), (8.0, 0.1, 30)])
def test_the_noise_that_is_found_spends_its_epsilon_and_no_more(epsilon: float, rate: float, steps: int) -> None:
    beside = (Release(what="class counts", noise_multiplier=20.0),)
    noise = noise_for(epsilon=epsilon, delta=DELTA, sample_rate=rate, steps=steps, beside=beside)
    asked = Release(what="asked", noise_multiplier=noise, sample_rate=rate, steps=steps)
    assert 0.98 * epsilon < PrivacyLedger(delta=DELTA, releases=(*beside, asked)).epsilon() <= epsilon


def test_no_noise_is_enough_where_nothing_is_left() -> None:
    assert noise_for(epsilon=math.inf, delta=DELTA, sample_rate=1.0, steps=1) == 0.0
    with pytest.raises(PrivacyError, match="leaves nothing"):
        noise_for(epsilon=0.5, delta=DELTA, sample_rate=1.0, steps=1, beside=(MOMENTS,))


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        (((0.05, 0.1, 10),), "above an epsilon"),
        (((3e4, 1e-3, 10**9),), "too large"),
        (tuple((float(noise), 0.01, 1) for noise in range(10, 80)), "kinds"),
    ],
)
def test_where_prv_cannot_rdp_bounds_it_and_the_reason_is_told(
    steps: tuple[tuple[float, float, int], ...], why: str
) -> None:
    found = estimate(steps, DELTA)
    assert found.accountant == "rdp"
    assert why in found.reason
    assert found.epsilon == estimate(steps, DELTA, "rdp").epsilon < math.inf


def test_what_is_out_of_range_is_refused() -> None:
    for delta in (0.0, 1.0, math.nan):
        with pytest.raises(InputError, match="delta"):
            PrivacyLedger(delta=delta)
    for budget in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="budget"):
            PrivacyLedger(delta=DELTA, budget=budget)
    for wrong in ({"noise_multiplier": -1.0}, {"noise_multiplier": math.inf}, {"sample_rate": 0.0}, {"steps": 0}):
        with pytest.raises(ValidationError):
            Release.model_validate({"what": "x", "noise_multiplier": 1.0} | wrong)
