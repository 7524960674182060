from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chimera.actors import scaling
from chimera.actors.scaler import SPREAD_S, Scaler
from chimera.actors.scaling import Capacity, Node
from chimera.core.config import Settings
from chimera.swarm.tally import Tally


class Crew:
    """Has a plan, and another one when it is told to."""

    def __init__(self, *cells: str) -> None:
        self.now = {"Manager[0]": list(cells)}

    @property
    def plan(self) -> dict[str, list[str]]:
        return {name: list(cells) for name, cells in self.now.items()}

    async def set_plan(self, plan: dict[str, list[str]]) -> None:
        self.now = plan


def node(name: str, *, cells: int = 4, alive: bool = True) -> Node:
    return Node(node_id=name, alive=alive, head=False, resources={}, cells=cells)


def scaler(crew: Crew, **settings: Any) -> Scaler:
    return Scaler(swarm="s", settings=Settings(**settings), cells=4, crew=crew)  # type: ignore[arg-type]


async def look(made: Scaler, homes: dict[str, str], nodes: list[Node], now: float) -> None:
    cells = {name: {"node": at} if at else {} for name, at in homes.items()}
    await made.step(Tally(0.0).snapshot(now), [{"name": "Manager[0]", "cells": cells}], nodes, now)
    await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many places for cells Ray says are free."""
    places = [3]
    monkeypatch.setattr(scaling, "capacity", lambda: Capacity(cells=12, free=places[0]))
    return places


HOMES = {"Cell[0]": "a", "Cell[1]": "a", "Cell[2]": "a", "Cell[3]": "b"}


async def test_a_node_that_came_back_gets_its_share_of_the_cells_one_at_a_time() -> None:
    crew = Crew(*HOMES)
    made = scaler(crew)
    nodes = [node("a"), node("b"), node("c")]
    await look(made, HOMES, nodes, 100.0)
    assert crew.now == {"Manager[0]": ["Cell[0]", "Cell[1]", "Cell[4]", "Cell[3]"]}
    await look(made, {**HOMES, "Cell[4]": "a"}, nodes, 100.0 + SPREAD_S)  # it went to the wrong place: not at once
    assert crew.now["Manager[0]"][2] == "Cell[4]"
    await look(made, {**HOMES, "Cell[4]": "c"}, nodes, 101.0 + 2 * SPREAD_S)
    assert crew.now["Manager[0]"] == ["Cell[0]", "Cell[1]", "Cell[4]", "Cell[3]"]


@pytest.mark.parametrize(
    ("homes", "nodes"),
    [
        (HOMES, [node("a"), node("b", cells=1), node("c", alive=False)]),
        (HOMES, [node("a"), node("b", cells=1), node("c", cells=0)]),
        (HOMES, [node("a"), node("b", cells=1)]),
        ({**HOMES, "Cell[1]": ""}, [node("a"), node("c")]),
    ],
    ids=["dead", "not for cells", "full", "one is down"],
)
async def test_no_cell_moves_where_it_would_not_help(homes: dict[str, str], nodes: list[Node]) -> None:
    crew = Crew(*HOMES)
    await look(scaler(crew), homes, nodes, 100.0)
    assert crew.now == {"Manager[0]": list(HOMES)}


async def test_no_cell_moves_when_all_places_are_taken(free: list[int]) -> None:
    free[0] = 0
    crew = Crew(*HOMES)
    await look(scaler(crew), HOMES, [node("a"), node("b"), node("c")], 100.0)
    assert crew.now == {"Manager[0]": list(HOMES)}


async def test_moves_that_do_not_help_become_rare() -> None:
    """Another swarm has taken the places, which cannot be seen: each new cell lands on the same node again."""
    crew = Crew(*HOMES)
    made = scaler(crew)
    moves = []
    for second in range(0, 1_000, 5):
        homes = {name: "a" if name != "Cell[3]" else "b" for name in crew.now["Manager[0]"]}
        before = crew.now
        await look(made, homes, [node("a"), node("b"), node("c")], float(second))
        if crew.now != before:
            moves.append(second)
    assert moves == [0, 30, 90, 210, 450, 930]


async def test_places_that_others_take_are_not_free() -> None:
    crew = Crew(*HOMES)
    await look(
        scaler(crew), {**HOMES, "Agent[worker-7]": "c"}, [node("a"), node("b", cells=1), node("c", cells=1)], 9.0
    )
    assert crew.now == {"Manager[0]": list(HOMES)}


async def test_a_swarm_that_follows_its_load_leaves_nodes_to_be_emptied() -> None:
    crew = Crew(*HOMES)
    await look(scaler(crew, max_cells=8), HOMES, [node("a"), node("b"), node("c")], 9.0)
    assert crew.now == {"Manager[0]": list(HOMES)}
