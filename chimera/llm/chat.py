"""The chat port: what any language model takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal, Self

from pydantic import Field

from chimera.core.types import Frozen, Quote

MAX_MESSAGE_CHARS = 1_000_000
MAX_MESSAGES = 1_024
MAX_TOKENS = 128_000


class ChatMessage(Frozen):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_MESSAGE_CHARS)


class ChatRequest(Frozen):
    """A conversation, the passages that the answer has to rest on, and a limit on what is written.

    `seed` is for a model that samples: the same again should bring the same answer.
    """

    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=MAX_MESSAGES)
    documents: tuple[Quote, ...] = Field(default=(), max_length=10_000)
    max_tokens: int = Field(default=1024, ge=1, le=MAX_TOKENS)
    seed: int | None = None

    def conversation(self) -> list[dict[str, str]]:
        """The messages as chat APIs take them. The documents, cited, stand in front of the last thing a user said.

        They get no message of their own: some models take users' and assistants' turns only one after the other.
        """
        told = [{"role": message.role, "content": message.content} for message in self.messages]
        if not self.documents:
            return told
        if told[-1]["role"] != "user":
            told.append({"role": "user", "content": ""})
        quoted = "\n".join(f"{quote.text} {quote.citation}" for quote in self.documents)
        told[-1]["content"] = f"Documents, each quote followed by its citation:\n{quoted}\n\n{told[-1]['content']}"
        return told


class ChatResponse(Frozen):
    """What came back, and what it took. `request_id` is the provider's name for the call, if it gave one."""

    text: str
    tokens_in: int = Field(default=0, ge=0)
    tokens_out: int = Field(default=0, ge=0)
    cost_usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    request_id: str | None = None


class ChatModel(ABC):
    """A language model. `writes` is False for one that only extracts: it adds no word to the documents it is given."""

    name: str
    writes: bool

    @abstractmethod
    async def chat(self, request: ChatRequest) -> ChatResponse:
        """The model's answer. Raises ModelRefused if it never will, ModelOutage if it may later, else ModelError."""

    async def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
