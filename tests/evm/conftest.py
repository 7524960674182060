"""A node for each test, and a house on it that is audited when the test is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.evm.anvil import Anvil, install
from tests.evm.house import EvmHouse


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    install()


@pytest.fixture
def anvil() -> Iterator[Anvil]:
    server = Anvil()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def house(anvil: Anvil, tmp_path: Path) -> AsyncIterator[EvmHouse]:
    made = await EvmHouse(anvil, tmp_path).begin()
    yield made
    await made.audit()
    await made.close()
