"""The GAN in a federation: generators are shared, ledgers are not, and each sandbox pays for its own records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from chimera.core.errors import InputError, PrivacyError, SwarmError
from chimera.sandbox.datasets import load
from chimera.sandbox.engine import AdversarialEngine
from chimera.sandbox.federation.gan import GanTrainer, first_generator, table_of
from chimera.sandbox.federation.host import NodePlan
from chimera.sandbox.federation.plan import FederationPlan
from chimera.sandbox.federation.report import NodeRow
from chimera.sandbox.settings import GanSettings
from chimera.system.federating import federate

SETTINGS = GanSettings(epsilon=8.0, delta=1e-3, steps=60, batch=16, hidden=16, critic_steps=2)


def nodes(folder: Path, parts: int = 3) -> list[NodePlan]:
    shared: dict[str, bool | int | float | str] = {
        "data": "wine",
        "parts": parts,
        "settings": SETTINGS.model_dump_json(),
    }
    return [
        NodePlan(
            node_id=part + 1,
            app="chimera.sandbox.federation.gan:app",
            folder=folder / str(part),
            config={**shared, "part": part},
        )
        for part in range(parts)
    ]


@pytest.mark.soak
async def test_sandboxes_learn_together_and_each_pays_for_its_own_records(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    initial = first_generator(load("wine").schema, SETTINGS)
    plan = FederationPlan(strategy="fedavg", rounds=2, steps=20)
    federated = await federate(nodes(tmp_path), plan, initial)
    assert [array.shape for array in federated.arrays] == [array.shape for array in initial]
    assert any((now != then).any() for now, then in zip(federated.arrays, initial, strict=True))
    last: tuple[NodeRow, ...] = federated.report.rounds[-1].nodes
    assert [row.state for row in last] == ["counted"] * 3, [row.reason for row in last]
    for part in range(3):
        spent = [json.loads(line) for line in (tmp_path / str(part) / "ledger.jsonl").read_text().splitlines()[1:]]
        assert sum(line["steps"] for line in spent if line["what"] == "discriminator") == 50, "40 made, 50 reserved"
    spent_at_most = federated.report.record_privacy.epsilon
    assert spent_at_most is not None and 0 < spent_at_most <= SETTINGS.epsilon
    with pytest.raises(SwarmError, match="the budget of this sandbox allows 10 more"):
        await federate(nodes(tmp_path), plan, federated.arrays)


def test_the_losses_that_leave_a_sandbox_are_not_of_its_records(tmp_path: Path) -> None:
    free = SETTINGS.model_copy(update={"epsilon": float("inf")})
    trainer = GanTrainer(AdversarialEngine(load("wine"), free, folder=tmp_path, entropy=1))
    told = trainer.train(4, anchor=None, proximal_mu=0.0)
    trainer.close()
    assert set(told.losses) == {"generator"}
    assert told.records == 178 and told.epsilon == float("inf")


async def test_no_cell_of_a_record_is_in_what_a_sandbox_says(tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text("load\n1\nSmith HIV+ since 2019\n", encoding="utf-8")
    (tmp_path / "schema.yaml").write_text("columns: [{name: load, low: 0, high: 9}]\n", encoding="utf-8")
    files = {"data": str(tmp_path / "records.csv"), "schema": str(tmp_path / "schema.yaml")}
    both = [node.model_copy(update={"config": files}) for node in nodes(tmp_path, 2)]
    with pytest.raises(SwarmError, match="its own log says why") as failed:
        await federate(both, FederationPlan(strategy="fedavg", rounds=1, steps=1), [np.zeros(3, np.float32)])
    assert "Smith" not in str(failed.value) and str(tmp_path) not in str(failed.value)


def test_more_steps_than_are_left_cost_nothing(tmp_path: Path) -> None:
    free = SETTINGS.model_copy(update={"epsilon": float("inf")})
    engine = AdversarialEngine(load("wine"), free, folder=tmp_path, entropy=1)
    with pytest.raises(PrivacyError, match="allows 60 more"):
        GanTrainer(engine).train(61, anchor=None, proximal_mu=0.0)
    assert engine.left == 60
    engine.close()


def test_parts_are_disjoint_and_all(tmp_path: Path) -> None:
    parts = [table_of({"data": "wine", "parts": 4, "part": part}) for part in range(4)]
    together = np.concatenate([part.values for part in parts])
    whole = load("wine").values
    assert sorted(map(tuple, together)) == sorted(map(tuple, whole))
    for config in ({"data": "wine", "parts": 4, "part": 4}, {"data": "no set"}, {"data": "wine", "parts": 2}):
        with pytest.raises(InputError):
            table_of(config)  # type: ignore[arg-type]
