"""The merge: what bad validators publish changes nothing, and the order in which anything comes changes no byte."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.canonical import decode
from chimera.arena.validators.blocks import block_hash, decode_block
from chimera.arena.validators.decide import Terms, decide
from chimera.arena.validators.merge import merge
from chimera.arena.validators.merged import MILLION, Merged, OwnCount
from chimera.arena.validators.record import Head
from chimera.arena.validators.throne import Throne
from tests.unit.arena.validators import adversaries as bad
from tests.unit.arena.validators.adversaries import (
    GOOD,
    POOR,
    FixedBeacon,
    Store,
    World,
    aside,
    hotkey,
    key,
    merged,
    offences,
)

WORLD = World()
HONEST = ("Ann", "Bob", "Cid")
TERMS = Terms(env_ids=WORLD.env_ids, budget=400)
THRONE = Throne(champion=bad.CHAMPION)

Made = Callable[[World, str], Store]

PROVABLE: dict[str, Made] = {
    "verdict": bad.false_verdict,
    "verdict on champion": bad.false_verdict_on_the_champion,
    "chain": bad.unlinked,
    "info": bad.forged_info,
    "prompt": bad.forged_prompt,
    "gap": bad.cherry_picker,
    "gap in chain": bad.gap_in_chain,
    "replay": bad.repeater,
    "replay in block": bad.twice_in_a_block,
    "foreign": lambda world, name: bad.copier(world, name, HONEST[0]),
    "foreign samples": lambda world, name: bad.thief(world, name, HONEST[0]),
    "beacon": bad.fortune_teller,
    "signature": bad.unsigned,
    "undecodable": bad.garbage,
}
"""What a merge proves, by the kind of offence, and a word more where there are several of a kind."""


@cache
def honest(name: str) -> Store:
    return bad.honest(WORLD, name)


def winner(found: Merged) -> str:
    return decide(found, THRONE, TERMS, p0=0.51, now_s=9_000).winner


def alone() -> Merged:
    return merged({name: honest(name) for name in HONEST}, beacon=FixedBeacon())


def of_honest(found: Merged, names: Sequence[str] = HONEST) -> tuple[OwnCount, ...]:
    return tuple(count for count in found.own if count.hotkey in {hotkey(name) for name in names})


def with_honest(**others: Store | Sequence[bytes]) -> dict[str, Store | Sequence[bytes]]:
    return {**{name: honest(name) for name in HONEST}, **others}


def test_honest_validators_find_the_better_miner() -> None:
    found = alone()
    assert winner(found) == GOOD
    assert not found.offences
    assert {standing.trust_ppm for standing in found.standings} == {MILLION}
    counted = sum(count.tally.total for count in found.own if count.contender == GOOD)
    assert counted == len(HONEST) * WORLD.own
    assert sum(count.tally.total for count in found.shared if count.contender == GOOD) == WORLD.shared


@pytest.mark.parametrize("what", PROVABLE)
def test_what_is_proved_against_a_validator_takes_it_out_and_nothing_else(what: str) -> None:
    found = merged(with_honest(Mal=PROVABLE[what](WORLD, "Mal")), beacon=FixedBeacon())
    assert offences(found) == {hotkey("Mal"): what.split()[0]}
    (standing,) = [standing for standing in found.standings if standing.hotkey == hotkey("Mal")]
    assert (standing.trust_ppm, standing.compared, standing.samples) == (0, 0, 0)
    assert (found.own, found.shared) == (alone().own, alone().shared)
    assert winner(found) == GOOD


def test_anothers_blocks_are_foreign_even_where_they_hold_nothing_of_its_own() -> None:
    world = World(own=0)
    stores = {name: bad.honest(world, name) for name in HONEST}
    found = merged({**stores, "Mal": stores["Ann"]}, beacon=FixedBeacon())
    assert offences(found) == {hotkey("Mal"): "foreign"}


@pytest.mark.parametrize("made", [bad.liar, bad.two_faced])
def test_lies_that_pass_every_audit_are_found_by_comparison_and_set_aside(made: Made) -> None:
    """Between which miners so few samples cannot show a lie, it counts as far as its author is trusted."""
    found = merged(with_honest(Mal=made(WORLD, "Mal")), beacon=FixedBeacon())
    assert aside(found) == {(hotkey("Mal"), GOOD)}
    assert not found.offences
    assert of_honest(found) == alone().own
    assert [count.contender for count in found.own if count.hotkey == hotkey("Mal")] == [POOR] * (made is bad.two_faced)
    assert found.shared == alone().shared
    assert winner(found) == GOOD


def test_who_lies_where_others_can_compare_is_not_trusted() -> None:
    few = World(own=2)  # too few to be at odds
    stores = {name: bad.honest(few, name) for name in HONEST}
    found = merged({**stores, "Mal": bad.liar(few, "Mal")}, beacon=FixedBeacon())
    (standing,) = [standing for standing in found.standings if standing.hotkey == hotkey("Mal")]
    assert not found.offences
    assert (standing.agreed, standing.trust_ppm) == (0, 0)
    assert standing.compared == 2 * 2 * few.shared
    assert {count.hotkey for count in found.own} == {hotkey(name) for name in HONEST}


def test_two_blocks_of_one_index_are_a_fork_whichever_comes_first() -> None:
    first, second = bad.honest(WORLD, "Mal")[1], bad.another_branch(WORLD, "Mal")
    for pair in ([first, second], [second, first]):
        stream = [honest("Mal")[0], *pair, *[honest("Mal")[index] for index in range(2, len(honest("Mal")))]]
        found = merged(with_honest(Mal=stream), beacon=FixedBeacon())
        assert offences(found) == {hotkey("Mal"): "fork"}
        assert (found.own, found.shared) == (alone().own, alone().shared)


def test_copies_and_new_signatures_of_a_block_are_no_offence_and_count_once() -> None:
    block = decode_block(honest("Ann")[1])
    again = bad.signed_again(block, key("Ann"))
    assert again != honest("Ann")[1]
    stream = [honest("Ann")[0], honest("Ann")[0], honest("Ann")[1], again, *list(honest("Ann").values())[2:]]
    found = merged({**with_honest(), "Ann": stream}, beacon=FixedBeacon())
    assert found.to_bytes() == alone().to_bytes()


def heads(*names: str) -> dict[str, Head]:
    found = {}
    for name in names:
        last = decode_block(honest(name)[max(honest(name))])
        found[hotkey(name)] = Head(index=last.header.block_index, hash=block_hash(last.header))
    return found


def test_a_chain_that_has_lost_its_known_head_is_truncated_and_its_head_stays_known() -> None:
    found = merged(with_honest(Mal=bad.shortened(WORLD, "Mal")), heads=heads("Mal", "Ann"), beacon=FixedBeacon())
    assert offences(found) == {hotkey("Mal"): "truncated"}
    assert winner(found) == GOOD
    kept = {standing.hotkey: standing.head_index for standing in found.standings}
    assert kept[hotkey("Mal")] == heads("Mal")[hotkey("Mal")].index
    assert offences(merged(with_honest(Mal={}), heads=heads("Mal"))) == {hotkey("Mal"): "truncated"}
    assert not merged(with_honest(Mal=bad.shortened(WORLD, "Mal"))).offences  # nobody knew


def test_a_chain_that_was_written_anew_is_a_fork() -> None:
    other = bad.honest(World(began_s=2_000), "Mal")
    found = merged(with_honest(Mal=other), heads=heads("Mal"), beacon=FixedBeacon())
    assert offences(found) == {hotkey("Mal"): "fork"}


def test_heads_follow_the_chains() -> None:
    seen = {standing.hotkey: Head(index=standing.head_index, hash=standing.head_hash) for standing in alone().standings}
    assert seen == heads(*HONEST)
    assert not merged(with_honest(), heads=seen).offences


def everybody() -> dict[str, Store | Sequence[bytes]]:
    """One of each kind that is proved wrong by its blocks, and three liars, whose blocks are sound."""
    others: dict[str, Store | Sequence[bytes]] = {
        f"Mal{number}": made(WORLD, f"Mal{number}") for number, made in enumerate(PROVABLE.values())
    }
    liars = {f"Liar{number}": bad.liar(WORLD, f"Liar{number}") for number in range(2)}
    two_faced = {"Face": bad.two_faced(WORLD, "Face")}
    forked = [*list(honest("Fork").values())[:2], bad.another_branch(WORLD, "Fork")]
    short = bad.shortened(WORLD, "Short")
    return {**others, **liars, **two_faced, "Fork": forked, "Short": short}


def test_all_of_them_at_once_leave_what_the_honest_alone_would_have() -> None:
    crowd = ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay")  # twice as many as those who lie in sound blocks
    stores = {**{name: honest(name) for name in crowd}, **everybody()}
    found = merged(stores, heads=heads("Short"), beacon=FixedBeacon())
    expected = merged({name: honest(name) for name in crowd}, beacon=FixedBeacon())
    assert (of_honest(found, crowd), found.shared) == (expected.own, expected.shared)
    assert winner(found) == GOOD
    believed = {standing.hotkey for standing in found.standings if standing.trust_ppm}
    assert believed == {hotkey(name) for name in (*crowd, "Face")}
    assert not believed & offences(found).keys()


@given(st.permutations(["Ann", "Bob", "Cid", "Mal", "Liar"]), st.data())
def test_the_order_of_validators_and_of_how_their_blocks_arrive_changes_no_byte(
    order: list[str], data: st.DataObject
) -> None:
    """All streams are read at their own pace, interleaved as drawn."""
    pauses = data.draw(st.lists(st.integers(0, 3), min_size=8, max_size=8))

    async def slow(store: Store, number: int) -> AsyncIterator[bytes]:
        for index in sorted(store):
            for _ in range(pauses[(index + number) % 8]):
                await asyncio.sleep(0)
            yield store[index]

    async def run() -> Merged:
        return await merge(
            {hotkey(name): slow(STORES[name], number) for number, name in enumerate(order)},
            stakes={hotkey(name): STAKES[name] for name in reversed(order)},
            beacon=FixedBeacon(),
        )

    found = asyncio.run(run())
    assert found.to_bytes() == REFERENCE.to_bytes()
    ruling = decide(found, THRONE, TERMS, p0=0.51, now_s=9_000)
    assert ruling.model_dump_json() == decide(REFERENCE, THRONE, TERMS, p0=0.51, now_s=9_000).model_dump_json()


SMALL = World(own=6, shared=3, per_block=4)
STAKES = {"Ann": 3, "Bob": 2, "Cid": 2, "Mal": 5, "Liar": 3}
STORES = {
    **{name: bad.honest(SMALL, name) for name in HONEST},
    "Mal": bad.false_verdict(SMALL, "Mal"),
    "Liar": bad.liar(SMALL, "Liar"),
}
REFERENCE = merged(STORES, stakes=STAKES, beacon=FixedBeacon())


def test_what_is_merged_is_canonical_whole_numbers_and_text() -> None:
    assert decode(REFERENCE.to_bytes()) == REFERENCE.model_dump(mode="json")


def test_a_round_that_the_beacon_cannot_tell_counts_for_nobody() -> None:
    class Silent(FixedBeacon):
        async def randomness(self, round: int) -> str:
            return await super().randomness(99)

    found = merged(with_honest(), beacon=Silent())
    assert not found.shared
    assert not found.offences
    assert winner(found) == bad.CHAMPION


def test_the_beacon_is_asked_only_for_what_a_majority_has_sampled() -> None:
    asked = []

    class Counting(FixedBeacon):
        async def randomness(self, round: int) -> str:
            asked.append(round)
            return await super().randomness(round)

    elsewhere = bad.honest(World(round=2), "Mal")
    merged(with_honest(Mal=elsewhere), beacon=Counting())
    assert asked == [1]


def test_without_a_beacon_a_made_up_round_counts_no_more_than_its_makers_stake() -> None:
    found = merged(with_honest(Mal=bad.fortune_teller(WORLD, "Mal")))
    assert found.trust_of(hotkey("Mal")) == 0
    assert (found.own, found.shared) == (alone().own, alone().shared)


def test_any_changed_byte_of_a_chain_is_an_offence() -> None:
    rng = random.Random(3)
    for _ in range(60):
        index = rng.choice(list(STORES["Ann"]))
        data = bytearray(STORES["Ann"][index])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        changed = {**STORES, "Ann": {**STORES["Ann"], index: bytes(data)}}
        found = merged(changed, stakes=STAKES)
        assert hotkey("Ann") in offences(found) or bytes(data) == STORES["Ann"][index]
