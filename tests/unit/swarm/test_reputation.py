from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.routing import simulate
from chimera.swarm.attempt import Appraisal, Attempt
from chimera.swarm.reputation import (
    HALF_LIFE_S,
    MEMORY,
    TRIES,
    Belief,
    beliefs_of,
    chance_better,
    choose,
    least_done,
    standing,
    summary,
)
from chimera.swarm.roster import Roster


@dataclass
class Worker:
    name: str = ""
    done: int = 0
    beliefs: dict[str, Belief] = field(default_factory=dict)


def worker(good: float, bad: float, name: str = "", done: int = 0, skill: str = "") -> Worker:
    return Worker(name, done, {skill: Belief(good, bad)})


def share_of_first(first: Worker, second: Worker, skill: str = "", choices: int = 2_000) -> float:
    """How often the first of two is chosen, whichever of them is met first."""
    rng = random.Random(1)
    won = 0
    for _ in range(choices):
        pair = [first, second]
        rng.shuffle(pair)
        won += choose(pair, skill, 0.0, rng) is first
    return won / choices


def test_a_belief_is_a_beta_posterior() -> None:
    belief = Belief()
    assert belief.estimate(0.0) == pytest.approx((0.5, 1 / 12)), "nothing known: the uniform distribution"
    for good in (1.0, 1.0, 0.5):
        belief.appraise(good, 0.0)
    assert belief.estimate(0.0) == pytest.approx((3.5 / 5, 3.5 * 1.5 / (25 * 6)))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10 * HALF_LIFE_S)), max_size=int(MEMORY)), st.floats(0, 1e6))
def test_a_belief_is_the_same_whenever_it_is_looked_at(appraised: list[tuple[float, float]], later: float) -> None:
    """Decay is lazy: it must equal the sum over all appraisals, each halved once every half-life since."""
    belief, now, events = Belief(), 0.0, []
    for good, pause in appraised:
        now += pause
        belief.estimate(now + later)
        belief.appraise(good, now)
        events.append((good, now))
    end = now + later
    weights = [0.5 ** ((end - at) / HALF_LIFE_S) for _, at in events]
    expected = sum(good * weight for (good, _), weight in zip(events, weights, strict=True))
    assert belief.counts(end) == pytest.approx((expected, sum(weights) - expected), abs=1e-9)


def test_a_clock_that_is_behind_takes_nothing_away() -> None:
    assert Belief(4.0, 1.0, at=1e9).counts(5.0) == (4.0, 1.0)


def test_a_belief_holds_so_many_attempts_and_no_more() -> None:
    belief = Belief()
    for _ in range(10_000):
        belief.appraise(0.0, 0.0)
    assert belief.counts(0.0) == pytest.approx((0.0, MEMORY))
    for _ in range(20):
        belief.appraise(1.0, 0.0)
    assert belief.estimate(0.0)[0] > 0.5


