"""A patch of agents' code: into the files and every cell, and out of both again, while agents keep their state."""

from __future__ import annotations

from pathlib import Path

import pytest

from chimera.core.errors import ReloadError
from chimera.reload.messages import Parcel, Reloaded, ReloadStatus
from chimera.reload.source import read_source
from chimera.system.loading import InSwarm
from chimera.system.mending import Mending
from tests.actors.test_reloads import MODULE, Swarm, source
from tests.actors.test_reloads import module as module  # the fixture
from tests.actors.test_reloads import swarm as swarm
from tests.unit.system.places import proposal


class Client:
    """As `SwarmCoordinator`, to the coordinator of a test."""

    def __init__(self, swarm: Swarm) -> None:
        self._coordinator = swarm.coordinator

    async def reload(self, module: str, source: Path) -> Reloaded:
        read = read_source(module, source)
        done: Reloaded = await self._coordinator.reload.remote(module, Parcel(read.code, read.path))
        return done

    async def roll_back(self, module: str, *, lossy: bool = False) -> Reloaded:
        done: Reloaded = await self._coordinator.roll_back.remote(module, lossy)
        return done

    async def reload_status(self) -> ReloadStatus:
        status: ReloadStatus = await self._coordinator.reload_status.remote()
        return status


def mending(swarm: Swarm, tmp_path: Path) -> Mending:
    (home := tmp_path / ".heart").mkdir(exist_ok=True)
    return Mending(tmp_path, home, InSwarm(Client(swarm)))


FILE = f"{MODULE}.py"


async def test_a_patch_is_in_every_cell_and_goes_again_with_its_files(swarm: Swarm, tmp_path: Path) -> None:
    old, new = source(1).code.decode(), source(2).code.decode()
    work, patch = mending(swarm, tmp_path), proposal(MODULE, {FILE: new}, {FILE: old})
    assert await swarm.ask() == [1, 1]
    await work.apply(patch)
    assert (await swarm.ask(), (tmp_path / FILE).read_text()) == ([2, 2], new)
    assert await work.take_back(patch)
    assert (await swarm.ask(), (tmp_path / FILE).read_text()) == ([1, 3], old)
    assert work.left() is None


async def test_a_patch_that_one_cell_cannot_take_leaves_files_and_cells_as_they_were(
    swarm: Swarm, tmp_path: Path
) -> None:
    old, new = (
        source(1).code.decode(),
        source(2, "\ndef migrate(state, old):\n    raise ValueError('no')\n").code.decode(),
    )
    work = mending(swarm, tmp_path)
    with pytest.raises(ReloadError, match="no"):
        await work.apply(proposal(MODULE, {FILE: new}, {FILE: old}))
    assert (await swarm.ask(), (tmp_path / FILE).read_text()) == ([1, 1], old)
    assert work.left() is None


async def test_states_that_cannot_go_back_are_what_they_were(swarm: Swarm, tmp_path: Path) -> None:
    old, new = (
        source(1).code.decode(),
        source(2, "\ndef migrate(state, old):\n    return {'calls': 1000}\n").code.decode(),
    )
    work, patch = mending(swarm, tmp_path), proposal(MODULE, {FILE: new}, {FILE: old})
    await swarm.ask()
    await work.apply(patch)
    assert await swarm.ask() == [2, 1001]
    await work.take_back(patch)
    assert (await swarm.ask(), (tmp_path / FILE).read_text()) == ([1, 2], old)


async def test_who_was_killed_takes_it_back_at_the_next_start(swarm: Swarm, tmp_path: Path) -> None:
    old, new = source(1).code.decode(), source(2).code.decode()
    patch = proposal(MODULE, {FILE: new}, {FILE: old})
    await mending(swarm, tmp_path).apply(patch)
    after = mending(swarm, tmp_path)
    left = after.left()
    assert left is not None
    await after.take_back(left)
    assert (await swarm.ask(), (tmp_path / FILE).read_text()) == ([1, 1], old)
