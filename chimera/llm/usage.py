"""What a call took, and before it is made, the most that it can take."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Literal, NamedTuple

from chimera.core.errors import ModelOutage, ModelQuota, ModelRefused, ModelSilent, ModelUnauthorized
from chimera.core.types import Frozen
from chimera.llm.chat import ChatRequest, ChatResponse, Embeddings

MESSAGE_TOKENS = 16
"""That a chat template puts around one message, generously."""
TOOLS_TOKENS = 1_024
"""For a provider's own words on how to use tools, or how to write an object: some hundred tokens."""

Outcome = Literal["ok", "outage", "silent", "quota", "refused", "unauthorized", "failed", "cancelled", "closed"]

IDLE: frozenset[Outcome] = frozenset({"outage", "quota", "refused", "unauthorized"})
"""After these the server surely has not worked: no connection, no quota, a refusal, an error of its own."""


class Usage(NamedTuple):
    """What a call took. `cost_usd` is what the server says; None: by the prices. `assumed`: nobody measured it."""

    tokens_in: int
    tokens_out: int
    cost_usd: float | None = None
    assumed: bool = False
    calls: int = 1
    tokens_cached: int = 0
    tokens_stored: int = 0


NOTHING = Usage(0, 0, cost_usd=0.0, calls=0)
"""The model was not reached."""


class Entry(Frozen):
    """One attempt at one provider. `cost_usd` None: not known. `assumed`: counted from above, nobody measured it."""

    at_s: float
    provider: str
    model: str
    outcome: Outcome
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    elapsed_s: float
    mission: str
    agent: str
    assumed: bool = False
    tokens_cached: int = 0


def most_tokens(request: ChatRequest) -> int:
    """The most tokens that a request can be to a model: no tokenizer makes more of a text than its UTF-8 has bytes."""
    told = request.told()
    size = MESSAGE_TOKENS * (len(told) + 1) + sum(_bytes(message.content) for message in told)
    size += sum(_bytes(call.model_dump_json()) for message in told for call in message.calls)
    if request.tools or request.answer is not None:
        size += TOOLS_TOKENS + sum(_bytes(tool.model_dump_json()) for tool in request.tools)
        size += len(json.dumps(request.answer))
    return size


def most_tokens_of(texts: Sequence[str]) -> int:
    """The most tokens that texts to embed can be."""
    return sum(_bytes(text) + MESSAGE_TOKENS for text in texts)


def usage_of(response: ChatResponse | Embeddings, most: Usage) -> Usage:
    """What the server says that it took; for each count that it does not give, that of `most`."""
    if response.from_cache:
        return Usage(0, 0, response.cost_usd)
    said = response if isinstance(response, ChatResponse) else ChatResponse(text="", tokens_in=response.tokens_in)
    tokens_in, tokens_out = said.tokens_in or most.tokens_in, said.tokens_out or most.tokens_out
    return Usage(
        tokens_in,
        tokens_out,
        response.cost_usd,
        assumed=(tokens_in, tokens_out) != (said.tokens_in, said.tokens_out),
        tokens_cached=said.tokens_cached,
        tokens_stored=said.tokens_stored,
    )


def written(response: ChatResponse) -> int:
    """The most tokens that what can be seen of an answer can be."""
    return _bytes(response.text) + sum(_bytes(call.model_dump_json()) for call in response.calls)


def outcome_of(error: BaseException) -> Outcome:
    """The word for what a call raised. `silent`: sent, and no whole answer came."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, ModelSilent) or (isinstance(error, ModelOutage) and _timed_out(error)):
        return "silent"
    kinds: tuple[tuple[type[BaseException], Outcome], ...] = (
        (ModelQuota, "quota"),
        (ModelOutage, "outage"),
        (ModelUnauthorized, "unauthorized"),
        (ModelRefused, "refused"),
    )
    return next((outcome for kind, outcome in kinds if isinstance(error, kind)), "failed")


def _timed_out(error: BaseException) -> bool:
    """Whether a time-out is what it came of: an adapter may raise a plain ModelOutage for that."""
    cause: BaseException | None = error
    for _ in range(16):
        if cause is None or isinstance(cause, TimeoutError):
            break
        cause = cause.__cause__ or cause.__context__
    return isinstance(cause, TimeoutError)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
