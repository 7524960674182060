"""What only the journal in memory does."""

from __future__ import annotations

import pytest

from chimera.core.errors import StorageError
from chimera.core.events import Event, EventKind
from chimera.storage.memory import MemoryJournal


async def test_it_is_bounded() -> None:
    journal = MemoryJournal(max_bytes=1_000)
    small = Event(mission_id="m", seq=1, kind=EventKind.MISSION_ADMITTED, at_s=1.0)
    large = Event(mission_id="m", seq=2, kind=EventKind.TASK_DECIDED, at_s=1.0, data={"x": "x" * 900})
    await journal.append([small])
    with pytest.raises(StorageError, match="full"):
        await journal.append([large])
    assert await journal.read("m") == [small]
