"""A policy that costs money."""

from __future__ import annotations

import asyncio
from typing import Any

from chimera import Context, Task


async def costs(task: Task, context: Context) -> int:
    """Spends what its inputs say, and thinks for as long as they say."""
    inputs: Any = task.inputs
    context.spend(usd=inputs["usd"], calls=1)
    await asyncio.sleep(inputs.get("seconds", 0.0))
    return 42
