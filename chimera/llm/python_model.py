"""A Python function as a model: for trying things out without a server, and for whatever answers by rules."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import threading
from collections.abc import Callable
from typing import Any

from chimera.core.errors import InputError, ModelError, ModelRefused, ModelSilent, ModelTooLong
from chimera.llm.chat import MAX_MESSAGE_CHARS, ChatModel, ChatRequest, ChatResponse

TIMEOUT_S = 60.0

MAX_THREADS = 32
"""Calls of one function at a time that is not async. One that never returns keeps its thread."""


class PythonModel(ChatModel):
    """The function of `python:MODULE:FUNCTION`, in this process.

    With one argument it is given the last message's text; with two, all messages (dicts of `role` and `content`) and
    the seed, a number or None. It returns text, or is async and does. One that is not async runs in a thread, so that
    it may block. Raises InputError when there is no such function, or it takes something else.
    """

    writes = True

    def __init__(self, name: str, *, timeout_s: float = TIMEOUT_S, threads: int = MAX_THREADS) -> None:
        self.name = name
        self._function = _load(name)
        self._takes_all = _arguments(name, self._function) == 2
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(threads)

    async def chat(self, request: ChatRequest) -> ChatResponse:
        """What the function returns. Raises ModelSilent when it takes too long, ModelError when it raises or returns
        no text, ModelTooLong when it returns too much, ModelRefused for tools and a schema, which it is not told."""
        if request.tools or request.answer is not None:
            raise ModelRefused(f"{self.name} is a function: it knows no tools, and no schema of an answer")
        told = request.conversation()
        arguments = (told, request.seed) if self._takes_all else (told[-1]["content"],)
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                text = await self._call(arguments)
        except Exception as error:
            if limit.expired():
                raise ModelSilent(f"{self.name} did not return within {self._timeout_s:g} s") from error
            raise ModelError(f"{self.name} raised {type(error).__name__}: {str(error)[:500]}") from error
        if not isinstance(text, str):
            raise ModelError(f"{self.name} returned a {type(text).__name__}; it has to return a str")
        if len(text) > MAX_MESSAGE_CHARS:
            raise ModelTooLong(f"{self.name} returned {len(text)} characters; the limit is {MAX_MESSAGE_CHARS}")
        return ChatResponse(text=text.encode("utf-8", "replace").decode(), provider=self.name)

    async def _call(self, arguments: tuple[Any, ...]) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(*arguments)
        await self._free.acquire()
        returned = await _in_thread(self._function, arguments, self._free.release)
        return await returned if inspect.isawaitable(returned) else returned


async def _in_thread(function: Callable[..., Any], arguments: tuple[Any, ...], ended: Callable[[], None]) -> Any:
    """What `function` returns, from a thread that does not keep this process alive; then, or later, `ended`."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(outcome: Any, error: BaseException | None) -> None:
        ended()
        if future.done():
            return  # nobody waits any more
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(outcome)

    def run() -> None:
        outcome, error = None, None
        try:
            outcome = function(*arguments)
        except BaseException as raised:  # also SystemExit, which would end this thread unheard
            error = raised if isinstance(raised, Exception) else RuntimeError(f"{type(raised).__name__}: {raised}")
            error = RuntimeError("StopIteration") if isinstance(error, StopIteration) else error  # a future takes none
        with contextlib.suppress(RuntimeError):  # its loop has been closed
            loop.call_soon_threadsafe(settle, outcome, error)

    threading.Thread(target=run, name=f"model {getattr(function, '__name__', '')}", daemon=True).start()
    return await future


def _load(name: str) -> Callable[..., Any]:
    _, _, path = name.partition(":")
    module, _, attribute = path.partition(":")
    if not module or not attribute:
        raise InputError(f"{name!r} is not of the form python:MODULE:FUNCTION")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # a user's module may raise anything when imported
        hint = "; is the module on PYTHONPATH?" if isinstance(error, ImportError) else ""
        raise InputError(f"{name}: {type(error).__name__}: {error}{hint}") from error
    if not callable(found):
        raise InputError(f"{name} is a {type(found).__name__}, not something that can be called")
    return found  # type: ignore[no-any-return]


def _arguments(name: str, function: Callable[..., Any]) -> int:
    """How many arguments it has to be given, one or two."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} does not say what it takes; give a function of one's own") from error
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [one for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    if len(needed) not in (1, 2) or any(one.kind not in positional for one in needed):
        raise InputError(f"{name} has to take one argument, the prompt, or two: messages and seed")
    return len(needed)
