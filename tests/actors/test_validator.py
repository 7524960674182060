"""The validator actor without Ray: what it publishes holds, whatever happens to it and around it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from chimera.actors import duel as duel_actor
from chimera.actors import validator as validator_actor
from chimera.actors.validator import Validator
from chimera.arena.types import MAX_TEXT_CHARS
from chimera.arena.validators.audit import ChainReport, audit_chain
from chimera.arena.validators.blocks import decode_block
from chimera.arena.validators.chain import Metagraph, Receipt, SubnetChain
from chimera.arena.validators.record import Record, write_record
from chimera.arena.validators.terms import ValidatorPlan
from chimera.arena.validators.throne import Throne
from chimera.core.config import Settings
from chimera.core.errors import ChainError, EvidenceError, InputError, StorageUnavailable
from chimera.system.validation import demo_plans
from tests.actors.duel_handle import DuelHandle

SHARED, OWN = 24, 48
"""Of the demo's plan, in each environment and for each of the two contenders."""


NOW_S = int(time.time()) + 7_200
"""After all that is published here: this is worked out when the tests are collected, long before they run."""


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
    settled = [await validator.settle(NOW_S) for validator in validators]
    assert len({outcome.merged.to_bytes() for outcome in settled}) == 1
    assert len({outcome.ruling for outcome in settled}) == 1
    best = demo_plans(tmp_path)[0].round.miners[-1].miner_id
    assert settled[0].weights[best] == 1.0 == sum(settled[0].weights.values())
    assert {outcome.receipt is None for outcome in settled} == {False}
    assert {outcome.throne.champion for outcome in settled} == {best}


async def test_a_dry_run_changes_nothing(opened: Any, tmp_path: Path) -> None:
    validator = await opened(0)
    await validator.sample(1)
    first = await validator.settle(NOW_S, True)
    assert first.receipt is None
    assert not (tmp_path / "arena").exists(), "no weights were set"
    assert await validator.settle(NOW_S, True) == first


