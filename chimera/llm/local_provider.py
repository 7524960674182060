"""Models on machines of one's own: Ollama over its native interface, and any server that speaks OpenAI's.

Ollama's `/v1` takes no `num_ctx` and cuts a prompt that is too long without a word. Its `/api/chat` takes it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, cast

from chimera.core.errors import InputError, MissingExtra, ModelError, ModelRefused, ModelSilent, ModelTooLong
from chimera.llm.chat import MAX_TEXTS, ChatChunk, ChatModel, ChatRequest, ChatResponse, Embeddings
from chimera.llm.ollama_wire import Growing, asked, embedded
from chimera.llm.opened import Opened
from chimera.llm.remote import Remote, is_here, lines

if TYPE_CHECKING:
    import httpx2

BASE_URL = "http://127.0.0.1:11434"

TIMEOUT_S = 60.0

NUM_CTX = 8_192

MAX_NUM_CTX = 10_000_000

MAX_RESPONSE_BYTES = 32_000_000
"""Of one answer, whole or in pieces: each token of a stream comes in some 150 bytes."""

BATCH = 128
"""Texts that are embedded by one request: vectors of 4,096 numbers are then some 10 MB."""

UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RecursionError)


class LocalLLMProvider(ChatModel):
    """The model `model` at `base_url`, which costs nothing.

    `wire="ollama"` is Ollama, with a window of `num_ctx` tokens for prompt and answer. `wire="openai"` is any server
    with OpenAI's chat completions, its address with `/v1`; its window is its own affair. `timeout_s` is for a whole
    answer, and of a stream for each piece. Raises InputError for a window that is none.
    """

    writes = True

    def __init__(
        self,
        name: str,
        *,
        model: str,
        base_url: str = BASE_URL,
        wire: Literal["ollama", "openai"] = "ollama",
        num_ctx: int = NUM_CTX,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if not 1 <= num_ctx <= MAX_NUM_CTX:
            raise InputError(f"num_ctx is {num_ctx}; it is a number of tokens from 1 to {MAX_NUM_CTX}")
        if find_spec("httpx2") is None:
            raise MissingExtra("httpx2", "llm")
        self.name = name
        self._model = model
        self._num_ctx = num_ctx
        self._timeout_s = timeout_s
        self._remote = Remote(name, base_url.rstrip("/"))
        self._http = Opened(self._connect)
        self._other = _openai(name, model, base_url, timeout_s) if wire == "openai" else None

    async def chat(self, request: ChatRequest) -> ChatResponse:
        """The answer. Raises ModelRefused (also where the prompt did not fit), ModelOutage or ModelTooLong."""
        if self._other is not None:
            return (await self._other.chat(request)).model_copy(update={"cost_usd": 0.0})
        growing = Growing(request, self._num_ctx, self._remote)
        data = await self._post("/api/chat", asked(request, self._model, self._num_ctx, stream=False))
        self._take(growing, data)
        if not growing.ended:
            raise self._remote.garbled(data)
        return growing.response()

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The answer, piece by piece. Raises as `chat` does, also after the first pieces."""
        if self._other is not None:
            chunks = cast("AsyncGenerator[ChatChunk, None]", self._other.stream(request))
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield _free(chunk)
            return
        growing = Growing(request, self._num_ctx, self._remote)
        body = asked(request, self._model, self._num_ctx, stream=True)
        http = self._http.get()
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._timeout_s):
                    stream = http.stream("POST", f"{self._remote.base_url}/api/chat", json=body)
                    response = await stack.enter_async_context(stream)
                    if response.status_code != 200:
                        await response.aread()
                        raise self._refusal(response)
                parts = await stack.enter_async_context(aclosing(lines(response, self._timeout_s)))
                async for line in parts:
                    if text := self._take(growing, line):
                        yield ChatChunk(text=text)
        except Exception as error:
            raise self._meant(error) from None
        if not growing.ended:
            raise ModelSilent(f"{self.name}: the answer broke off")
        yield ChatChunk(response=growing.response())

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """A vector for each text, by the model's own `/api/embed`. A text that does not fit is refused, not cut."""
        if self._other is not None:
            return (await self._other.embed(texts)).model_copy(update={"cost_usd": 0.0})
        if not 1 <= len(texts) <= MAX_TEXTS:
            raise ModelRefused(f"{self.name}: {len(texts)} texts to embed; give from 1 to {MAX_TEXTS}")
        parts = [await self._embed(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        vectors = tuple(vector for part in parts for vector in part.vectors)
        return parts[0].model_copy(update={"vectors": vectors, "tokens_in": sum(part.tokens_in for part in parts)})

    async def _embed(self, texts: Sequence[str]) -> Embeddings:
        body = {"model": self._model, "input": list(texts), "truncate": False, "options": {"num_ctx": self._num_ctx}}
        data = await self._post("/api/embed", body)
        try:
            return embedded(json.loads(data), len(texts), self._remote)
        except UNREADABLE:
            raise self._remote.garbled(data) from None

    async def close(self) -> None:
        if (http := self._http.take()) is not None:
            await http.aclose()
        if self._other is not None:
            await self._other.close()

    def _connect(self) -> httpx2.AsyncClient:
        from chimera.llm.bounded import BoundedClient

        return BoundedClient(
            max_bytes=MAX_RESPONSE_BYTES,
            max_stream_bytes=MAX_RESPONSE_BYTES,
            withheld=("authorization",),  # which httpx2 would take from a .netrc
            timeout_s=self._timeout_s,
            direct=is_here(self._remote.base_url),
        )

    async def _post(self, path: str, body: dict[str, Any]) -> bytes:
        http = self._http.get()
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await http.post(self._remote.base_url + path, json=body)
        except Exception as error:
            raise self._meant(error) from None
        if response.status_code != 200:
            raise self._refusal(response)
        return response.content

    def _take(self, growing: Growing, data: bytes) -> str:
        """What a part of the answer adds to its text. An error may come as one, with a status of 200."""
        if not data.strip():
            return ""
        try:
            body = json.loads(data)
            if isinstance(body, dict) and "error" in body:
                raise self._remote.refusal(500, data.decode("utf-8", "replace"), {})
            return growing.take(body)
        except UNREADABLE:
            raise self._remote.garbled(data) from None

    def _refusal(self, response: httpx2.Response) -> ModelError:
        missing = f"`ollama pull {self._model}` on its machine brings the model there"
        return self._remote.refusal(response.status_code, response.text, response.headers, missing=missing)

    def _meant(self, error: Exception) -> ModelError:
        import httpx2

        if isinstance(error, ModelTooLong):
            return ModelTooLong(f"{self.name}: {error}")
        if isinstance(error, ModelError):
            return error
        if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
            return self._remote.late(self._timeout_s, error)
        if isinstance(error, httpx2.HTTPError):
            return self._remote.unreachable(error)
        return ModelError(f"{self.name}: {type(error).__name__}: {self._remote.clean(str(error))}")


def _openai(name: str, model: str, base_url: str, timeout_s: float) -> ChatModel:
    from chimera.llm.openai_provider import OpenAIProvider

    return OpenAIProvider(name, model=model, base_url=base_url, timeout_s=timeout_s)


def _free(chunk: ChatChunk) -> ChatChunk:
    if chunk.response is None:
        return chunk
    return chunk.model_copy(update={"response": chunk.response.model_copy(update={"cost_usd": 0.0})})
