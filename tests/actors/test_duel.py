"""The duel actor without Ray: what it plays, what it keeps, and what comes of it when its process dies."""

from __future__ import annotations

import asyncio

import pytest

from chimera.actors import duel as actor
from chimera.actors.duel import MAX_UNREAD, Duel, play_match
from chimera.arena.duel.match import MatchPlan, MinerRef, Pair, RuleSpec
from chimera.arena.duel.types import DuelResult
from chimera.core.errors import InputError, NotBegun
from tests.actors.duel_handle import DuelHandle


def plan(
    count: int, *, champion: str = "oracle:p=0.5", contender: str = "oracle:p=0.9", rule: RuleSpec | None = None
) -> MatchPlan:
    return MatchPlan(
        env_id="mult8-v0",
        champion=MinerRef(miner_id="old", spec=champion),
        contender=MinerRef(miner_id="new", spec=contender),
        challenge_ids=tuple(f"duel/test/{i}" for i in range(count)),
        rule=rule,
        concurrency=4,
    )


async def all_of(handle: DuelHandle, match: MatchPlan) -> tuple[list[Pair], DuelResult | None]:
    pairs, result = [], None
    async for played in play_match(handle, match):
        pairs += played.pairs
        result = played.result or result
    return pairs, result


def replies(pair: Pair) -> tuple[str, str, str]:
    return pair.champion.challenge_id, pair.champion.response, pair.contender.response


async def test_a_match_without_a_rule_plays_every_challenge_once_in_order() -> None:
    pairs, result = await all_of(DuelHandle(), plan(50))
    assert [pair.champion.challenge_id for pair in pairs] == list(plan(50).challenge_ids)
    assert [pair.contender.challenge_id for pair in pairs] == list(plan(50).challenge_ids)
    assert {(pair.champion.miner_id, pair.contender.miner_id) for pair in pairs} == {("old", "new")}
    assert result is None


async def test_a_rule_ends_the_match_and_nothing_after_it_is_evidence() -> None:
    pairs, result = await all_of(DuelHandle(), plan(400, rule=RuleSpec(budget=400)))
    assert result is not None and result.decision == "contender"
    assert len(pairs) == result.wins + result.losses + result.ties < 400


async def test_an_actor_that_dies_plays_only_what_is_left_and_the_result_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actor, "PAUSE_S", 0.0)
    match = plan(400, champion="oracle:p=0.6", contender="oracle:p=0.65", rule=RuleSpec(budget=300))
    undisturbed, expected = await all_of(DuelHandle(), match)
    handle = DuelHandle(dies_after=(2, 4, 7))
    disturbed, result = await all_of(handle, match)
    assert handle.lives > 1
    assert [replies(pair) for pair in disturbed] == [replies(pair) for pair in undisturbed]
    assert result == expected


async def test_who_collects_slowly_is_waited_for() -> None:
    duel = Duel(named="test")
    await duel.begin("m", plan(3 * MAX_UNREAD))
    for _ in range(200):
        await asyncio.sleep(0.01)
        kept = (await duel.collect("m", 0, 0.0)).pairs
        if len(kept) >= MAX_UNREAD:
            break
    await asyncio.sleep(0.2)
    assert len((await duel.collect("m", 0, 0.0)).pairs) == MAX_UNREAD
    await duel.stop()


async def test_what_was_collected_is_forgotten_and_asking_again_changes_nothing() -> None:
    duel = Duel(named="test")
    await duel.begin("m", plan(20))
    await duel.begin("m", plan(20))
    for _ in range(500):
        first = await duel.collect("m", 0, 1.0)
        if first.ended:
            break
        await asyncio.sleep(0.01)
    assert [pair.champion.challenge_id for pair in first.pairs] == list(plan(20).challenge_ids)
    again = await duel.collect("m", 5, 1.0)
    assert again == await duel.collect("m", 5, 1.0)
    assert again.first == 5 and again.pairs == first.pairs[5:]


async def test_a_match_that_is_not_played_here_is_refused() -> None:
    with pytest.raises(NotBegun):
        await Duel(named="test").collect("m", 0, 0.0)


async def test_what_ends_a_match_is_raised_where_it_is_collected() -> None:
    with pytest.raises(InputError, match="nobody"):
        await all_of(DuelHandle(), plan(3, champion="nobody"))
