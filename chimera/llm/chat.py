"""The chat port: what any language model takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, JsonValue, model_validator

from chimera.core.errors import ModelRefused
from chimera.core.types import Frozen, Quote

MAX_MESSAGE_CHARS = 1_000_000
MAX_MESSAGES = 1_024
MAX_TOKENS = 128_000
MAX_TOOLS = 128
MAX_TEXTS = 2_048
"""That are embedded by one call."""

NO_ARGUMENTS: dict[str, JsonValue] = {"type": "object", "properties": {}}

ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""What both large providers take."""

Money = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
"""US dollars."""


class ToolCall(Frozen):
    """A model asks for a tool. `id` ties the answer to it."""

    id: str = Field(min_length=1, max_length=256)
    name: ToolName
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


class ToolSpec(Frozen):
    """A tool that a model may ask for. `parameters` is the JSON schema of its arguments, an object."""

    name: ToolName
    description: str = Field(default="", max_length=10_000)
    parameters: dict[str, JsonValue] = Field(default_factory=lambda: dict(NO_ARGUMENTS))


class ChatMessage(Frozen):
    """One turn of a conversation. A `tool` message answers the call that `call_id` names."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = Field(max_length=MAX_MESSAGE_CHARS)
    calls: tuple[ToolCall, ...] = Field(default=(), max_length=MAX_TOOLS)
    """What the assistant asked for in this turn."""
    call_id: str | None = None

    @model_validator(mode="after")
    def _calls_and_answers_belong(self) -> ChatMessage:
        if self.calls and self.role != "assistant":
            raise ValueError("only an assistant's message has calls")
        if (self.role == "tool") != (self.call_id is not None):
            raise ValueError("a tool's message, and no other, has a call_id")
        return self


class ChatRequest(Frozen):
    """A conversation, the passages that the answer has to rest on, and a limit on what is written.

    `seed` is for a model that samples: the same again should bring the same answer. `tools` may be asked for.
    `answer` is the JSON schema of an object that the answer has to be (`answer_of` makes it of a pydantic model).
    """

    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=MAX_MESSAGES)
    documents: tuple[Quote, ...] = Field(default=(), max_length=10_000)
    max_tokens: int = Field(default=1024, ge=1, le=MAX_TOKENS)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, allow_inf_nan=False)
    seed: int | None = None
    tools: tuple[ToolSpec, ...] = Field(default=(), max_length=MAX_TOOLS)
    answer: dict[str, JsonValue] | None = None

    def told(self) -> tuple[ChatMessage, ...]:
        """The messages, with the documents, cited, in front of the last thing a user said.

        They get no message of their own: some models take users' and assistants' turns only one after the other.
        """
        if not self.documents:
            return self.messages
        *before, last = self.messages if self.messages[-1].role == "user" else (*self.messages, _NOTHING)
        quoted = "\n".join(f"{quote.text} {quote.citation}" for quote in self.documents)
        content = f"Documents, each quote followed by its citation:\n{quoted}\n\n{last.content}"
        return (*before, last.model_copy(update={"content": content}))

    def conversation(self) -> list[dict[str, str]]:
        """`told` as plain dicts of role and content, for a model that knows no tools."""
        return [{"role": message.role, "content": message.content} for message in self.told()]


_NOTHING = ChatMessage(role="user", content="")


class ChatResponse(Frozen):
    """What came back, and what it took.

    `cost_usd` is None where the price is not known, which is not nothing. `model` is what the server says that it ran,
    `provider` who was asked. `request_id` is the provider's name for the call, if it gave one. `finish` is why it
    ended: `length` means that it was cut off at `max_tokens`. Of `tokens_in`, the provider had `tokens_cached` in its
    own cache, and put `tokens_stored` there. `from_cache`: it is Chimera's own copy (`CachedModel`), and took nothing.
    """

    text: str
    calls: tuple[ToolCall, ...] = ()
    tokens_in: int = Field(default=0, ge=0)
    tokens_out: int = Field(default=0, ge=0)
    tokens_cached: int = Field(default=0, ge=0)
    tokens_stored: int = Field(default=0, ge=0)
    from_cache: bool = False
    cost_usd: Money | None = None
    finish: Literal["stop", "length", "calls", "refusal"] = "stop"
    model: str = ""
    provider: str = ""
    request_id: str | None = None


class ChatChunk(Frozen):
    """A piece of an answer as it is written. The last one has the whole `response`, and may have no text."""

    text: str = ""
    response: ChatResponse | None = None


class Embeddings(Frozen):
    """A vector for each text, in their order, and what that took. `from_cache` is as in a `ChatResponse`."""

    vectors: tuple[tuple[float, ...], ...]
    tokens_in: int = Field(default=0, ge=0)
    from_cache: bool = False
    cost_usd: Money | None = None
    model: str = ""
    provider: str = ""


class ChatModel(ABC):
    """A language model. `writes` is False for one that only extracts: it adds no word to the documents it is given.

    `chat` is all that a model must have. One that cannot do what a request asks for (tools, a schema) raises
    ModelRefused.
    """

    name: str
    writes: bool

    @abstractmethod
    async def chat(self, request: ChatRequest) -> ChatResponse:
        """The model's answer. Raises ModelRefused if it never will, ModelOutage if it may later, else ModelError."""

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The same answer, piece by piece. Here all at once. Close it (`contextlib.aclosing`) to stop the writing."""
        response = await self.chat(request)
        yield ChatChunk(text=response.text, response=response)

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """A vector for each of up to 2,048 texts. Raises as `chat` does."""
        raise ModelRefused(f"{self.name} offers no embeddings")

    async def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def answer_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a pydantic model, for `ChatRequest.answer`."""
    return model.model_json_schema()
