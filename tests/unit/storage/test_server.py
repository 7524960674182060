"""What journals and stores on a server share."""

from __future__ import annotations

import pytest

from chimera.core.errors import StorageUnavailable
from chimera.storage import server
from chimera.storage.server import Disconnected, Persistence


async def test_a_server_that_stays_away_is_told_from_one_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PAUSES_S", (0.001,) * 3)
    persistence = Persistence("redis://there")
    tries: list[bool] = []

    async def attempt(again: bool) -> str:
        tries.append(again)
        if len(tries) > 1:
            raise Disconnected("connection reset")
        return "here"

    assert await persistence.ask(attempt) == "here"
    with pytest.raises(StorageUnavailable, match=r"redis://there is out of reach .*there or not"):
        await persistence.ask(attempt)
    assert tries == [False, False, True, True, True]
