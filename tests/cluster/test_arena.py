"""The arena on a real Ray: a whole tournament, and what comes of it when its processes are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
from bittensor_core import Keypair
from ray.util.state import list_actors

from chimera.actors.validator import Missed, Sampled, Settled
from chimera.arena.duel.match import RuleSpec
from chimera.arena.validators.audit import audit_chain
from chimera.arena.validators.record import key_of, read_record
from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.storage.state import open_state
from chimera.system.arena import DuelRequest, hold_duel
from chimera.system.validation import DEMO_MINERS, demo, demo_plans, tournament, validate

pytestmark = pytest.mark.cluster


def pids(*classes: str) -> dict[str, int]:
    """The processes of living actors of these classes, by actor id."""
    here = ray.get_runtime_context().gcs_address  # there may be other Rays on this machine
    actors = list_actors(address=here, filters=[("state", "=", "ALIVE")], limit=1_000)
    return {actor.actor_id: actor.pid for actor in actors if actor.class_name in classes and actor.pid}


@pytest.fixture
def settings(local_ray: Settings, home: Path) -> Settings:
    return local_ray.model_copy(update={"home": home})


async def test_the_best_miner_takes_the_throne_and_keeps_it(settings: Settings) -> None:
    seen: list[tuple[int, Sampled | Settled | Missed]] = []
    outcome = await demo(settings, lambda number, told: seen.append((number, told)))
    best = demo_plans(outcome.blocks.parent)[0].round.miners[-1]
    assert (outcome.champion, best.spec) == (best.miner_id, DEMO_MINERS[-1][1])
    settled = [told for _, told in seen if isinstance(told, Settled)]
    rulings = [told.ruling for told in settled if told.ruling]
    assert [ruling.winner for ruling in rulings] == [best.miner_id] * 6
    assert [ruling.champion == best.miner_id for ruling in rulings] == [False] * 3 + [True] * 3
    assert all(told.weights == {**dict.fromkeys(told.weights, 0.0), best.miner_id: 1.0} for told in settled)
    assert (
        len({told.merged.to_bytes() for told in settled[:3] if told.merged})
        == len({told.merged.to_bytes() for told in settled[3:] if told.merged})
        == 1
    )
    for folder in outcome.blocks.iterdir():
        report = audit_chain((file.read_bytes() for file in sorted(folder.iterdir())), folder.name)
        assert report.faults == () and report.samples > 0
    for _ in range(100):
        if not pids("Validator", "Duel"):
            break
        await asyncio.sleep(0.1)
    assert pids("Validator", "Duel") == {}, "nobody is left behind"


async def test_a_tournament_outlives_its_validators_and_duels(settings: Settings, tmp_path: Path) -> None:
    before = set(pids("Validator", "Duel"))

    async def kill() -> int:
        killed = 0
        for kind in ("Duel", "Validator", "Duel"):
            for _ in range(200):
                living = {actor: pid for actor, pid in pids(kind).items() if actor not in before}
                if living:
                    break
                await asyncio.sleep(0.05)
            for pid in list(living.values())[:1]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
        return killed

    killer = asyncio.create_task(kill())
    plans = demo_plans(tmp_path)
    outcome = await tournament(
        plans, settings.model_copy(update={"home": tmp_path}), lambda *_: None, rounds=2, blocks=tmp_path / "blocks"
    )
    assert await killer == 3
    assert outcome.champion == plans[0].round.miners[-1].miner_id
    for folder in outcome.blocks.iterdir():
        report = audit_chain((file.read_bytes() for file in sorted(folder.iterdir())), folder.name)
        assert report.faults == ()


async def test_a_duel_over_environments_ends_when_it_is_decided(settings: Settings) -> None:
    told: dict[str, int] = {}

    def watch(env_id: str, standing: Any, pairs: Any) -> None:
        told[env_id] = told.get(env_id, 0) + len(pairs)

    request = DuelRequest(
        champion="oracle:p=0.3",
        contender="oracle:p=0.95",
        env_ids=("mult8-v0", "subset-v0", "ledger-v0"),
        rule=RuleSpec(name="calibrated", budget=300),
    )
    report = await hold_duel(request, settings, watch)
    assert report.total.decision == "contender"
    assert len(report.total.won) >= 2
    assert {duel.env_id: duel.wins + duel.losses + duel.ties for duel in report.duels}.items() <= told.items()
    again = await hold_duel(request, settings, watch)
    ended = {duel.env_id: duel for duel in report.duels}
    assert all(ended.get(duel.env_id, duel) == duel for duel in again.duels), "the same seed is the same duel"


async def test_a_miner_that_cannot_play_is_refused_before_anything_is_started(settings: Settings) -> None:
    request = DuelRequest(champion="minimax", contender="random", env_ids=("mult8-v0",))
    before = pids("Duel")
    with pytest.raises(InputError, match="minimax"):
        await hold_duel(request, settings, lambda *_: None)
    assert pids("Duel") == before


@pytest.mark.timeout(180)
async def test_a_validator_goes_on_from_epoch_to_epoch_also_after_one_that_failed(
    settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"home": tmp_path})
    plan = demo_plans(tmp_path)[0].model_copy(update={"peers": ()})
    hotkey = Keypair.create_from_uri(plan.hotkey).ss58_address
    best = plan.round.miners[-1].miner_id
    state, key = open_state(settings.state), key_of(plan.subnet.netuid, hotkey)
    told: list[Sampled | Settled | Missed] = []
    settled_once, missed_once, crowned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def watch(number: int, event: Sampled | Settled | Missed) -> None:
        told.append(event)
        if isinstance(event, Missed):
            missed_once.set()
        if isinstance(event, Settled):
            settled_once.set()
            if missed_once.is_set() and event.throne.champion == best:
                crowned.set()

    validator = asyncio.create_task(validate(plan, settings, watch, epoch_s=3, grace_s=0))
    async with asyncio.timeout(110):
        await settled_once.wait()
        await state.put(key, {"this": "is no record"})
        await missed_once.wait()
        await state.delete(key)
        await crowned.wait()
    validator.cancel()
    await asyncio.gather(validator, return_exceptions=True)
    missed = [event for event in told if isinstance(event, Missed)]
    assert "not a validator's record" in missed[0].why
    settled = [event for event in told if isinstance(event, Settled)]
    times = [event.ruling.decided_s for event in settled if event.ruling]
    assert len(times) == len(settled) and times == sorted(set(times)) and all(time % 3 == 0 for time in times)
    record, _ = await read_record(state, key)
    assert record is not None and record.throne.champion == best and record.weights_set
    await state.close()
