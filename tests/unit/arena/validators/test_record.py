"""What a validator remembers: when duels begin and end, and the ratio that is frozen meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from chimera.arena.duel.aggregate import total
from chimera.arena.duel.match import MinerRef
from chimera.arena.duel.rules import make_rule
from chimera.arena.duel.sequential import SequentialDuel
from chimera.arena.duel.types import DuelResult
from chimera.arena.validators.decide import Terms, decide
from chimera.arena.validators.merged import Merged, OwnCount
from chimera.arena.validators.record import Head, Record, key_of, read_record, write_record
from chimera.arena.validators.sampler import RoundPlan
from chimera.arena.validators.throne import Ruling, Throne
from chimera.core.errors import StateConflict, StorageError
from chimera.storage.memory_state import MemoryState

DAY_S = 86_400
HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
PLAN = RoundPlan(
    env_ids=("mult8-v0", "tictactoe-v0"),
    miners=tuple(MinerRef(miner_id=name, spec="random") for name in ("old", "new", "other")),
    window_s=3 * DAY_S,
)
TERMS = Terms(env_ids=PLAN.env_ids, budget=200)


def evidence(contender: str, wins: int, losses: int, env_ids: tuple[str, ...] = PLAN.env_ids) -> list[OwnCount]:
    return [
        OwnCount(
            env_id=env_id,
            champion="old",
            contender=contender,
            wins=wins,
            losses=losses,
            ties=0,
            hotkey=HOTKEY,
            weight_ppm=1_000_000,
        )
        for env_id in env_ids
    ]


def ruled(record: Record, now_s: int, *counts: list[OwnCount]) -> Ruling:
    merged = Merged(
        standings=(), offences=(), unread=(), own=tuple(count for group in counts for count in group), shared=()
    )
    return decide(merged, record.throne, TERMS, p0=record.p0, now_s=now_s, ended=record.ended)


def test_who_missed_rulings_is_in_the_same_window_as_everybody() -> None:
    everybody = Record(throne=Throne(champion="old"), settled_s=1)
    for day in (1, 2, 3, 4):
        everybody = everybody.after(ruled(everybody, day * DAY_S, evidence("new", 5, 5)), PLAN, {})
    missed = Record(throne=Throne(champion="old"), settled_s=1)
    missed = missed.after(ruled(missed, 4 * DAY_S, evidence("new", 5, 5)), PLAN, {})
    newcomer = Record(throne=Throne(champion="old")).at(4 * DAY_S + 5, PLAN, "old")
    assert everybody.opened_s == missed.opened_s == newcomer.opened_s == 3 * DAY_S


def test_the_ratio_is_frozen_while_duels_go_on_and_set_anew_with_the_next() -> None:
    record = Record(throne=Throne(champion="old", ratchet=Throne(champion="old").ratchet.after_win([0.7], 0.0)))
    seen = [record.p0]
    for day in range(1, 6):
        record = record.after(ruled(record, day * DAY_S, evidence("new", 5, 5)), PLAN, {})
        seen.append(record.p0)
    assert seen[0] == seen[1] == seen[2] > seen[3] == seen[4] == seen[5]
    assert record.opened_s == 3 * DAY_S


def test_what_was_decided_stays_decided_until_the_duels_are_over() -> None:
    record = Record(throne=Throne(champion="old"))
    held = ruled(record, 1, evidence("new", 5, 60))
    record = record.after(held, PLAN, {})
    assert record.has_ended("mult8-v0", "new") and not record.has_ended("mult8-v0", "other")
    later = ruled(record, 2, evidence("new", 150, 60))
    assert later.winner == "old" and later.duels == held.duels, "without its memory it would have won"
    fresh = Record(throne=record.throne)
    assert ruled(fresh, 2, evidence("new", 150, 60)).winner == "new"


def test_an_environment_that_was_won_stays_won() -> None:
    record = Record(throne=Throne(champion="old"))
    first = ruled(record, 1, evidence("new", 60, 5, ("mult8-v0",)))
    assert first.winner == "old"
    record = record.after(first, PLAN, {})
    second = ruled(record, 2, evidence("new", 60, 60, ("mult8-v0",)), evidence("new", 60, 5, ("tictactoe-v0",)))
    assert second.winner == "new"


def test_a_new_champion_begins_new_duels() -> None:
    record = Record(throne=Throne(champion="old"), ended=(result("other", 5, 60),))
    after = record.after(ruled(record, 77, evidence("new", 60, 5)), PLAN, {HOTKEY: Head(index=1, hash="0" * 64)})
    assert (after.throne.champion, after.opened_s, after.settled_s, after.ended) == ("new", 77, 77, ())
    assert after.p0 > record.p0
    assert after.heads[HOTKEY].index == 1


def test_when_every_duel_has_ended_the_next_begin() -> None:
    record = Record(throne=Throne(champion="old"))
    after = record.after(ruled(record, 9, evidence("new", 5, 60), evidence("other", 5, 60)), PLAN, {})
    assert (after.opened_s, after.ended) == (9, ())


def test_a_spent_budget_ends_a_duel() -> None:
    record = Record(throne=Throne(champion="old"))
    after = record.after(ruled(record, 9, evidence("new", 102, 98)), PLAN, {})
    assert {(duel.decision, duel.decisive) for duel in after.ended} == {("inconclusive", 200)}
    assert ruled(after, 10, evidence("new", 500, 100)).winner == "old"


def test_a_champion_that_left_the_subnet_leaves_the_throne_to_the_plan_s() -> None:
    throne = Throne(champion="old", round=4, since_s=9)
    record = Record(throne=throne, opened_s=9, settled_s=9, ended=(result("new", 5, 60),))
    assert record.at(20, PLAN, "new") is record
    left = PLAN.model_copy(update={"miners": PLAN.miners[1:]})
    after = record.at(20, left, "new")
    assert (after.throne.champion, after.throne.round, after.opened_s, after.ended) == ("new", 4, 9, ())
    assert after.p0 == 0.51


async def test_a_record_is_kept_and_only_changed_by_who_has_read_it() -> None:
    store = MemoryState()
    key = key_of(3, HOTKEY)
    assert await read_record(store, key) == (None, 0)
    record = Record(throne=Throne(champion="old"), ended=(result("other", 5, 60),), heads={})
    version = await write_record(store, key, record, expected=0)
    assert await read_record(store, key) == (record, version)
    with pytest.raises(StateConflict):
        await write_record(store, key, record, expected=0)


@pytest.mark.parametrize("broken", [{}, {"throne": 1}, {"throne": {"champion": "x"}, "more": 1}])
async def test_what_is_no_record_is_refused(broken: Any) -> None:
    store = MemoryState()
    await store.put("k", broken)
    with pytest.raises(StorageError, match="not a validator's record"):
        await read_record(store, "k")


def result(contender: str, wins: int, losses: int) -> DuelResult:
    duel = SequentialDuel(
        make_rule("calibrated", p0=0.51, budget=200), env_id="mult8-v0", champion="old", contender=contender
    )
    for _ in range(losses):
        if duel.record("loss"):
            break
    assert duel.result is not None
    assert total(("mult8-v0",), [duel.result]) is not None
    return duel.result
