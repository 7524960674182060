"""Stake: who has little of it has little to say, and whoever is set at odds, by whomever, hands his to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cache
from typing import Any

import pytest

from chimera.arena.validators import merge as merging
from chimera.arena.validators import reading
from chimera.arena.validators.decide import Terms, decide
from chimera.arena.validators.merge import merge
from chimera.arena.validators.merged import MILLION, Merged
from chimera.arena.validators.throne import Throne
from chimera.core.errors import EnvironmentNotFound, InputError, StorageError, StorageUnavailable
from tests.unit.arena.validators import adversaries as bad
from tests.unit.arena.validators.adversaries import (
    CHAMPION, GOOD, POOR, FixedBeacon, Store, World, aside, blocks, hotkey, key, merged, offences
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
    stakes = {**dict.fromkeys(HONEST, 10**16), **dict.fromkeys(liars, 5 * 10**15)}  # RAO: beyond 2^53
    found = merged(with_honest(**liars), stakes=stakes, beacon=FixedBeacon())
    assert (found.own, found.shared) == (alone().own, alone().shared)
    assert winner(merged(with_honest(**liars), beacon=FixedBeacon())) != GOOD


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
    found = asyncio.run(merge({**sources, hotkey("Mal"): broken()}, heads=heads("Mal"), beacon=FixedBeacon()))
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
