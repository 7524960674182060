"""What a merge reads, judges and counts, and how much of it at the most."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import cache
from typing import Any

import pytest

from chimera.arena.envs.registry import environment
from chimera.arena.validators import reading
from chimera.arena.validators.decide import Terms, decide
from chimera.arena.validators.merge import merge
from chimera.arena.validators.merged import MILLION, Merged
from chimera.arena.validators.throne import Throne
from chimera.core.errors import EnvironmentNotFound, InputError, ObjectTooLarge
from tests.unit.arena.validators import adversaries as bad
from tests.unit.arena.validators.adversaries import (
    CHAMPION,
    GOOD,
    FixedBeacon,
    Store,
    World,
    blocks,
    hotkey,
    merged,
    offences,
)

WORLD = World()
HONEST = ("Ann", "Bob", "Cid")
TERMS = Terms(env_ids=WORLD.env_ids, budget=400)
THRONE = Throne(champion=bad.CHAMPION)


@cache
def honest(name: str) -> Store:
    return bad.honest(WORLD, name)


def winner(found: Merged) -> str:
    return decide(found, THRONE, TERMS, p0=0.51, now_s=9_000).winner


def alone() -> Merged:
    return merged({name: honest(name) for name in HONEST}, beacon=FixedBeacon())


def with_honest(**others: Store | Sequence[bytes]) -> dict[str, Store | Sequence[bytes]]:
    return {**{name: honest(name) for name in HONEST}, **others}


def test_evidence_from_before_a_reign_is_checked_and_not_counted() -> None:
    late = merged(with_honest(), since_s=WORLD.began_s + 3, beacon=FixedBeacon())
    assert {standing.samples for standing in late.standings} == {2 * (len(WORLD.pairs(hotkey("Ann"))) - 72)}
    assert offences(merged(with_honest(Mal=bad.false_verdict(WORLD, "Mal")), since_s=10**9)) == {
        hotkey("Mal"): "verdict"
    }
    assert not merged(with_honest(), since_s=10**9).own


def test_shared_challenges_of_a_slice_that_began_before_keep_their_places() -> None:
    """A block's time falls within a round: what is left of a slice keeps its indices, and two of three suffice."""
    sizes = dict(zip(HONEST, (5, 4, 3), strict=True))
    stores = {name: bad.honest(World(per_block=size), name) for name, size in sizes.items()}
    found = merged(stores, since_s=WORLD.began_s + 1, beacon=FixedBeacon())
    assert (
        sum(count.tally.total for count in found.shared if count.contender == GOOD) == WORLD.shared - 4
    )  # two have it
    assert {standing.trust_ppm for standing in found.standings} == {MILLION}


def test_evidence_from_after_the_ruling_is_not_counted() -> None:
    async def until(until_s: int) -> Merged:
        sources = {hotkey(name): blocks(honest(name)) for name in HONEST}
        return await merge(sources, beacon=FixedBeacon(), until_s=until_s)

    assert asyncio.run(until(WORLD.began_s + 100)).to_bytes() == alone().to_bytes()
    early = asyncio.run(until(WORLD.began_s + 1))
    assert {standing.samples for standing in early.standings} == {2 * WORLD.per_block}


def test_no_more_than_the_limit_of_own_challenges_counts_and_it_is_the_first_that_do() -> None:
    found = merged(with_honest(), most_own=7, beacon=FixedBeacon())
    assert {count.tally.total for count in found.own} == {7}
    first = [pair for pair in WORLD.pairs(hotkey("Ann")) if pair[0].challenge_id.startswith("own/")][:7]
    wins = sum(contender.verdict.ok and not champion.verdict.ok for champion, contender in first)
    (ann,) = [count for count in found.own if count.hotkey == hotkey("Ann") and count.contender == GOOD]
    assert ann.wins == wins


def test_what_is_kept_is_bounded_however_much_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_GROUPS", 1)
    found = merged(with_honest(), beacon=FixedBeacon())
    assert {count.contender for count in (*found.own, *found.shared)} == {GOOD}
    monkeypatch.setattr(reading, "MAX_ROUNDS", 0)
    assert not merged(with_honest(), beacon=FixedBeacon()).shared


