"""Models behind OpenAI, and behind any server that speaks as it does: Chutes, vLLM, llama.cpp, Ollama, OpenRouter ...

Over the `openai` package, whose own retries are off: whoever calls decides whether, when and whom to ask again. Nothing
that a server says is believed to be small, quick, JSON, or free of the key that it was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from chimera.core.errors import InputError, MissingExtra, ModelError, ModelOutage, ModelQuota, ModelSilent, ModelTooLong
from chimera.llm.chat import MAX_MESSAGE_CHARS, MAX_TEXTS, ChatChunk, ChatModel, ChatRequest, ChatResponse, Embeddings
from chimera.llm.openai_chat import ChatCompletions
from chimera.llm.openai_responses import Responses
from chimera.llm.openai_wire import UNREADABLE, Pieces, Wire, Without, unsupported
from chimera.llm.opened import Opened
from chimera.llm.remote import MAX_RESPONSE_BYTES, Remote, check_key, check_url, count, is_here, is_private, reason

if TYPE_CHECKING:
    import httpx2
    import openai

OPENAI_URL = "https://api.openai.com/v1"

TIMEOUT_S = 60.0

STREAM_TIMES = 10
"""A stream has ended after so many time-outs, however steadily it comes."""

TEXTS_AT_ONCE = 32
"""That are embedded by one request: their vectors fit into MAX_RESPONSE_BYTES, each of up to 5,000 numbers."""

QUOTA = "insufficient_quota"

REQUEST_ID_HEADERS = ("X-Chutes-InvocationID", "x-request-id")

ACCOUNT_HEADERS = ("OpenAI-Organization", "OpenAI-Project")
"""The `openai` package reads these from the environment; they are no other server's business."""


