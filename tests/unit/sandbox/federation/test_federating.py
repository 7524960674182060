"""The wiring, with all sandboxes in this process: what is checked before it begins, how it is watched and ended."""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chimera.core.errors import InputError, MissingExtra, SwarmError
from chimera.sandbox.federation.flower import Message, RecordDict
from chimera.sandbox.federation.grid import SwarmGrid
from chimera.sandbox.federation.host import NodePlan
from chimera.sandbox.federation.report import RoundReport
from chimera.system.federating import federate
from tests.unit.sandbox.federation import tiny
from tests.unit.sandbox.federation.house import ROUNDS, hanging, node, plan


async def test_sandboxes_in_this_process_are_watched_round_by_round(tmp_path: Path) -> None:
    watched: list[RoundReport] = []
    nodes = [node(tmp_path, i, "honest") for i in (1, 2, 3)]
    federated = await federate(nodes, plan("fedmedian"), tiny.blank(), watch=watched.append)
    assert [report.round for report in watched] == [*range(1, ROUNDS + 1)]
    assert abs(tiny.mean(federated.arrays) / tiny.TARGET - 1) < 0.05


async def test_a_sandbox_that_goes_on_in_a_second_run_has_not_forgotten_the_first(tmp_path: Path) -> None:
    nodes = [node(tmp_path, i, "honest") for i in (1, 2)]
    for spent in (0.2, 0.4):
        federated = await federate(nodes, plan("fedavg", rounds=2), tiny.blank())
        assert federated.report.record_privacy.epsilon == pytest.approx(spent)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda nodes: nodes[:1], "fedavg needs 2 nodes, and there are 1"),
        (lambda nodes: [nodes[0], nodes[1].model_copy(update={"node_id": 1})], "the same id"),
        (lambda nodes: [nodes[0], nodes[1].model_copy(update={"folder": nodes[0].folder})], "the same folder"),
        (lambda nodes: [nodes[0], nodes[1].model_copy(update={"app": f"{tiny.HERE}:nothing"})], "no ClientApp at"),
        (lambda nodes: [nodes[0], nodes[1].model_copy(update={"app": f"{tiny.HERE}:blank"})], "and no ClientApp"),
    ],
)
async def test_what_is_no_federation_is_not_begun(
    tmp_path: Path, change: Callable[[list[NodePlan]], list[NodePlan]], says: str
) -> None:
    nodes = change([node(tmp_path, i, "honest") for i in (1, 2)])
    with pytest.raises(InputError, match=says):
        await federate(nodes, plan("fedavg"), tiny.blank())
    assert os.listdir(tmp_path) == []


async def test_a_federation_that_is_given_up_waits_for_nobody() -> None:
    asking = asyncio.Event()

    async def send(packed: bytes) -> bytes:
        asking.set()
        return await hanging(packed)

    grid = SwarmGrid(nodes={1: send}, loop=asyncio.get_running_loop())
    asked = Message(RecordDict(), 1, "train")
    waiting = asyncio.create_task(asyncio.to_thread(grid.send_and_receive, [asked]))
    await asking.wait()
    grid.close()
    with pytest.raises(SwarmError, match="was ended"):
        await waiting
    with pytest.raises(SwarmError, match="was ended"):
        await asyncio.to_thread(grid.send_and_receive, [asked])


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_a_missing_flower_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    with pytest.raises(MissingExtra, match=r"pip install 'chimera\[federation\]'"):
        runpy.run_module("chimera.sandbox.federation.flower")