def test_too_many_validators_and_negative_stakes_are_refused() -> None:
    with pytest.raises(InputError, match="256"):
        asyncio.run(merge({f"v{number}": blocks([]) for number in range(257)}))
    with pytest.raises(InputError, match="stakes"):
        merged({"Ann": {}}, stakes={"Ann": -1})


def test_other_environments_and_miners_are_read_and_not_judged_so_that_they_need_not_be_installed() -> None:
    wide = World(env_ids=("mult8-v0", "subset-v0"), own=12)
    stores = {name: bad.honest(World(own=12) if name == "Ann" else wide, name) for name in HONEST}

    def lookup(env_id: str) -> Any:
        if env_id != "mult8-v0":
            raise EnvironmentNotFound(f"no {env_id} here")
        return environment(env_id)

    blind = merged(stores, lookup=lookup, beacon=FixedBeacon())
    assert offences(blind) == {hotkey("Bob"): "environment", hotkey("Cid"): "environment"}
    found = merged(stores, lookup=lookup, env_ids=["mult8-v0"], beacon=FixedBeacon())
    assert not found.offences
    assert {count.env_id for count in (*found.own, *found.shared)} == {"mult8-v0"}
    assert {standing.samples for standing in found.standings} == {2 * 2 * (12 + 12)}
    both = merged(stores, env_ids=["mult8-v0"], miners=[CHAMPION, GOOD], beacon=FixedBeacon())
    assert {count.contender for count in (*both.own, *both.shared)} == {GOOD}
    with pytest.raises(EnvironmentNotFound):
        merged(stores, lookup=lookup, env_ids=["subset-v0"])


def test_what_is_not_judged_is_still_counted_without_gaps_and_repeats() -> None:
    for made in (bad.repeater, bad.twice_in_a_block, bad.cherry_picker):
        kind = "gap" if made is bad.cherry_picker else "replay"
        assert offences(merged({"Mal": made(WORLD, "Mal")}, env_ids=["subset-v0"])) == {hotkey("Mal"): kind}
    assert not merged({"Mal": bad.false_verdict(WORLD, "Mal")}, env_ids=["subset-v0"]).offences


def test_a_chain_may_be_so_long_and_no_longer_wherever_it_is_read() -> None:
    samples = 2 * len(WORLD.pairs(hotkey("Ann")))
    size = sum(map(len, honest("Ann").values()))
    for limit in ({"most_samples": samples}, {"most_bytes": size}):
        assert not merged({"Ann": honest("Ann")}, **limit).offences
        over = {name: most - 1 for name, most in limit.items()}
        found = merged({"Ann": honest("Ann")}, **over)
        assert offences(found) == {hotkey("Ann"): "limit"}
        assert not found.own
        copies = [data for data in honest("Ann").values() for _ in range(3)]
        assert not merged({"Ann": copies}, **limit).offences  # copies are not the chain's length


def test_copies_without_end_are_not_read_to_the_end() -> None:
    told = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal told
        while True:
            told += 1
            assert told < 10_000
            yield honest("Ann")[0]

    found = asyncio.run(merge({hotkey("Ann"): endless()}))
    assert found.unread == (hotkey("Ann"),)
    assert told == reading.MAX_COPIES + 2


def test_an_object_that_is_too_large_for_a_block_is_an_offence() -> None:
    async def large() -> AsyncIterator[bytes]:
        yield honest("Ann")[0]
        raise ObjectTooLarge("17 MB")

    assert offences(asyncio.run(merge({hotkey("Ann"): large()}))) == {hotkey("Ann"): "limit"}


def test_what_was_drawn_is_forgotten_when_a_chain_has_been_read() -> None:
    found = reading.Reading(hotkey("Ann"), most=100)
    for data in honest("Ann").values():
        found.take(data)
    assert found._draws._shared
    found.end()
    assert not found._draws._shared
    assert found.own
