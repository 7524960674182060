"""The champion of an environment as the model of a mission: `chimera run --model champion:ENV`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chimera import Settings, SwarmCoordinator
from chimera.cli.main import app
from chimera.swarm.roles import brief_agents
from chimera.system.champions import record_champion
from tests.acceptance.test_run import chimera
from tests.llm_server import LlmServer

WORDED = "It is made of rock, as the champion has it."


@pytest.mark.soak
@pytest.mark.cluster
async def test_a_mission_is_worded_by_the_champion_of_an_environment(
    local_ray: Settings, home: Path, tmp_path: Path
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "moon.md").write_text("# Moon\n\nThe moon is made of rock, said the geologist.\n")
    goal = "What is the moon made of?"

    def reply(request: Mapping[str, Any]) -> str:
        """It is asked what a sentence means, as any model that writes, and then to word the answer."""
        return WORDED if "[moon.md:3]" in request["messages"][-1]["content"] else json.dumps({"goal": goal})

    with LlmServer(reply) as server:
        settings = Settings(address=local_ray.address, cells=1)
        record_champion("ledger-v0", f"openai:test@{server.url}", settings, since_s=1)

        asked = ("run", goal, "--docs", str(docs), "--model", "champion:ledger-v0", "--json")
        done = await asyncio.to_thread(chimera, *asked, "--address", local_ray.address)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["answer"] == WORDED
        assert len(server.requests) == 2 and {request["model"] for request in server.requests} == {"test"}

        async with SwarmCoordinator(settings=settings) as swarm:
            await swarm.spawn_agents(brief_agents(3))
            result = await swarm.run({"goal": goal, "docs": str(docs), "model": "champion:ledger-v0"})
        assert isinstance(result.value, dict) and result.value["answer"] == WORDED
        assert len(server.requests) == 2 + 1


@pytest.mark.parametrize(
    ("crowned", "said"),
    [("", "af duel"), ("minimax", "minimax is no model"), ("chutes:m", "set CHUTES_API_KEY")],
)
@pytest.mark.parametrize("how", ["option", "file", "setting"])
def test_a_champion_that_cannot_be_a_model_is_bad_input_before_anything_starts(
    how: str, crowned: str, said: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHUTES_API_KEY", raising=False)
    if crowned:
        record_champion("ledger-v0", crowned, Settings(), since_s=1)
    name = "champion:ledger-v0"
    (tmp_path / "mission.json").write_text(json.dumps({"goal": "q?", "docs": "tests/data/qa/docs", "model": name}))
    arguments = {
        "option": ["q?", "--docs", "tests/data/qa/docs", "--model", name],
        "file": ["--mission", str(tmp_path / "mission.json")],
        "setting": ["q?", "--docs", "tests/data/qa/docs"],
    }[how]
    environment = {"COLUMNS": "200", **({"CHIMERA_MODEL": name} if how == "setting" else {})}
    done = CliRunner().invoke(app, ["run", *arguments], env=environment)
    assert done.exit_code == 2 and done.stdout == ""
    assert said in done.stderr
