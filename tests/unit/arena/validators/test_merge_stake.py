"""Stake: who has little of it has little to say, and whoever is set at odds, by whomever, hands his to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache

import pytest

from chimera.arena.validators.decide import Terms, decide
from chimera.arena.validators.merge import merge
from chimera.arena.validators.merged import MILLION, Merged
from chimera.arena.validators.throne import Throne
from chimera.core.errors import StorageUnavailable
from tests.unit.arena.validators import adversaries as bad
from tests.unit.arena.validators.adversaries import (
    CHAMPION,
    GOOD,
    POOR,
    FixedBeacon,
    Store,
    World,
    aside,
    blocks,
    hotkey,
    key,
    merged,
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


def test_it_is_stake_that_makes_a_majority_and_not_numbers() -> None:
    liars = {f"Liar{number}": bad.liar(WORLD, f"Liar{number}") for number in range(5)}
    stakes = {**dict.fromkeys(HONEST, 10**16), **dict.fromkeys(liars, 3 * 10**15)}  # RAO: beyond 2^53
    found = merged(with_honest(**liars), stakes=stakes, beacon=FixedBeacon())
    assert (found.own, found.shared) == (alone().own, alone().shared)
    assert winner(merged(with_honest(**liars), beacon=FixedBeacon())) != GOOD


def test_liars_with_more_than_a_third_of_the_stake_keep_the_champion_and_crown_nobody() -> None:
    for made in (bad.liar, bad.two_faced):
        for stake in (16, 29):  # of 46 and 59
            stakes = {**dict.fromkeys(HONEST, 10), "Mal": stake}
            found = merged(with_honest(Mal=made(WORLD, "Mal")), stakes=stakes, beacon=FixedBeacon())
            assert not [count for count in found.own if count.contender == GOOD]
            assert not found.offences
            assert winner(found) == CHAMPION


FACES = {"Ann": 0.97, "Bob": 0.5, "Cid": 0.03}
"""At what rate a miner answers whom."""

SHARES = {"Ann": 25, "Bob": 25, "Cid": 24, "Mal": 26}


def faced(name: str, rate: float, *, shared: float = 0.5, own: int = 160) -> Store:
    """What a validator publishes to whom a miner shows this face: `GOOD`, at other rates; `POOR` has one face."""
    seen = World(skills=((CHAMPION, 0.5), (GOOD, rate), (POOR, 0.2)), own=own)
    told = World(skills=((CHAMPION, 0.5), (GOOD, shared), (POOR, 0.2)), own=own)
    pairs = [
        there if there[0].challenge_id.startswith("beacon/") else here
        for here, there in zip(seen.pairs(hotkey(name)), told.pairs(hotkey(name)), strict=True)
    ]
    return bad.stored(seen.chain(key(name), pairs))


def faces(**others: Store) -> Merged:
    stores = {**{name: faced(name, rate) for name, rate in FACES.items()}, **others}
    return merged(stores, stakes={name: SHARES[name] for name in stores}, beacon=FixedBeacon())


def test_a_miner_with_two_faces_wins_nothing_and_sets_nobody_against_the_others() -> None:
    found = faces(Mal=faced("Mal", 0.97))
    assert winner(found) == CHAMPION
    assert not found.offences
    assert {standing.trust_ppm for standing in found.standings} == {MILLION}
    assert {standing.stake_ppm for standing in found.standings} == {SHARES[name] * 10_000 for name in SHARES}
    assert aside(found) == {(hotkey("Bob"), GOOD), (hotkey("Cid"), GOOD)}
    assert not [count for count in found.own if count.contender == GOOD]
    assert sum(count.tally.total for count in found.own if count.contender == POOR) == 4 * 160
    assert sum(count.tally.total for count in found.shared if count.contender == GOOD) == WORLD.shared


def test_a_miner_that_tells_validators_apart_where_all_are_asked_the_same_wins_nothing_either() -> None:
    rates = {"Ann": 0.97, "Bob": 0.03, "Cid": 0.03, "Mal": 0.97}
    stores = {name: faced(name, rate, shared=rate) for name, rate in rates.items()}
    found = merged(stores, stakes=SHARES, beacon=FixedBeacon())
    assert winner(found) == CHAMPION
    assert not [count for count in found.own if count.contender == GOOD]
    assert not sum(count.wins for count in found.shared if count.contender == GOOD)


def test_a_validator_of_a_quarter_does_not_rule_over_other_miners_by_way_of_a_miner_with_two_faces() -> None:
    """What it says of POOR is a lie; those whom GOOD has set at odds are still there to contradict it."""
    seen = World(skills=((CHAMPION, 0.5), (GOOD, 0.97), (POOR, 0.97)), own=160)
    honest_of_poor = World(skills=((CHAMPION, 0.5), (GOOD, 0.5), (POOR, 0.2)), own=160)
    pairs = [
        there if there[0].challenge_id.startswith("beacon/") else here
        for here, there in zip(seen.pairs(hotkey("Mal")), honest_of_poor.pairs(hotkey("Mal")), strict=True)
    ]
    found = faces(Mal=bad.stored(seen.chain(key("Mal"), pairs)))
    assert (hotkey("Mal"), POOR) in aside(found)
    assert {count.hotkey for count in found.own if count.contender == POOR} == {hotkey(name) for name in FACES}
    assert winner(found) == CHAMPION


def biased(name: str) -> Store:
    """Tells the truth where all are asked the same, and turns a sixth of its own challenges round."""
    pairs = EVEN.pairs(hotkey(name), lies=lambda each: each.startswith("own/") and each.endswith(("1", "5")))
    return bad.stored(EVEN.chain(key(name), pairs))


EVEN = World(skills=((CHAMPION, 0.5), (GOOD, 0.5)), own=60)


@pytest.mark.parametrize("stake", [0, 1])
def test_validators_without_a_stake_to_speak_of_change_no_count_however_many_they_are(stake: int) -> None:
    stores = {name: bad.honest(EVEN, name) for name in HONEST}
    stakes = dict.fromkeys(HONEST, 10**15)
    expected = merged(stores, stakes=stakes, beacon=FixedBeacon())
    crowd = {f"Syb{number}": biased(f"Syb{number}") for number in range(8)}
    found = merged({**stores, **crowd}, stakes={**stakes, **dict.fromkeys(crowd, stake)}, beacon=FixedBeacon())
    assert (found.own, found.shared) == (expected.own, expected.shared)
    assert found.trust_of(hotkey("Syb0")) == (MILLION if stake else 0)
    assert {count.weight_ppm for count in found.own} == {MILLION}


def test_to_be_many_is_no_gain() -> None:
    """A tenth of the stake, in one hand or in eight: its samples weigh a tenth of the others' in all."""
    stores = {name: bad.honest(EVEN, name) for name in HONEST}

    def mass(crowd: Sequence[str], stake: int) -> tuple[int, int]:
        stakes = {**dict.fromkeys(HONEST, 240), **dict.fromkeys(crowd, stake)}
        found = merged({**stores, **{name: biased(name) for name in crowd}}, stakes=stakes, beacon=FixedBeacon())
        few = {hotkey(name) for name in crowd}
        return (
            sum(count.weight_ppm * count.tally.total for count in found.own if count.hotkey in few),
            sum(count.weight_ppm * count.tally.total for count in found.own if count.hotkey not in few),
        )

    honest = 3 * 60 * MILLION
    assert mass(["Syb0"], 80) == (60 * (MILLION // 3), honest)
    assert mass([f"Syb{number}" for number in range(8)], 10) == (8 * 60 * (MILLION // 24), honest)


def test_who_has_no_permit_is_not_even_read() -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    sources = {hotkey(name): blocks(honest(name)) for name in HONEST}
    stakes = dict.fromkeys(sources, 1)
    found = asyncio.run(merge({**sources, hotkey("Mal"): never()}, stakes=stakes, beacon=FixedBeacon()))
    assert found.to_bytes() == alone().to_bytes()


def test_a_store_out_of_reach_is_no_offence_and_its_evidence_is_left_out() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield honest("Mal")[0]
        raise StorageUnavailable("out of reach")

    sources = {hotkey(name): blocks(honest(name)) for name in HONEST}
    found = asyncio.run(merge({**sources, hotkey("Mal"): broken()}, beacon=FixedBeacon()))
    assert found.unread == (hotkey("Mal"),)
    assert not found.offences
    assert (found.own, found.shared) == (alone().own, alone().shared)


def test_to_keep_the_others_away_is_not_to_rule() -> None:
    async def gone() -> AsyncIterator[bytes]:
        raise StorageUnavailable("out of reach")
        yield b""

    async def without(others: Callable[[], AsyncIterator[bytes]], stake: int) -> Merged:
        sources = {hotkey("Mal"): blocks(bad.liar(WORLD, "Mal")), hotkey("Ann"): others(), hotkey("Bob"): others()}
        return await merge(sources, stakes={hotkey("Mal"): 4, hotkey("Ann"): 1, hotkey("Bob"): stake})

    for absent in (gone, lambda: blocks([])):
        lone = asyncio.run(without(absent, 1))
        assert lone.trust_of(hotkey("Mal")) == MILLION  # a third is absent, and no more
        found = asyncio.run(without(absent, 2))
        assert not found.own
        assert not found.shared
        assert {standing.trust_ppm for standing in found.standings} == {0}


def test_offenders_are_not_missed() -> None:
    forgers = {f"Mal{number}": bad.false_verdict(WORLD, f"Mal{number}") for number in range(5)}
    found = merged({"Ann": honest("Ann"), **forgers}, beacon=FixedBeacon())
    assert found.trust_of(hotkey("Ann")) == MILLION


def test_a_lone_validator_is_believed() -> None:
    found = merged({"Ann": honest("Ann")}, beacon=FixedBeacon())
    assert found.trust_of(hotkey("Ann")) == MILLION
    assert sum(count.tally.total for count in found.shared if count.contender == POOR) == WORLD.shared


def test_nobody_at_all_is_nothing() -> None:
    assert winner(merged({})) == bad.CHAMPION
    assert merged({"Ann": {}}).standings[0].head_index == -1
