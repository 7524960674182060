"""Nodes to ask and to attack: one for a test of its own, and one behind a real server for those that do it no harm."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.api.serving import Served, served
from tests.api.whole import Api, opened


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A whole node in this test's event loop, asked without a network."""
    async with opened(tmp_path / "node") as made:
        yield made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node behind a real server on 127.0.0.1, for the tests of one module."""
    with served(tmp_path_factory.mktemp("node")) as made:
        yield made