class OpenAIProvider(ChatModel):
    """The model `model` at `base_url`, such as `http://127.0.0.1:8000/v1`.

    `api_key` is only sent over https, or to this machine; `key_from` is the variable that it was read from. At most
    `connections` are open (default 1,000; with hundreds in use at once, `httpx2` spends more on its pool than on the
    calls, so give 100 where answers are quick). Asks once,
    and again only where the server names a parameter that this model does not take (a temperature, say), without it
    and from then on. Raises InputError for a key that cannot be used, MissingExtra without the `openai` package.
    """

    writes = True

    def __init__(
        self,
        name: str,
        *,
        model: str,
        base_url: str,
        api_key: str = "",
        api: Literal["chat", "responses"] = "chat",
        key_from: str = "OPENAI_API_KEY",
        timeout_s: float = TIMEOUT_S,
        connections: int | None = None,
    ) -> None:
        if connections is not None and connections < 1:
            raise InputError(f"{name}: {connections} connections are none; give at least 1")
        if find_spec("openai") is None:
            raise MissingExtra("openai", "llm")
        key = check_key(api_key, key_from)
        self.name = name
        self._model = model
        self._remote = Remote(name, base_url, key if is_private(check_url(base_url)) else "", key_from)
        self._wire: Wire = ChatCompletions() if api == "chat" else Responses()
        self._api = api
        self._timeout_s = timeout_s
        self._is_openai = urlsplit(base_url).hostname == urlsplit(OPENAI_URL).hostname
        self._without: Without = frozenset({"max_tokens"}) if self._is_openai else frozenset()
        self._connections = connections
        self._client = Opened(self._connect)

    async def chat(self, request: ChatRequest) -> ChatResponse:
        """The answer. Raises ModelRefused, ModelUnauthorized, ModelQuota, ModelOutage, ModelTooLong, or ModelError for
        a tool call that is none; no message of theirs holds the key."""
        raw = await self._create(self._endpoint().with_raw_response.create, request, stream=False)
        return self._read(self._json(raw.content), raw.headers)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The answer as it is written. Raises as `chat` does, ModelOutage also where it breaks off before its end."""
        opened = await self._create(self._endpoint().create, request, stream=True)
        response: httpx2.Response = opened.response
        pieces = self._wire.pieces()
        try:
            async with contextlib.aclosing(self._texts(response, pieces)) as texts:
                async for text in texts:
                    yield ChatChunk(text=text)
        finally:
            await response.aclose()
        whole = pieces.whole()
        if whole is None:
            raise ModelSilent(f"{self.name}: the answer broke off")
        yield ChatChunk(response=self._read(whole, response.headers))

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """A vector for each text, from the model that this was made with. Raises as `chat` does, and InputError for
        more than MAX_TEXTS, for an empty or an endless one."""
        if len(texts) > MAX_TEXTS or not all(0 < len(text) <= MAX_MESSAGE_CHARS for text in texts):
            raise InputError(f"embed up to {MAX_TEXTS} texts at once, each of 1 to {MAX_MESSAGE_CHARS} characters")
        create = self._client.get().embeddings.with_raw_response.create
        vectors: list[tuple[float, ...]] = []
        tokens, model = 0, ""
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            asked = list(texts[start : start + TEXTS_AT_ONCE])
            with self._faults():
                async with asyncio.timeout(self._timeout_s):
                    raw = await create(model=self._model, input=asked, encoding_format="float")
            body = self._json(raw.content)
            try:
                vectors += _vectors(body["data"], len(asked))
            except UNREADABLE:
                raise self._remote.garbled(raw.content) from None
            tokens += count(body.get("usage"), "prompt_tokens")
            model = self._remote.clean(str(body.get("model") or ""))
        return Embeddings(vectors=tuple(vectors), tokens_in=tokens, model=model, provider=self.name)

    async def close(self) -> None:
        if (client := self._client.take()) is not None:
            await client.close()

    def _connect(self) -> openai.AsyncOpenAI:
        import openai

        from chimera.llm.bounded import BoundedClient

        key = self._remote.key
        withheld = (*(() if self._is_openai else ACCOUNT_HEADERS), *(() if key else ("Authorization",)))
        here = is_here(self._remote.base_url)
        http = BoundedClient(
            max_bytes=MAX_RESPONSE_BYTES,
            withheld=withheld,
            timeout_s=self._timeout_s,
            direct=here,
            connections=self._connections,
        )
        return openai.AsyncOpenAI(
            api_key=key or "none",  # which is then not sent: the package insists on one
            base_url=self._remote.base_url,
            max_retries=0,
            http_client=http,
        )

    def _endpoint(self) -> Any:  # the overloads of its `create` want literal roles
        client = self._client.get()
        return client.chat.completions if self._api == "chat" else client.responses

    async def _create(self, create: Callable[..., Awaitable[Any]], request: ChatRequest, *, stream: bool) -> Any:
        """Ask; and again without what the model does not take."""
        import openai

        with self._faults():
            async with asyncio.timeout(self._timeout_s):
                body = self._body(request, stream)
                while True:
                    try:
                        return await create(**body)
                    except openai.BadRequestError as error:
                        self._without |= unsupported(error.response.text)
                        before, body = body, self._body(request, stream)
                        if body == before:
                            raise

    def _body(self, request: ChatRequest, stream: bool) -> dict[str, Any]:
        body = {**self._wire.body(self._model, request, self._without), "stream": stream}
        if stream and self._api == "chat" and "stream_options" not in self._without:
            body["stream_options"] = {"include_usage": True}
        return body

    async def _texts(self, response: httpx2.Response, pieces: Pieces) -> AsyncGenerator[str]:
        """The texts in a stream of server-sent events, until it ends; `pieces` gets all events."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + STREAM_TIMES * self._timeout_s
        lines = response.aiter_lines()
        while True:
            with self._faults():
                async with asyncio.timeout_at(min(loop.time() + self._timeout_s, latest)):
                    data = await _event(lines)
                if data is None:
                    return
                text = self._add(pieces, data)
            if pieces.failure is not None:
                raise self._failure(pieces.failure)
            if text:
                yield text

    def _add(self, pieces: Pieces, data: str) -> str:
        try:
            return pieces.add(json.loads(data))
        except UNREADABLE:
            raise self._remote.garbled(data) from None

    def _json(self, data: bytes) -> Mapping[str, Any]:
        try:
            body = json.loads(data)
        except UNREADABLE:
            body = None
        if not isinstance(body, dict):
            raise self._remote.garbled(data)
        if isinstance(body.get("error"), dict):
            raise self._failure(body["error"])
        return body

    def _read(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> ChatResponse:
        try:
            response = self._wire.read(body, self._remote)
        except UNREADABLE:
            raise self._remote.garbled(json.dumps(body)) from None
        ids = (self._remote.clean(headers[name]) for name in REQUEST_ID_HEADERS if headers.get(name))
        return response.model_copy(update={"request_id": next(ids, None)})

    def _failure(self, error: Mapping[str, Any]) -> ModelError:
        """An error in the body of an answer that began well."""
        text, code = json.dumps({"error": error}), error.get("code")
        if isinstance(code, int) and 400 <= code < 600:
            return self._remote.refusal(code, text, {})
        said = f"{self.name}: the server ended its answer with an error: {self._remote.clean(reason(text))}"
        return ModelQuota(said) if QUOTA in (code, error.get("type")) else ModelOutage(said)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """What the package and the transport raise, as errors of Chimera's."""
        import httpx2
        import openai

        try:
            yield
        except (TimeoutError, openai.APITimeoutError, httpx2.TimeoutException) as error:
            raise self._remote.late(self._timeout_s, error) from None
        except openai.APIStatusError as error:
            missing = f"is there a model {self._model!r} at {self._remote.base_url}?"
            refusal = self._remote.refusal
            raise refusal(error.status_code, error.response.text, error.response.headers, missing=missing) from None
        except (openai.APIConnectionError, httpx2.RequestError, httpx2.StreamError) as error:
            raise self._remote.unreachable(error) from None
        except ModelTooLong as error:
            raise ModelTooLong(f"{self.name}: {error}") from None
        except (openai.OpenAIError, ValueError) as error:
            raise ModelError(f"{self.name}: {self._remote.clean(str(error))}") from None


async def _event(lines: AsyncIterator[str]) -> str | None:
    """The data of the next server-sent event; None at the end. Source: WHATWG HTML, 9.2.6."""
    told: list[str] = []
    async for line in lines:
        if line.startswith("data:"):
            told.append(line[5:].removeprefix(" "))
        elif not line and told:
            data = "\n".join(told)
            if data.strip() != "[DONE]":  # what comes after it is the transport's end, which sets the connection free
                return data
            told.clear()
    return None


def _vectors(data: Sequence[Mapping[str, Any]], number: int) -> list[tuple[float, ...]]:
    ordered = sorted(data, key=lambda one: int(one["index"]))
    if [one["index"] for one in ordered] != list(range(number)):
        raise ValueError("not one vector for each text")
    vectors = [tuple(float(value) for value in one["embedding"]) for one in ordered]
    if not all(vector and all(map(math.isfinite, vector)) for vector in vectors):
        raise ValueError("a vector that is none")
    return vectors
