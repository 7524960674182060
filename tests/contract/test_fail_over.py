"""The router, the meter and three providers together: one that is dead, one that is busy, and a real local server."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator

import pytest

from chimera.core.clock import SystemClock
from chimera.core.errors import BudgetExceeded
from chimera.llm.anthropic_provider import AnthropicProvider
from chimera.llm.chat import ChatMessage, ChatModel, ChatRequest
from chimera.llm.local_provider import LocalLLMProvider
from chimera.llm.meter import Cap, Caps, Meter, Metered, charged_to
from chimera.llm.openai_provider import OpenAIProvider
from chimera.llm.prices import Prices
from chimera.llm.router import Route, Router
from tests.llama_server import LlamaServer
from tests.llm_stub import LlmStub, anthropic_error, plain

ASKED = ChatRequest(messages=(ChatMessage(role="user", content="hello"),), max_tokens=8)
BUSY = plain(anthropic_error("rate_limit_error", "too many"), 429)


@pytest.fixture(scope="module")
def llama() -> Iterator[LlamaServer]:
    with LlamaServer() as server:
        yield server


@pytest.fixture
def dead() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def routed(dead: str, busy: LlmStub, llama: LlamaServer, meter: Meter) -> Router:
    models: list[ChatModel] = [
        OpenAIProvider("openai:first", model="first", base_url=dead),
        AnthropicProvider("anthropic:second", model="second", base_url=busy.url, api_key=""),
        LocalLLMProvider("local:third", model=llama.model, base_url=f"{llama.url}/v1", wire="openai"),
    ]
    return Router([Route(Metered(model, meter)) for model in models], clock=SystemClock(), rng=random.Random(1))


async def test_a_dead_one_and_a_busy_one_are_passed_and_the_cap_stops_the_next_call(
    dead: str, llama: LlamaServer
) -> None:
    meter = Meter(Prices(), Caps(mission=Cap(calls=1)), SystemClock())
    with LlmStub(BUSY, BUSY) as busy:
        async with routed(dead, busy, llama, meter) as router:
            with charged_to(mission="m-1", agent="a-1"):
                async with asyncio.timeout(30):
                    response = await router.chat(ASKED)
                assert (response.provider, response.text.isascii()) == ("local:third", True)
                told = [(entry.provider, entry.outcome) for entry in meter.entries]
                assert told == [("openai", "outage"), ("anthropic", "outage"), ("local", "ok")]
                assert len(busy.asked) == 1
                total = meter.totals(mission="m-1")
                assert (total.calls, total.tokens) == (1, response.tokens_in + response.tokens_out)
                assert (total.usd, total.unpriced) == (0.0, 0), "a local model is known to cost nothing"
                with pytest.raises(BudgetExceeded, match="m-1"):
                    await router.chat(ASKED)
            assert len(busy.asked) == 1 and len(meter.entries) == 3, "what cannot be reserved is not begun"
            with charged_to(mission="m-2", agent="a-1"):
                assert (await router.chat(ASKED)).provider == "local:third"
