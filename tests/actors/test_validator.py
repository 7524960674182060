"""The validator actor without Ray: what it publishes holds, whatever happens to it and around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chimera.actors import duel as duel_actor
from chimera.actors.validator import Validator
from chimera.arena.validators.audit import ChainReport, audit_chain
from chimera.arena.validators.blocks import decode_block
from chimera.arena.validators.terms import ValidatorPlan
from chimera.core.config import Settings
from chimera.system.validation import demo_plans
from tests.actors.duel_handle import DuelHandle

SHARED, OWN = 24, 48
"""Of the demo's plan, in each environment and for each of the two contenders."""


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes validators of the demo that share a machine: `await opened(0)`."""
    validators = []

    async def open_one(number: int, *, duel: DuelHandle | None = None, **changes: Any) -> Validator:
        plan = demo_plans(tmp_path)[number]
        plan = ValidatorPlan.model_validate({**plan.model_dump(), **changes})
        handles: dict[str, DuelHandle] = {}
        validator = Validator(
            plan=plan,
            settings=Settings(home=tmp_path),
            spawn_duel=lambda env_id: duel or handles.setdefault(env_id, DuelHandle()),
        )
        await validator.awake()
        validators.append(validator)
        return validator

    yield open_one
    for validator in validators:
        await validator.close()


def audit(folder: Path, validator: Validator) -> ChainReport:
    """What a stranger finds, who has the folder and nothing else."""
    files = sorted((folder / "blocks" / validator.hotkey).iterdir())
    return audit_chain((file.read_bytes() for file in files), validator.hotkey)


def challenges(folder: Path, validator: Validator) -> list[tuple[str, str, str]]:
    """Environment, challenge and contender of every pair, in order."""
    blocks = [decode_block(file.read_bytes()) for file in sorted((folder / "blocks" / validator.hotkey).iterdir())]
    return [
        (sample.env_id, sample.challenge_id, sample.miner_id)
        for block in blocks
        for sample in block.samples
        if sample.role == "contender"
    ]


async def test_a_round_is_published_whole_and_a_stranger_finds_no_fault(opened: Any, tmp_path: Path) -> None:
    validator = await opened(0)
    sampled = await validator.sample(7)
    assert (sampled.pairs, sampled.faults) == (2 * 2 * (SHARED + OWN), ())
    report = audit(tmp_path, validator)
    assert report.faults == ()
    assert report.samples == 2 * sampled.pairs
    asked = challenges(tmp_path, validator)
    assert len(set(asked)) == len(asked) == sampled.pairs
    shared = {(env, challenge) for env, challenge, _ in asked if challenge.startswith("beacon/7/")}
    assert len(shared) == 2 * SHARED, "both contenders meet the same shared challenges"


async def test_validators_share_a_slice_and_nothing_else(opened: Any, tmp_path: Path) -> None:
    first, second = await opened(0), await opened(1)
    for validator in (first, second):
        await validator.sample(1)
    both = set(challenges(tmp_path, first)) & set(challenges(tmp_path, second))
    assert len(both) == 2 * 2 * SHARED
    assert all(challenge.startswith("beacon/1/") for _, challenge, _ in both)


async def test_one_that_died_goes_on_and_asks_nothing_twice(opened: Any, tmp_path: Path) -> None:
    await (await opened(0)).sample(1)
    successor = await opened(0)
    again = await successor.sample(1)
    assert again.pairs == 2 * 2 * OWN, "the shared challenges of the round were asked before"
    later = await successor.sample(2)
    assert later.pairs == 2 * 2 * (SHARED + OWN)
    report = audit(tmp_path, successor)
    assert report.faults == ()
    assert report.samples == 2 * (2 * later.pairs + again.pairs)


async def test_a_duel_actor_that_dies_leaves_no_gap(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duel_actor, "PAUSE_S", 0.0)
    handle = DuelHandle(dies_after=(2, 5, 9))
    validator = await opened(0, duel=handle, **one_environment(tmp_path))
    sampled = await validator.sample(1)
    assert handle.lives > 1
    assert (sampled.pairs, sampled.faults) == (2 * (SHARED + OWN), ())
    assert audit(tmp_path, validator).faults == ()


async def test_a_miner_out_of_reach_costs_its_samples_and_nothing_else(opened: Any, tmp_path: Path) -> None:
    plan = demo_plans(tmp_path)[0]
    miners = [miner.model_dump() for miner in plan.round.miners]
    miners[1]["spec"] = "python:no_such_module:f"
    validator = await opened(0, round={**plan.round.model_dump(), "miners": miners})
    sampled = await validator.sample(1)
    assert sampled.pairs == 2 * (SHARED + OWN), "the other contender was sampled"
    assert len(sampled.faults) == 2 and all("no_such_module" in fault for fault in sampled.faults)
    assert audit(tmp_path, validator).faults == ()
    miners[1]["spec"] = "oracle:p=0.7"
    repaired = await opened(0, round={**plan.round.model_dump(), "miners": miners})
    assert (await repaired.sample(1)).faults == ()
    assert audit(tmp_path, repaired).faults == ()


async def test_without_a_beacon_own_challenges_are_asked_alone(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validator = await opened(0)
    sampled = await validator.sample(0)  # there is no such round
    assert sampled.pairs == 2 * 2 * OWN
    assert [fault.split(":")[0] for fault in sampled.faults] == ["no shared challenges"]


async def test_the_same_evidence_gives_everybody_the_same_ruling(opened: Any, tmp_path: Path) -> None:
    validators = [await opened(number) for number in range(3)]
    for validator in validators:
        await validator.sample(1)
    settled = [await validator.settle(2_000_000_000) for validator in validators]
    assert len({outcome.merged.to_bytes() for outcome in settled}) == 1
    assert len({outcome.ruling for outcome in settled}) == 1
    best = demo_plans(tmp_path)[0].round.miners[-1].miner_id
    assert settled[0].weights[best] == 1.0 == sum(settled[0].weights.values())
    assert {outcome.receipt is None for outcome in settled} == {False}
    assert {outcome.throne.champion for outcome in settled} == {best}


async def test_a_dry_run_changes_nothing(opened: Any, tmp_path: Path) -> None:
    validator = await opened(0)
    await validator.sample(1)
    first = await validator.settle(2_000_000_000, True)
    assert first.receipt is None
    assert not (tmp_path / "arena").exists(), "no weights were set"
    assert await validator.settle(2_000_000_000, True) == first


async def test_evidence_counts_in_the_reign_it_was_taken_in_and_not_after_its_time(opened: Any, tmp_path: Path) -> None:
    validator = await opened(0)
    await validator.sample(1)
    await (await opened(1)).sample(1)  # two of three: a third may be absent
    early = await validator.settle(1_000_000_000)
    assert early.ruling.duels == () and early.throne.round == 1, "nothing had been published by then"
    now = await validator.settle(2_000_000_000)
    assert now.ruling.winner != now.ruling.champion
    later = await validator.settle(2_000_000_001)
    assert later.ruling.duels == () and later.throne.champion == now.ruling.winner


async def test_a_store_that_cannot_be_read_is_no_fault_of_its_owner(opened: Any, tmp_path: Path) -> None:
    peers = [{**peer.model_dump()} for peer in demo_plans(tmp_path)[0].peers]
    peers[0]["blocks"] = "http://127.0.0.1:9/none"
    validator = await opened(0, peers=peers)
    await validator.sample(1)
    settled = await validator.settle(2_000_000_000)
    assert settled.merged.unread == (peers[0]["hotkey"],)
    assert settled.merged.offences == ()


async def test_weights_that_the_chain_refuses_do_not_undo_the_ruling(opened: Any, tmp_path: Path) -> None:
    validator = await opened(0)
    await validator.sample(1)
    (tmp_path / "arena" / "subnet-0.jsonl").mkdir(parents=True)
    settled = await validator.settle(2_000_000_000)
    assert "ledger" in settled.refused and settled.receipt is None
    successor = await opened(0)
    assert (await successor.settle(2_000_000_001)).throne.champion == settled.throne.champion


def one_environment(folder: Path) -> dict[str, Any]:
    plan = demo_plans(folder)[0]
    return {
        "round": {**plan.round.model_dump(), "env_ids": ("mult8-v0",)},
        "terms": {**plan.terms.model_dump(), "env_ids": ("mult8-v0",)},
    }
