"""Policies whose code is changed while they are at work. Tests make its versions by changing VERSION."""

from __future__ import annotations

import asyncio
import time
from typing import Any

VERSION = 1


class Counter:
    """Counts its calls, and says of which version it is. Its state knows which version it was made for."""

    def __init__(self) -> None:
        self.calls = 0
        self.of = VERSION

    async def __call__(self, task: Any, context: Any) -> dict[str, Any]:
        self.calls += 1
        calls = self.calls
        if "mark" in task.inputs:
            self.mark = task.inputs["mark"]
        time.sleep(task.inputs.get("block_s", 0.0))  # noqa: ASYNC251 - it is to block its loop
        await asyncio.sleep(task.inputs.get("s", 0.0))
        return {"version": VERSION, "calls": calls}


def slowly(task: Any, context: Any) -> dict[str, Any]:
    """In a thread."""
    time.sleep(task.inputs.get("s", 0.0))
    return {"version": VERSION, "calls": 0}
