"""kill -9 of the payer and the keys between any two steps, and at any moment: each payment is made exactly once.

All of it runs in one process here, so that a kill takes the payer, the keys and the ledger's writer together; what is
left is the chain, and what was durable.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.treasury.evm import payments
from chimera.treasury.evm.types import GWEI, Network
from chimera.treasury.types import TransferKind
from tests.evm.anvil import Anvil
from tests.evm.house import ETH, PAYEE, WEI, EvmHouse

AMOUNT = ETH // 20
MAX_ROUNDS = 40
NEVER = 10**9


class Scene:
    """A house on a chain that lives as long as each run of it does."""

    def __init__(self, anvil: Anvil, folder: Path) -> None:
        self.anvil = anvil
        self.folder = folder
        self.paid = 0
        self.asked: list[Any] = []
        self.network: Network = asyncio.run(self._begin())

    async def _begin(self) -> Network:
        house = await EvmHouse(self.anvil, self.folder).begin()
        await house.close()
        return house.network

    async def house(self) -> EvmHouse:
        house = EvmHouse(self.anvil, self.folder)
        house.network = self.network
        await house.open()
        return house

    async def reserve(self, count: int) -> None:
        house = await self.house()
        for _ in range(count):
            self.asked.append(await house.reserved(AMOUNT, id=f"p{len(self.asked)}"))
        await house.close()

    async def work(self, step: Callable[[str], None]) -> None:
        """What a payer does after a start, until nothing is left to do."""
        house = await self.house()
        house.start()
        deadly(house.chain, step, "send")
        deadly(house.app, step, "write")
        deadly(house.outbox, step, "plan", "record")
        for holder in house.holders.values():
            deadly(holder, step, "sign", "seal")
        await house.payer.recover()
        for _ in range(MAX_ROUNDS):
            if not house.outbox.open():
                break
            await house.mined()
        assert not house.outbox.open(), await house.payer.watch()
        await house.close()

    async def check(self) -> None:
        """Every payment was made, once, and the ledger says so."""
        house = await self.house()
        house.start()
        assert [await house.end(request) for request in self.asked] == [TransferKind.POST] * len(self.asked)
        assert self.anvil.balance(PAYEE) == len(self.asked) * WEI // 20
        assert (await house.payer.reconcile()).paid == len(self.asked)
        spent = WEI - self.anvil.balance(self.network.relayer)
        entered = (await house.balance(payments.gas_fees(self.network))).posted
        assert 0 <= entered * GWEI - spent <= len(self.asked) * GWEI  # rounded up, once for each
        await house.audit()
        await house.close()

    def run(self, *, until: int = NEVER, kill_after_s: float | None = None) -> int | None:
        """Work in a process of its own, killed at its step `until` or after a time: the steps it took, if it ended."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._child(until, write)
        os.close(write)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        told = os.read(read, 100_000).decode()
        os.close(read)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, told
        return None if os.WIFSIGNALED(status) else int(told)

    def _child(self, until: int, write: int) -> None:
        steps = 0

        def step(_: str) -> None:
            nonlocal steps
            steps += 1
            if steps == until:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            asyncio.run(self.work(step))
            os.write(write, str(steps).encode())
            os._exit(0)
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}"[:90_000].encode())
            os._exit(1)


def deadly(port: Any, step: Callable[[str], None], *names: str) -> None:
    """Before and after each of these calls of a port somebody may pull the plug."""
    for name in names:
        setattr(port, name, wrapped(getattr(port, name), step, name))


def wrapped(call: Callable[..., Awaitable[Any]], step: Callable[[str], None], name: str) -> Callable[..., Any]:
    async def between(*values: Any, **named: Any) -> Any:
        step(f"before {name}")
        answer = await call(*values, **named)
        step(f"after {name}")
        return answer

    return between


@pytest.fixture
def scene(anvil: Anvil, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(anvil, tmp_path)
    yield made
    asyncio.run(made.check())


def killed_at(scene: Scene, points: list[int]) -> None:
    for point in points:
        asyncio.run(scene.reserve(1))
        assert scene.run(until=point) is None
        assert scene.run() is not None


def steps_of_a_payment(scene: Scene) -> int:
    asyncio.run(scene.reserve(1))
    steps = scene.run()
    assert steps is not None and steps > 20
    return steps


def test_a_payment_that_is_killed_at_every_fourth_step_is_made_once(scene: Scene) -> None:
    steps = steps_of_a_payment(scene)
    killed_at(scene, list(range(2, steps + 1, 4)))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_payment_that_is_killed_between_any_two_steps_is_made_once(scene: Scene) -> None:
    steps = steps_of_a_payment(scene)
    killed_at(scene, list(range(1, steps + 1)))


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10))
def test_payments_that_are_killed_at_random_moments_are_made_once(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(5):
        asyncio.run(scene.reserve(chance.randint(1, 4)))
        for _ in range(4):
            if scene.run(kill_after_s=chance.uniform(0.02, 0.6)) is not None:
                break
        assert scene.run() is not None
