"""Policies whose code is changed while they are at work, and the versions of it."""

from __future__ import annotations

import asyncio
from typing import Any

VERSION = 1


class Counter:
    """Counts its calls, and says of which version it is."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, task: Any, context: Any) -> Any:
        self.calls += 1
        await asyncio.sleep(task.inputs.get("s", 0.0))
        return {"version": VERSION, "calls": self.calls}


def which(task: Any, context: Any) -> Any:
    return VERSION