async def test_a_time_is_ruled_once_whatever_dies_meanwhile(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await (await opened(number)).sample(1)
    undisturbed = await (await opened(2)).settle(NOW_S)

    class Killed(BaseException):
        pass

    async def killed(*_: Any, **__: Any) -> None:
        raise Killed

    before_weights = await opened(0)
    with monkeypatch.context() as patched:
        patched.setattr(before_weights._subnet, "set_weights", killed)
        with pytest.raises(Killed):
            await before_weights.settle(NOW_S)
    again = await (await opened(0)).settle(NOW_S)
    assert again.ruling is None and again.receipt is not None, "the weights alone were left to be set"
    assert again.throne == undisturbed.throne
    assert again.weights == undisturbed.weights
    once_more = await (await opened(0)).settle(NOW_S)
    assert once_more.receipt is None and once_more.throne == undisturbed.throne
    lines = (tmp_path / "arena" / "subnet-0.jsonl").read_text().splitlines()
    assert len(lines) == 2, "each validator has set its weights once"


async def test_a_store_out_of_reach_for_a_moment_costs_nothing(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validator_actor, "PAUSE_S", 0.0)
    validator = await opened(0)
    failing(monkeypatch, validator, times=3)
    sampled = await validator.sample(1)
    assert (sampled.pairs, sampled.faults) == (2 * 2 * (SHARED + OWN), ())
    assert audit(tmp_path, validator).faults == ()


async def test_a_store_out_of_reach_for_a_round_costs_that_round(
    opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validator_actor, "PAUSE_S", 0.0)
    validator = await opened(0)
    with monkeypatch.context() as patched:
        failing(patched, validator, times=1_000)
        sampled = await validator.sample(1)
    assert sampled.pairs == 0 and sampled.faults
    sampled = await validator.sample(2)
    assert (sampled.pairs, sampled.faults) == (2 * 2 * (SHARED + OWN), ())
    assert audit(tmp_path, validator).faults == ()


async def test_a_second_process_of_the_same_validator_does_no_harm_to_its_chain(opened: Any, tmp_path: Path) -> None:
    first, second = await opened(0), await opened(0)
    await first.sample(1)
    late = await second.sample(1)
    assert late.pairs == 0 and any("another process" in fault for fault in late.faults)
    assert audit(tmp_path, first).faults == ()
    assert (await second.sample(2)).faults == ()
    assert audit(tmp_path, first).faults == ()


async def test_long_answers_fill_more_blocks_and_leave_no_gap(opened: Any, tmp_path: Path) -> None:
    miners = [miner.model_dump() for miner in demo_plans(tmp_path)[0].round.miners]
    miners[1]["spec"] = "python:tests.actors.test_validator:endless"
    validator = await opened(0, **one_environment(tmp_path, miners=miners[:2], shared=0, own=60))
    sampled = await validator.sample(1)
    assert (sampled.pairs, sampled.faults) == (60, ())
    assert sampled.blocks == 2, "24 MB do not fit into one"
    assert audit(tmp_path, validator).faults == ()


async def test_refusing_what_it_does_not_know_brings_a_miner_nothing(opened: Any, tmp_path: Path) -> None:
    miners = [miner.model_dump() for miner in demo_plans(tmp_path)[0].round.miners]
    miners[1]["spec"] = "python:tests.actors.test_validator:selective"
    validator = await opened(0, **one_environment(tmp_path, miners=miners, shared=0, own=30))
    for round in (1, 2, 3):
        sampled = await validator.sample(round)
        assert sampled.pairs == 30 and len(sampled.faults) == 1, "what it would answer is no evidence either"
    report = audit(tmp_path, validator)
    assert report.faults == ()
    assert {contender for _, _, contender in challenges(tmp_path, validator)} == {miners[2]["miner_id"]}


async def test_only_evidence_from_when_the_duels_began_counts(opened: Any, tmp_path: Path) -> None:
    validator = await opened(0, peers=())
    await validator.sample(1)
    throne = Throne(champion=demo_plans(tmp_path)[0].champion)
    began_later = Record(throne=throne, opened_s=NOW_S, settled_s=NOW_S)
    await write_record(validator._state, validator._key, began_later, expected=0)
    settled = await validator.settle(NOW_S + 1)
    assert settled.ruling.duels == () and settled.throne.champion == throne.champion


async def test_a_chain_that_has_lost_its_end_is_noticed_by_who_saw_it(opened: Any, tmp_path: Path) -> None:
    validators = [await opened(number) for number in range(3)]
    for validator in validators:
        await validator.sample(1)
    await validators[0].settle(NOW_S)
    last = sorted((tmp_path / "blocks" / validators[1].hotkey).iterdir())[-1]
    last.unlink()
    settled = await validators[0].settle(NOW_S + 1)
    assert [(offence.kind, offence.hotkey) for offence in settled.merged.offences] == [
        ("truncated", validators[1].hotkey)
    ]


async def test_randomness_that_the_beacon_never_published_is_an_offence(opened: Any, tmp_path: Path) -> None:
    validators = [await opened(0), await opened(1), await opened(2, beacon="seed:made up")]
    for validator in validators:
        await validator.sample(1)
    settled = await validators[0].settle(NOW_S)
    assert [(offence.kind, offence.hotkey) for offence in settled.merged.offences] == [("beacon", validators[2].hotkey)]


class Staked(SubnetChain):
    """A subnet on which the first validator holds most, and the last may not validate."""

    def __init__(self, validators: list[Validator]) -> None:
        super().__init__(netuid=0, hotkey=validators[0].hotkey)
        self._hotkeys = tuple(validator.hotkey for validator in validators)

    async def metagraph(self) -> Metagraph:
        return Metagraph(
            netuid=0,
            block=1,
            hotkeys=self._hotkeys,
            validator_permits=(True, True, False),
            stakes=(3_000, 1_000, 5_000),
        )

    async def block(self) -> int:
        return 1

    async def _give_all_to(self, uid: int, hotkey: str) -> Receipt:
        raise ChainError("not here")


async def test_stakes_and_permits_are_the_subnet_s(opened: Any, tmp_path: Path) -> None:
    validators = [await opened(number) for number in range(3)]
    for validator in validators:
        await validator.sample(1)
    validators[0]._subnet = Staked(validators)
    settled = await validators[0].settle(NOW_S)
    assert {standing.hotkey: standing.stake_ppm for standing in settled.merged.standings} == {
        validators[0].hotkey: 750_000,
        validators[1].hotkey: 250_000,
    }


async def test_a_validator_whose_published_blocks_are_gone_does_not_sign_others(opened: Any, tmp_path: Path) -> None:
    validator = await opened(0)
    await validator.sample(1)
    await validator.settle(NOW_S)
    for file in (tmp_path / "blocks" / validator.hotkey).iterdir():
        file.unlink()
    with pytest.raises(EvidenceError, match="has lost it"):
        await opened(0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": "memory://"}, "gone with the process"),
        ({"round": {"shared": 0}}, "shared challenges"),
        ({"champion": "nobody"}, "not among the miners"),
        ({"terms": {"env_ids": ("subnet-v0",)}}, "other environments"),
    ],
)
def test_plans_that_cannot_work_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    plan = demo_plans(tmp_path)[0].model_dump()
    for name, change in changes.items():
        plan[name] = {**plan[name], **change} if isinstance(change, dict) else change
    with pytest.raises((ValidationError, InputError), match=message):
        ValidatorPlan.model_validate(plan)


