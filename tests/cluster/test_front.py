"""A gateway as a real actor: it comes back where it was, is replaced, and ends when nobody asks for it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chimera.actors import cluster
from chimera.core.config import Settings
from chimera.core.errors import InputError, StorageUnavailable
from chimera.system.serving import Front, GatewayOptions, check_port
from tests.actors.in_process import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


@asynccontextmanager
async def front(name: str, *, word: str = "hello", **options: Any) -> AsyncIterator[Front]:
    arguments = {"word": word, **options.pop("arguments", {})}
    made = Front(name, GatewayOptions(app="tests.actors.served:hello", arguments=arguments, **options))
    await made.start()
    try:
        yield made
    finally:
        await made.close(0.0)


async def said(made: Front) -> str:
    async with httpx2.AsyncClient() as client:
        return (await client.get(f"http://{made.host}:{made.port}/")).text


async def test_one_that_was_killed_comes_back_where_it_was(local_ray: Settings) -> None:
    async with front("front-killed") as made:
        assert await said(made) == "hello"
        with pytest.raises(InputError, match="is taken"):
            check_port(made.host, made.port)
        status = await made.keep()
        assert status is not None and (status.state, status.port) == ("serving", made.port)
        os.kill(status.pid, signal.SIGKILL)

        async def is_back() -> bool:
            now = await made.keep()
            return now is not None and now.pid != status.pid and now.state == "serving"

        await until(is_back, 60.0)
        assert await said(made) == "hello"
    check_port(made.host, made.port)


async def test_one_that_cannot_be_replaced_goes_on(local_ray: Settings, tmp_path: Path) -> None:
    stone = tmp_path / "stone"
    async with front("front-stays", arguments={"fails_if": str(stone)}) as made:
        first = await made.keep()
        stone.touch()
        with pytest.raises(StorageUnavailable, match="out of reach"):
            await made.redeploy()
        same = await made.keep()
        assert first is not None and same is not None and same.pid == first.pid
        assert await said(made) == "hello"
        stone.unlink()
        assert await made.redeploy() == 0
        other = await made.keep()
        assert other is not None and other.pid != first.pid and other.port == first.port
        assert await said(made) == "hello"
        await until(lambda: len([name for name in cluster.names() if name.startswith("front-stays/")]) == 1)


async def test_one_that_nobody_asks_for_any_more_ends_itself(local_ray: Settings) -> None:
    options = GatewayOptions(app="tests.actors.served:hello", orphan_s=1.0)
    made = Front("front-forgotten", options)
    await made.start()
    await until(lambda: not [name for name in cluster.names() if name.startswith("front-forgotten/")], 60.0)

    def is_free() -> bool:
        try:
            check_port(made.host, made.port)
        except InputError:
            return False
        return True

    await until(is_free, 30.0)
    await made.close()
