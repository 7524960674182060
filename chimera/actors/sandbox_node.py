"""The sandbox node actor: one sandbox of a federation, in a process of its own, on the machine that has its data."""

from __future__ import annotations

import asyncio

from chimera.sandbox.federation.host import Host, NodePlan
from chimera.sandbox.federation.wire import MAX_MESSAGE_BYTES


class SandboxNode:
    """Answers a federation's messages, one at a time. What it keeps is in its folder, where one that died goes on."""

    def __init__(self, *, plan: NodePlan, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._plan = plan
        self._host = Host(plan, max_bytes=max_message_bytes)

    async def deliver(self, packed: bytes) -> bytes:
        """The reply to a message of Flower's. Raises ReplyError for bytes that are none."""
        return await asyncio.to_thread(self._host.handle, packed)

    def __repr__(self) -> str:  # the dashboard shows it
        return f"SandboxNode[{self._plan.node_id}]"
