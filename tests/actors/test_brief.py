"""A mission over documents with every role, in one process without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chimera.core.errors import DocumentsError
from chimera.core.types import AgentSpec, Consensus, Decision, MissionState, Outcome, Quote, TaskResult
from chimera.swarm.brief import Brief
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.mission import Mission
from chimera.swarm.policy import Seat
from chimera.swarm.roles import brief_agents
from tests.actors.in_process import coordinator, submit
from tests.conftest import ROOT

QUESTION = "Which dataset came from a study of diabetes patients, and how many features has it?"


async def ask(mission: Mission, *own: AgentSpec, **settings: Any) -> TaskResult:
    swarm = coordinator(**settings)
    await swarm.start()
    try:
        agents = [*(spec for spec in brief_agents(3) if spec.role != "worker"), *own] if own else brief_agents(3)
        await swarm.spawn_agents([Seat.of(spec) for spec in agents])
        await submit(swarm, "m", TaskDecomposer().decompose(mission), mission.limits.deadline_s)
        result = await swarm.result("m", 30.0)
        assert result is not None
        return result
    finally:
        await swarm.close()


async def test_the_example_is_answered() -> None:
    result = await ask(Mission(goal=QUESTION, docs="package:sklearn/datasets/descr"))
    brief = Brief.model_validate(result.value)
    assert result.state is MissionState.ANSWERED
    assert [quote.file for quote in brief.quotes[:2]] == ["diabetes.rst", "diabetes.rst"]
    assert "diabetes patients" in brief.answer and "10 feature variables" in brief.answer
    assert [part.question for part in brief.parts][1] == "how many features has it?"


def test_the_whole_brief_is_the_same_under_every_hash_seed() -> None:
    """In processes of their own: here every role runs under the seed, and not only the one who asks."""
    program = (
        "import asyncio, json\n"
        "from tests.actors.test_brief import QUESTION, ask\n"
        "from chimera.swarm.mission import Mission\n"
        "result = asyncio.run(ask(Mission(goal=QUESTION, docs='package:sklearn/datasets/descr')))\n"
        "print(json.dumps([result.value, result.confidence, result.state]))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(outputs) == 1 and len(json.loads(outputs.pop())[0]["quotes"]) >= 2


@pytest.mark.parametrize("consensus", ["majority", "weighted", "unanimous", "quorum"])
async def test_every_method_decides_or_says_why_not(consensus: Any) -> None:
    mission = Mission(
        goal="Who first used the Iris database?", docs="package:sklearn/datasets/descr", consensus=consensus
    )
    result = await ask(mission)
    brief = Brief.model_validate(result.value)
    assert brief.decision.method.value == consensus
    assert "Fisher" in brief.quotes[0].text
    assert (result.state is MissionState.ANSWERED) == brief.decision.agreed


async def test_a_worker_that_makes_quotes_up_is_caught_by_the_judge(tmp_path: Path) -> None:
    (tmp_path / "moon.txt").write_text("The moon is made of rock.\n\nIt has no air.\n")
    own = [AgentSpec(policy=f"tests.policies:{name}") for name in ("forges_a_quote", "returns_no_quote")]
    honest = AgentSpec(policy="chimera.swarm.readers:bm25")
    result = await ask(Mission(goal="What is the moon made of?", docs=str(tmp_path)), honest, *own)
    brief = Brief.model_validate(result.value)
    assert brief.quotes == (Quote(text="The moon is made of rock.", file="moon.txt", line=1),)
    assert {(rejected.voter, rejected.why) for rejected in brief.rejected} == {
        ("forges_a_quote", "does not stand word for word in its source"),
        ("returns_no_quote", "not a quote"),
    }
    assert result.state is MissionState.ANSWERED


async def test_a_worker_that_raises_or_hangs_is_named_and_the_rest_answers(tmp_path: Path) -> None:
    (tmp_path / "moon.txt").write_text("The moon is made of rock.\n")
    own = [AgentSpec(policy=f"tests.policies:{name}") for name in ("raises", "hangs")]
    honest = AgentSpec(policy="chimera.swarm.readers:bm25")
    mission = Mission.model_validate(
        {"goal": "What is the moon made of?", "docs": str(tmp_path), "limits": {"attempt_timeout_s": 0.3}}
    )
    result = await ask(mission, honest, *own)
    brief = Brief.model_validate(result.value)
    assert (result.state, brief.quotes[0].text) == (MissionState.ANSWERED, "The moon is made of rock.")
    assert [(silence.voter, silence.why.split(":")[0]) for silence in brief.silent] == [
        ("hangs", "timeout"),
        ("raises", "raised"),
    ]


async def test_shards_do_not_change_the_answer(tmp_path: Path) -> None:
    whole = await ask(Mission(goal=QUESTION, docs="package:sklearn/datasets/descr"))
    cut = await ask(Mission(goal=QUESTION, docs="package:sklearn/datasets/descr"), shard_bytes=8_000)
    assert cut.attempts > 3 * whole.attempts
    answers = [Brief.model_validate(result.value).answer for result in (whole, cut)]
    assert answers[0] == answers[1]


async def test_a_folder_that_is_not_there_fails_the_mission_as_bad_input() -> None:
    result = await ask(Mission(goal="what?", docs="no/such/folder"))
    assert result.error is not None and result.error["kind"] == DocumentsError.__name__


async def test_more_files_than_a_plan_may_hold_are_refused_clearly(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number:0100}.txt").write_text("a")
    result = await ask(Mission(goal="what?", docs=str(tmp_path)), max_reply_bytes=10_000)
    assert result.state is MissionState.FAILED and "CHIMERA_MAX_REPLY_BYTES" in result.explanation


async def test_what_two_of_three_did_not_find_is_undecided_with_the_third_as_partial_answer() -> None:
    from chimera.swarm import brief

    find = brief.Find(quote=Quote(text="A fact.", file="a.txt", line=1), confidence=0.5)
    ballots = tuple(brief.Ballot(voter=voter, finds=finds) for voter, finds in (("a", (find,)), ("b", ()), ("c", ())))
    evidence = brief.Evidence(parts=(brief.Part(question="q", ballots=ballots),))
    made, chosen = brief.compose("q", evidence, method=Consensus.MAJORITY, threshold=None, electorate=3)
    assert isinstance(made.decision, Decision) and made.decision.outcome is Outcome.NO_QUORUM
    assert made.decision.explanation == "2 of 3 found nothing to quote"
    assert [quote.text for quote in chosen] == ["A fact."]
