"""The chat port: what any language model takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import Field

from chimera.core.types import Frozen, Quote

MAX_MESSAGE_CHARS = 1_000_000
MAX_TOKENS = 128_000


class ChatMessage(Frozen):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=MAX_MESSAGE_CHARS)


class ChatRequest(Frozen):
    """A conversation, the passages that the answer has to rest on, and a limit on what is written."""

    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=256)
    documents: tuple[Quote, ...] = Field(default=(), max_length=10_000)
    max_tokens: int = Field(default=1024, ge=1, le=MAX_TOKENS)


class ChatResponse(Frozen):
    """What came back, and what it took."""

    text: str
    tokens_in: int = Field(default=0, ge=0)
    tokens_out: int = Field(default=0, ge=0)
    cost_usd: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0


class ChatModel(ABC):
    """A language model. `writes` is False for one that only extracts: it adds no word to the documents it is given."""

    name: str
    writes: bool

    @abstractmethod
    async def chat(self, request: ChatRequest) -> ChatResponse:
        """The model's answer. Raises ModelError if it refuses or fails."""
