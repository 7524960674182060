"""What is wrong with a validator's plan is said before anything starts; what validators do is told as it is."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import ray.exceptions
from bittensor_core import Keypair
from pydantic import BaseModel, Field, ValidationError, model_validator

from chimera.actors.cluster import unwrap
from chimera.actors.duel import Played
from chimera.actors.validator import Missed, Settled
from chimera.arena.duel.match import MatchPlan, MinerRef
from chimera.arena.validators.decide import Terms
from chimera.arena.validators.sampler import RoundPlan
from chimera.arena.validators.terms import Peer, ValidatorPlan
from chimera.arena.validators.throne import Throne
from chimera.cli.arena.validate import _check, _Watch
from chimera.cli.settings import explain
from chimera.core.errors import ChimeraError, ClusterError, EnvironmentNotFound, InputError
from chimera.system import arena

ALICE, BOB, MINER, RIVAL = (
    str(Keypair.create_from_uri(uri).ss58_address) for uri in ("//Alice", "//Bob", "//Miner", "//Rival")
)


def plan(folder: Path, *, env_ids: tuple[str, ...] = ("mult8-v0",), **changes: Any) -> ValidatorPlan:
    miners = (MinerRef(miner_id=MINER, spec="oracle:p=1"), MinerRef(miner_id=RIVAL, spec="oracle:p=0.5"))
    fields: dict[str, Any] = {
        "hotkey": "//Alice",
        "blocks": (folder / "blocks").as_uri(),
        "peers": (Peer(hotkey=BOB, blocks="https://bob.example/blocks"),),
        "champion": MINER,
        "round": RoundPlan(env_ids=env_ids, miners=miners, shared=1, own=1),
        "terms": Terms(env_ids=env_ids),
        "beacon": "seed:x",
    }
    return ValidatorPlan(**{**fields, **changes})


async def test_a_plan_that_can_be_carried_out_passes_and_makes_nothing(tmp_path: Path) -> None:
    await _check(plan(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blocks": "/tmp/blocks"}, r"blocks: /tmp/blocks is not an object store: use file:///PATH"),
        ({"blocks": "https://me.example/blocks"}, r"blocks: a web server can only be read"),
        ({"blocks": "s3://bucket/../x"}, r"blocks: .* is no key"),
        ({"peers": (Peer(hotkey=BOB, blocks="blocks"),)}, rf"peer {BOB}: blocks is not an object store"),
        ({"peers": (Peer(hotkey=ALICE, blocks="https://a.example/b"),)}, rf"peers: {ALICE} is this validator itself"),
        ({"env_ids": ("mult8-v0", "coin-v9")}, r"no environment is called 'coin-v9'"),
    ],
)
async def test_a_plan_that_cannot_be_is_refused_before_anything_starts(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        await _check(plan(tmp_path, **changes))


async def test_an_environment_that_is_not_installed_is_named_whoever_the_miners_are(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentNotFound):
        await _check(plan(tmp_path, env_ids=("coin-v9",)))


SETTLED = Settled(hotkey=ALICE, merged=None, ruling=None, throne=Throne(champion=MINER), weights={MINER: 1.0})


def test_weights_that_are_set_again_and_rounds_that_were_missed_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    missed = Missed(hotkey=ALICE, why="the store\nis away")
    for event in (SETTLED, SETTLED.model_copy(update={"refused": "too soon"}), missed):
        _Watch(as_json=False)(3, event)
        _Watch(as_json=True)(3, event)
    told = capsys.readouterr().out
    rows = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert [row["event"] for row in rows] == ["settled", "settled", "missed"]
    assert rows[0]["ruling"] is None and rows[2]["why"] == "the store\nis away"
    assert f"{MINER} has the throne, as ruled before; no weights set now" in told
    assert "as ruled before; weights were refused: too soon" in told
    assert f"{ALICE}  missed: the store\\nis away" in told


CREATION = """The actor died because of an error raised in its creation task, \x1b[36mray::Validator.__init__()\x1b[39m
  File "validator.py", line 1, in __init__
chimera.core.errors.InputError: /tmp/x is not an object store: use file:///PATH"""


def test_a_process_that_could_not_start_says_why() -> None:
    error = ray.exceptions.RayActorError(actor_id="a", error_msg=CREATION, actor_init_failed=True)
    told = unwrap(error)
    assert type(told) is ClusterError
    assert str(told).endswith("not start its work: InputError: /tmp/x is not an object store: use file:///PATH")


def test_a_process_that_is_gone_may_have_been_anybodys() -> None:
    told = unwrap(ray.exceptions.ActorDiedError())
    assert isinstance(told, ChimeraError) and "gone" in str(told) and "swarm" not in str(told)


async def test_a_duel_whose_processes_die_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(actor: object, match: MatchPlan) -> AsyncIterator[Played]:
        raise ClusterError("the processes are gone")
        yield

    monkeypatch.setattr(arena, "play_match", dies)
    match = arena.DuelRequest(champion="random", contender="python:m:f", env_ids=("mult8-v0",)).match("mult8-v0")
    duel = match.duel()
    assert duel is not None
    with pytest.raises(ClusterError, match=r"duel of random against python:m:f in mult8-v0 .* the processes are gone"):
        await arena._follow(None, match, arena.Standing(duel), lambda env_id, standing, pairs: None)


class Inner(BaseModel):
    name: str = Field(pattern="^[a-z]+$")


class Outer(BaseModel):
    inner: tuple[Inner, ...] = Field(min_length=1)
    size: int = 0

    @model_validator(mode="after")
    def _fits(self) -> Outer:
        if self.size:
            raise ValueError("it does not fit")
        return self


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"inner": [{"name": "a"}], "size": 1}, "it does not fit"),
        ({"inner": [{"name": "A"}]}, "inner.0.name: string should match pattern '^[a-z]+$' (got 'A')"),
        ({"inner": [{}]}, "inner.0.name: field required"),
        ({"inner": []}, "inner: tuple should have at least 1 item after validation, not 0"),
        ({}, "inner: field required"),
    ],
)
def test_a_mistake_is_one_finding_without_a_dump(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate(document)
    assert explain(raised.value) == said