@pytest.mark.parametrize("good", [-0.1, 1.1, float("nan")])
def test_an_appraisal_outside_of_0_to_1_is_refused(good: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Belief().appraise(good, 0.0)


def test_the_chance_to_be_better_is_that_of_thompson_samples() -> None:
    """The closed form against samples of the two Betas themselves."""
    rng = random.Random(2)
    for one, two in [((8, 2), (5, 5)), ((3, 1), (1, 3)), ((40, 10), (35, 15)), ((1, 1), (9, 3))]:
        first, second = Belief(*one).estimate(0.0), Belief(*two).estimate(0.0)
        alphas = [(1 + good, 1 + bad) for good, bad in (one, two)]
        won = sum(rng.betavariate(*alphas[0]) > rng.betavariate(*alphas[1]) for _ in range(20_000)) / 20_000
        assert chance_better(*first, *second) == pytest.approx(won, abs=0.03)


def test_the_better_one_is_chosen_nearly_always_and_the_other_now_and_then() -> None:
    assert 0.97 < share_of_first(worker(50, 2, done=60), worker(2, 50, done=40)) < 1.0
    assert 0.7 < share_of_first(worker(8, 2, done=5), worker(5, 5, done=5)) < 0.95, "little is known of them yet"


def test_of_equally_good_ones_the_one_that_did_less_is_chosen() -> None:
    assert share_of_first(worker(50, 1, done=10), worker(51, 1, done=11)) == 1.0


def test_a_skill_has_a_reputation_of_its_own() -> None:
    poet, other = worker(50, 0, skill="rhyme"), worker(0, 50, skill="rhyme")
    poet.done = other.done + 1
    assert share_of_first(poet, other, skill="rhyme") > 0.97
    assert share_of_first(poet, other) == 0.0, "for anything else they are equals, and it has done more"


def test_choice_looks_on_while_it_has_met_only_bad_ones_and_not_longer() -> None:
    met = 0

    def crowd(*workers: Worker) -> Iterator[Worker]:
        nonlocal met
        met = 0
        for one in workers:
            met += 1
            yield one

    bad, fine = [worker(0, 50, done=n) for n in range(TRIES - 1)], worker(50, 0)
    rng = random.Random(4)
    found = [choose(crowd(*bad, fine), "", 0.0, rng) is fine for _ in range(200)]
    assert sum(found) > 190
    met = 0
    choose(crowd(fine, *bad), "", 0.0, random.Random(1))
    assert met == 2


def test_nobody_is_chosen_from_nobody() -> None:
    assert choose([], "", 0.0, random.Random(0)) is None
    assert least_done([]) is None


def test_the_standing_of_an_agent_goes_there_and_back() -> None:
    beliefs = {"": Belief(3.0, 1.0, 7.0), "rhyme": Belief(0.5, 2.0, 9.0)}
    assert standing(beliefs) == {"": (4.0, 2.0, 7.0), "rhyme": (1.5, 3.0, 9.0)}
    assert beliefs_of(standing(beliefs)) == beliefs
    assert summary(beliefs.values(), 0.0) == (4.5 / 8.5, 6.5)


@pytest.mark.parametrize(("agents", "load"), [(100, 0.3), (100, 0.8), (400, 0.5)])
def test_with_a_fifth_of_bad_agents_reputation_at_least_halves_the_failures(agents: int, load: float) -> None:
    by_load = simulate("least_loaded", agents=agents, load=load, attempts=4_000)
    by_reputation = simulate("reputation", agents=agents, load=load, attempts=4_000)
    assert by_load.failed > 700, "about a fifth of 4,000"
    assert by_load.failed >= 2 * by_reputation.failed
    assert by_reputation.healthy_idle == 0 and by_reputation.healthy_least >= 1


class Crew:
    """Ten agents that work on one attempt at a time, which lasts `each_s`."""

    def __init__(self, each_s: float) -> None:
        self._shard = Roster(rng=random.Random(5))
        self._each_s = each_s
        self._made = 0
        self.now = 0.0
        for n in range(10):
            self._shard.add(f"a{n}", role="worker", policy="p", cell="c")
        self._shard.cell_up("c")

    def share_of_a0(self, attempts: int, *, sick: bool) -> float:
        """How much of this many more attempts goes to a0. The others do well."""
        given = 0
        for _ in range(attempts):
            self._made += 1
            self.now += self._each_s
            job = Attempt(f"m/{self._made}/0/1", "m", f"{self._made}", 0, 1, "worker", 5.0, b"")
            agent = self._shard.submit([job], self.now).assignments[0].agent_id
            given += agent == "a0"
            self._shard.appraise([Appraisal(agent, "", float(agent != "a0" or not sick))], self.now)
            self._shard.done(job.id, self.now)
        return given / attempts


def test_a_bad_agent_is_tried_now_and_then_and_gets_its_share_again_when_it_does_well() -> None:
    crew = Crew(each_s=0.0)
    assert 0.0 < crew.share_of_a0(5_000, sick=True) < 0.02, "a tenth would be its share"
    crew.share_of_a0(20_000, sick=False)
    assert crew.share_of_a0(2_000, sick=False) > 0.08


def test_what_was_bad_fades_with_time() -> None:
    crew = Crew(each_s=1.0)
    assert crew.share_of_a0(2_000, sick=True) < 0.02
    crew.now += 6 * HALF_LIFE_S
    assert crew.share_of_a0(2_000, sick=False) > 0.08
