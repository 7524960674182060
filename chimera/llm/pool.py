"""One model, and so one pool of connections, for all agents of an event loop that name the same.

A model holds connections, which belong to the loop that opened them, and opening them anew for every call costs more
than the call. So agents borrow: `async with shared_model(name)` lets go of nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import cast

from chimera.core.errors import InputError
from chimera.llm.chat import ChatChunk, ChatModel, ChatRequest, ChatResponse, Embeddings
from chimera.llm.models import open_model

MAX_MODELS = 256
"""Open at a time in one event loop."""

Open = Callable[[str], ChatModel]


def shared_model(name: str, open: Open = open_model) -> ChatModel:
    """The model called `name`, the same for all who ask in this event loop; the first call opens it, by `open(name)`.

    Its own `close` does nothing: it is closed when the loop ends (by `asyncio.run`, or whoever calls the loop's
    `shutdown_asyncgens`) or by `close_shared`, and opened again by the next call. To be called in a running loop, and
    with the same `open` each time. Raises what `open` raises, and InputError for more than MAX_MODELS names.
    """
    model = _Borrowed(name, open)
    model.opened()
    return model


async def close_shared() -> None:
    """Close all shared models of this event loop. Calls that are in progress then fail with a ModelError."""
    with _lock:
        here = _by_loop.get(asyncio.get_running_loop())
    if here is not None:
        await here.keeper.aclose()


class _Borrowed(ChatModel):
    """A shared model, looked up for each call: it serves any loop, and goes on after `close_shared`."""

    def __init__(self, name: str, open: Open) -> None:
        self.name = name
        self._open = open

    @property
    def writes(self) -> bool:  # type: ignore[override]
        return self.opened().writes

    async def chat(self, request: ChatRequest) -> ChatResponse:
        return await self.opened().chat(request)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        async with contextlib.aclosing(cast(AsyncGenerator[ChatChunk, None], self.opened().stream(request))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        return await self.opened().embed(texts)

    async def close(self) -> None:
        """Nothing: others use it too."""

    def opened(self) -> ChatModel:
        """The model of the loop that runs here."""
        loop = asyncio.get_running_loop()
        with _lock:
            here = _by_loop.get(loop)
            if here is None:
                _forget_closed_loops()
                here = _by_loop[loop] = _Models(loop)
        return here.find(self.name, self._open)


class _Models:
    """The open models of one loop. Only that loop's thread uses them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._models: dict[tuple[str, Open], ChatModel] = {}
        self.keeper = self._keep()
        _start(self.keeper)

    def find(self, name: str, open: Open) -> ChatModel:
        model = self._models.get((name, open))
        if model is None:
            if len(self._models) >= MAX_MODELS:
                raise InputError(f"{name!a:.100}: {MAX_MODELS} models are open here; close_shared() closes them")
            model = self._models[name, open] = open(name)
        return model

    async def _keep(self) -> AsyncGenerator[None, None]:
        """Waits for the end. A loop closes its started generators before it is closed itself; it has no other hook."""
        try:
            yield
        finally:
            with _lock:
                _by_loop.pop(self._loop, None)
            await asyncio.gather(*(model.close() for model in self._models.values()), return_exceptions=True)


_by_loop: dict[asyncio.AbstractEventLoop, _Models] = {}
_lock = threading.Lock()


def _start(keeper: AsyncGenerator[None, None]) -> None:
    """Run it to its `yield`. It waits for nothing on the way, so one step is all."""
    with contextlib.suppress(StopIteration):
        keeper.__anext__().send(None)


def _forget_closed_loops() -> None:
    """For loops that were closed without a word to their generators. Their sockets go with the garbage."""
    for loop in [loop for loop in _by_loop if loop.is_closed()]:
        del _by_loop[loop]