def endless(prompt: str) -> str:
    """The longest reply in the most bytes: each of these is six in JSON."""
    return "\x01" * MAX_TEXT_CHARS


def selective(prompt: str) -> str:
    """Knows products of which the first factor is even, and raises for the others."""
    left, _, right = prompt.split("Compute ")[1].split(".")[0].split(" ")[:3]
    if int(left) % 2:
        raise RuntimeError("not now")
    return str(int(left) * int(right))


def failing(monkeypatch: pytest.MonkeyPatch, validator: Validator, *, times: int) -> None:
    """Makes its store be out of reach for so many creations."""
    store = validator._store(validator._plan.blocks)
    create, left = store.create, [times]

    async def out_of_reach(key: str, data: bytes) -> None:
        if left[0]:
            left[0] -= 1
            raise StorageUnavailable("for now")
        await create(key, data)

    monkeypatch.setattr(store, "create", out_of_reach)


async def test_evidence_counts_in_the_reign_it_was_taken_in_and_not_after_its_time(opened: Any, tmp_path: Path) -> None:
    validator = await opened(0)
    await validator.sample(1)
    await (await opened(1)).sample(1)  # two of three: a third may be absent
    early = await validator.settle(1_000_000_000)
    assert early.ruling.duels == () and early.throne.round == 1, "nothing had been published by then"
    now = await validator.settle(NOW_S)
    assert now.ruling.winner != now.ruling.champion
    later = await validator.settle(NOW_S + 1)
    assert later.ruling.duels == () and later.throne.champion == now.ruling.winner


async def test_a_store_that_cannot_be_read_is_no_fault_of_its_owner(opened: Any, tmp_path: Path) -> None:
    peers = [{**peer.model_dump()} for peer in demo_plans(tmp_path)[0].peers]
    peers[0]["blocks"] = "http://127.0.0.1:9/none"
    validator = await opened(0, peers=peers)
    await validator.sample(1)
    settled = await validator.settle(NOW_S)
    assert settled.merged.unread == (peers[0]["hotkey"],)
    assert settled.merged.offences == ()


async def test_weights_that_the_chain_refuses_do_not_undo_the_ruling(opened: Any, tmp_path: Path) -> None:
    validator = await opened(0)
    await validator.sample(1)
    (tmp_path / "arena" / "subnet-0.jsonl").mkdir(parents=True)
    settled = await validator.settle(NOW_S)
    assert "ledger" in settled.refused and settled.receipt is None
    successor = await opened(0)
    assert (await successor.settle(NOW_S + 1)).throne.champion == settled.throne.champion


def one_environment(folder: Path, **changes: Any) -> dict[str, Any]:
    plan = demo_plans(folder)[0]
    return {
        "peers": (),
        "round": {**plan.round.model_dump(), "env_ids": ("mult8-v0",), **changes},
        "terms": {**plan.terms.model_dump(), "env_ids": ("mult8-v0",)},
    }
