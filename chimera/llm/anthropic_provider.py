"""Anthropic's models, and any server that speaks its Messages interface, over the `anthropic` package.

The package's own retries, tracing and reading of credentials are off: what is sent, where and how often is decided here
and by the caller.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from chimera.core.errors import MissingExtra, ModelError, ModelSilent, ModelTooLong
from chimera.llm.anthropic_wire import STATUSES, Growing, answered, asked
from chimera.llm.chat import ChatChunk, ChatModel, ChatRequest, ChatResponse
from chimera.llm.opened import Opened
from chimera.llm.remote import MAX_RESPONSE_BYTES, Remote, characters, check_key, check_url, is_here, is_private, lines

if TYPE_CHECKING:
    import anthropic
    import httpx2

BASE_URL = "https://api.anthropic.com"

TIMEOUT_S = 60.0

KEY_FROM = "ANTHROPIC_API_KEY"

KEY_HEADERS = ("authorization", "x-api-key")

UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What reading raises when a server does not answer as its interface says."""


class AnthropicProvider(ChatModel):
    """The model `model` at `base_url`. `api_key` is only sent over https, or to this machine.

    A temperature and a seed are not sent: the interface refuses both. An answer with a schema is had by a tool that the
    model has to use; a server that does not know of forced tools may answer with text. `timeout_s` is for a whole
    answer, and of a stream for each piece. Raises InputError for a key that cannot be one.
    """

    writes = True

    def __init__(
        self, name: str, *, model: str, base_url: str = BASE_URL, api_key: str, timeout_s: float = TIMEOUT_S
    ) -> None:
        if find_spec("anthropic") is None:
            raise MissingExtra("anthropic", "llm")
        key = check_key(api_key, KEY_FROM) if is_private(check_url(base_url)) else ""
        self.name = name
        self._model = model
        self._remote = Remote(name, base_url, key, KEY_FROM)
        self._timeout_s = timeout_s
        self._client = Opened(self._connect)

    async def chat(self, request: ChatRequest) -> ChatResponse:
        """The answer. Raises ModelRefused, ModelOutage or ModelTooLong; no message of theirs holds the key."""
        body = asked(request, self._model)
        create = self._client.get().messages.with_raw_response.create
        try:
            async with asyncio.timeout(self._timeout_s):
                raw = await create(**body, **self._options())
                data = await raw.http_response.aread()
        except Exception as error:
            raise self._meant(error) from None
        try:
            return answered(json.loads(data), self._remote, self._request_id(raw.http_response))
        except UNREADABLE:
            raise self._remote.garbled(data) from None

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The answer, piece by piece. Raises as `chat` does, also after the first pieces."""
        body = asked(request, self._model)
        growing, written = Growing(answer=request.answer is not None), ""
        create = self._client.get().messages.with_streaming_response.create
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(self._timeout_s):
                    raw = await stack.enter_async_context(create(**body, stream=True, **self._options()))
                events = await stack.enter_async_context(aclosing(lines(raw.http_response, self._timeout_s)))
                async for line in events:
                    if text := self._take(growing, line):
                        written += text
                        yield ChatChunk(text=text)
        except Exception as error:
            raise self._meant(error) from None
        if not growing.ended:
            raise ModelSilent(f"{self.name}: the answer broke off after {len(written)} characters")
        try:
            response = answered(growing.body, self._remote, self._request_id(raw.http_response))
        except UNREADABLE:
            raise self._remote.garbled(json.dumps(growing.body)) from None
        yield ChatChunk(text=response.text.removeprefix(written), response=response)

    async def close(self) -> None:
        if (client := self._client.take()) is not None:
            await client.close()

    def _connect(self) -> anthropic.AsyncAnthropic:
        import anthropic

        from chimera.llm.bounded import BoundedClient

        withheld = [*_from_environment(), *(() if self._remote.key else KEY_HEADERS)]
        here = is_here(self._remote.base_url)
        http = BoundedClient(max_bytes=MAX_RESPONSE_BYTES, withheld=withheld, timeout_s=self._timeout_s, direct=here)
        key = self._remote.key or "none"  # which is then not sent: the package insists on one
        return anthropic.AsyncAnthropic(
            api_key=key, base_url=self._remote.base_url, max_retries=0, http_client=http, open_telemetry=False
        )

    def _options(self) -> dict[str, Any]:
        """The time-out is said to each call: else the package makes its own of `max_tokens`."""
        headers = {"Authorization": f"Bearer {self._remote.key}"} if self._remote.key else {}
        return {"timeout": self._timeout_s, "extra_headers": headers}

    def _request_id(self, response: httpx2.Response) -> str | None:
        return self._remote.clean(response.headers.get("request-id", "")) or None

    def _take(self, growing: Growing, line: bytes) -> str:
        """What a line of the stream adds to the text. Events name their types in their data, too."""
        if not line.startswith(b"data:"):
            return ""
        try:
            event = json.loads(line[5:])
            if event["type"] == "error":
                said = json.dumps(event)
                raise self._remote.refusal(STATUSES.get(event["error"]["type"], 500), said, {}, missing=self._missing)
            return characters(growing.take(event))
        except UNREADABLE:
            raise self._remote.garbled(line) from None

    @property
    def _missing(self) -> str:
        return f"is there a model {self._model!r} at {self._remote.base_url}?"

    def _meant(self, error: Exception) -> ModelError:
        """The error of ours that one of the package, or of `httpx2`, stands for."""
        import anthropic
        import httpx2

        if isinstance(error, ModelTooLong) or isinstance(error.__cause__, ModelTooLong):
            return ModelTooLong(f"{self.name}: {error if isinstance(error, ModelTooLong) else error.__cause__}")
        if isinstance(error, ModelError):
            return error
        if isinstance(error, (TimeoutError, anthropic.APITimeoutError, httpx2.TimeoutException)):
            return self._remote.late(self._timeout_s, error)
        if isinstance(error, anthropic.APIStatusError):
            response = error.response
            return self._remote.refusal(error.status_code, response.text, response.headers, missing=self._missing)
        if isinstance(error, (anthropic.APIConnectionError, httpx2.HTTPError)):
            return self._remote.unreachable(error)
        return ModelError(f"{self.name}: {type(error).__name__}: {self._remote.clean(str(error))}")


def _from_environment() -> list[str]:
    """Headers that the package takes from the environment; they are no other server's business."""
    names = [line.partition(":")[0].strip() for line in os.environ.get("ANTHROPIC_CUSTOM_HEADERS", "").split("\n")]
    return [name for name in names if name and name.lower() != "authorization"]
