"""How right the confidence is, and which thresholds that allows: against made worlds whose error rates are known."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.review.calibrate import ALPHA, calibrate, clopper_pearson_upper, propose, reliability
from chimera.review.outcomes import Judged
from chimera.review.types import Verdict

WANTED = 0.1


def above(confidence: float, at: float) -> bool:
    return confidence > at


def world(n: int, seed: int, *, wrong_below: float = 0.6, share: float = 1.0) -> list[Judged]:
    """Confidences from 0.5 to 1: none is wrong at 1, and half are at `wrong_below`; above 0.9 a `share` is checked."""
    draw, found = random.Random(seed), []
    for _ in range(n):
        confidence = draw.uniform(0.5, 1.0)
        wrong = draw.random() < error_at(confidence, wrong_below)
        seen = 1.0 if confidence <= 0.9 else share
        verdict: Verdict | None = ("rejected" if wrong else "approved") if draw.random() < seen else None
        found.append(Judged(confidence, seen, verdict))
    return found


def error_at(confidence: float, wrong_below: float) -> float:
    return min(1.0, max(0.0, (1.0 - confidence) / (1.0 - wrong_below) * 0.5))


def true_error(at: float, wrong_below: float = 0.6) -> float:
    """Of all above a threshold, in that world."""
    steps = [at + (1.0 - at) * (n + 0.5) / 1000 for n in range(1000)]
    return math.fsum(error_at(each, wrong_below) for each in steps) / len(steps)


def test_a_threshold_that_is_proposed_keeps_its_promise_in_most_worlds() -> None:
    proposed = [propose(world(6_000, seed, share=0.2), WANTED, above) for seed in range(40)]
    found = [each.threshold for each in proposed if each.threshold is not None]
    broken = sum(true_error(at) > WANTED for at in found)
    assert len(found) >= 30, "there are decisions enough"
    assert broken <= 3, f"of {len(found)} worlds the promise is broken in {broken}; {ALPHA / 2:.1%} may be"


def test_it_comes_near_to_the_lowest_that_there_is() -> None:
    best = next(percent / 100 for percent in range(50, 100) if true_error(percent / 100) <= WANTED)
    found = propose(world(40_000, 1), WANTED, above)
    assert found.threshold is not None and best <= found.threshold <= best + 0.03


def test_leaving_out_who_was_not_looked_at_would_deceive() -> None:
    """Nine tenths of the sure ones went on unseen, and are wrong half of the time when somebody looks."""
    seen = [Judged(0.95, 0.1, "rejected" if n % 2 else "approved") for n in range(100)]
    unseen = [Judged(0.95, 0.1, None)] * 900
    waited = [Judged(0.6, 1.0, "approved")] * 4_000
    found = propose([*seen, *unseen, *waited], WANTED, above)
    assert found.state == "too_many_errors"
    table = calibrate([*seen, *unseen, *waited], automatic_error=WANTED, person_error=WANTED)
    assert table.bins[9].approved == pytest.approx(0.5)
    assert table.ece is not None and table.ece == pytest.approx((1_000 * 0.45 + 4_000 * 0.4) / 5_000)


def test_too_few_decisions_are_said_to_be() -> None:
    found = propose([Judged(0.95, 1.0, "approved")] * 20, WANTED, above)
    assert (found.state, found.threshold) == ("too_few", None)
    assert "not enough decisions: 20 of 20" in found.why
    nobody = calibrate([Judged(0.95, 0.0, None)] * 10_000, automatic_error=0.05, person_error=0.1)
    assert (nobody.automatic.state, nobody.labelled, nobody.ece, nobody.brier) == ("too_few", 0, None, None)
    assert calibrate([], automatic_error=0.05, person_error=0.1).count == 0


def test_a_stratum_that_nobody_looks_at_counts_as_wrong() -> None:
    seen = [Judged(0.8, 1.0, "approved")] * 1_000
    assert propose(seen, WANTED, above).threshold is not None
    assert propose([*seen, *[Judged(0.8, 0.0, None)] * 200], WANTED, above).threshold is None


def test_an_edit_is_an_error() -> None:
    assert propose([Judged(0.95, 1.0, "edited")] * 500, WANTED, above).state == "too_many_errors"


def test_the_border_is_as_in_the_policy() -> None:
    at_it = [Judged(0.9, 1.0, "rejected")] * 500 + [Judged(0.95, 1.0, "approved")] * 500
    made = calibrate(at_it, automatic_error=0.05, person_error=0.05)
    assert made.automatic.threshold == 0.9, "what is at it does not go on untold"
    assert made.person.threshold == 0.91, "what is at it goes on"


@pytest.mark.parametrize(("errors", "n", "upper"), [(0, 10, 0.30850), (3, 20, 0.37893), (10, 10, 1.0), (0, 0, 1.0)])
def test_the_bound_is_that_of_the_tables(errors: int, n: int, upper: float) -> None:
    assert clopper_pearson_upper(errors, n, 0.025) == pytest.approx(upper, abs=1e-4)


DECISIONS = st.builds(
    Judged,
    st.floats(0.0, 1.0),
    st.sampled_from([0.02, 0.1, 1.0]),
    st.sampled_from([None, "approved", "edited", "rejected"]),
)


@given(st.lists(DECISIONS, max_size=60))
def test_the_table_counts_everyone_once_and_the_order_is_nothing(found: list[Judged]) -> None:
    bins = reliability(found)
    assert sum(each.count for each in bins) == len(found)
    made = calibrate(found, automatic_error=0.3, person_error=0.3)
    turned = calibrate(found[::-1], automatic_error=0.3, person_error=0.3)
    assert (made.automatic, made.person) == (turned.automatic, turned.person)
    for each in bins:
        if each.approved is not None and each.interval is not None:
            assert each.interval[0] <= each.interval[1] and 0.0 <= each.approved <= 1.0


@pytest.mark.parametrize("wanted", [0.0, 1.0, float("nan")])
def test_a_rate_that_is_none_is_refused(wanted: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        calibrate([], automatic_error=wanted, person_error=0.1)


def test_it_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from chimera.review.reliability_plot import plot_reliability

    plot_reliability(calibrate(world(500, 1), automatic_error=0.1, person_error=0.2), path := tmp_path / "it.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="cannot be written"):
        plot_reliability(calibrate([], automatic_error=0.1, person_error=0.2), tmp_path / "none" / "it.png")
