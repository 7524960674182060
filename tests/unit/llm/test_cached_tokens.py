"""Tokens that a provider had in its cache: counted as it counts them, and priced as such where that price is known."""

from __future__ import annotations

from typing import Any

import pytest

from chimera.core.clock import ManualClock
from chimera.llm.anthropic_provider import AnthropicProvider
from chimera.llm.chat import ChatModel
from chimera.llm.meter import Caps, Meter, Metered
from chimera.llm.openai_provider import OpenAIProvider
from chimera.llm.prices import Prices
from tests.llm_stub import LlmStub, anthropic_message, plain
from tests.unit.llm.metering import ASKED

CACHED: dict[str, dict[str, Any]] = {
    "chat": {"prompt_tokens": 1_000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 800}},
    "responses": {"input_tokens": 1_000, "output_tokens": 10, "input_tokens_details": {"cached_tokens": 800}},
    "anthropic": {"input_tokens": 100, "cache_read_input_tokens": 800, "cache_creation_input_tokens": 100},
}


@pytest.mark.parametrize(
    ("wire", "cached", "usd"),
    [
        ("chat", {"cached": 0.1}, 0.2 + 0.08 + 0.1),
        ("chat", {}, 1.0 + 0.1),
        ("responses", {"cached": 0.1}, 0.2 + 0.08 + 0.1),
        ("anthropic", {"cached": 0.1, "stored": 1.25}, 0.1 + 0.08 + 0.125 + 0.1),
        ("anthropic", {"cached": 0.1}, 0.1 + 0.08 + 0.1 + 0.1),
        ("anthropic", {}, 1.0 + 0.1),
    ],
)
async def test_what_a_provider_had_in_its_cache_is_priced_as_such_where_that_price_is_known(
    wire: str, cached: dict[str, float], usd: float
) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "chat": {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": CACHED["chat"]},
        "responses": {
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
            "usage": CACHED["responses"],
        },
        "anthropic": anthropic_message({"type": "text", "text": "hi"})
        | {"usage": {**CACHED["anthropic"], "output_tokens": 10}},
    }
    meter = Meter(
        Prices.of({"m": {"input": 1_000, "output": 10_000, **{name: 1_000 * share for name, share in cached.items()}}}),
        Caps(),
        ManualClock(),
    )
    with LlmStub(plain(bodies[wire])) as stub:
        model: ChatModel = AnthropicProvider("m", model="m", base_url=stub.url, api_key="")
        if wire != "anthropic":
            model = OpenAIProvider("m", model="m", base_url=stub.url, api="chat" if wire == "chat" else "responses")
        async with Metered(model, meter) as metered:
            response = await metered.chat(ASKED)
    assert (response.tokens_in, response.tokens_cached) == (1_000, 800)
    assert response.cost_usd == pytest.approx(usd) and meter.entries[0].tokens_cached == 800
