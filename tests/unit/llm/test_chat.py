"""The bounds of a chat request."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from chimera.llm.chat import MAX_MESSAGE_CHARS, MAX_MESSAGES, MAX_TOKENS, ChatMessage, ChatRequest, ChatResponse

HELLO = ChatMessage(role="user", content="hello")


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": ()},
        {"messages": (HELLO,) * (MAX_MESSAGES + 1)},
        {"max_tokens": 0},
        {"max_tokens": MAX_TOKENS + 1},
        {"x": 1},
    ],
)
def test_a_request_is_bounded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChatRequest(**{"messages": (HELLO,), **wrong})


def test_a_message_is_bounded() -> None:
    with pytest.raises(ValidationError):
        ChatMessage(role="user", content="x" * (MAX_MESSAGE_CHARS + 1))


@pytest.mark.parametrize("cost", [-0.01, float("nan"), float("inf")])
def test_a_cost_is_a_sum_that_can_be_added_up(cost: float) -> None:
    with pytest.raises(ValidationError):
        ChatResponse(text="", cost_usd=cost)
