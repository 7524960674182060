"""What every model behind a server keeps, against a real one: llama.cpp's, which speaks OpenAI's and Anthropic's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from chimera.core.errors import ModelOutage
from chimera.llm.anthropic_provider import AnthropicProvider
from chimera.llm.chat import ChatMessage, ChatModel, ChatRequest, ChatResponse
from chimera.llm.local_provider import LocalLLMProvider
from chimera.llm.openai_provider import OpenAIProvider
from tests.llama_server import WINDOW, LlamaServer

Open = Callable[[LlamaServer], ChatModel]

LONG = WINDOW - 200
"""Tokens, and so characters, that take the server seconds to write."""

OPENERS: dict[str, Open] = {
    "openai": lambda s: OpenAIProvider("openai", model=s.model, base_url=f"{s.url}/v1", timeout_s=60.0),
    "anthropic": lambda s: AnthropicProvider("anthropic", model=s.model, base_url=s.url, api_key="", timeout_s=60.0),
    "local": lambda s: LocalLLMProvider("local", model=s.model, base_url=f"{s.url}/v1", wire="openai", timeout_s=60.0),
}


@pytest.fixture(scope="module")
def server() -> Iterator[LlamaServer]:
    with LlamaServer() as server:
        yield server


@pytest.fixture(params=sorted(OPENERS))
def open_one(request: pytest.FixtureRequest) -> Open:
    return OPENERS[request.param]


@pytest.fixture
async def model(open_one: Open, server: LlamaServer) -> AsyncIterator[ChatModel]:
    async with open_one(server) as model:
        yield model


def says(text: str = "hello", *, system: str = "", max_tokens: int = 8) -> ChatRequest:
    first = (ChatMessage(role="system", content=system),) if system else ()
    return ChatRequest(messages=(*first, ChatMessage(role="user", content=text)), max_tokens=max_tokens, seed=1)


async def test_an_answer_says_what_it_took_and_where_it_came_from(model: ChatModel, server: LlamaServer) -> None:
    response = await model.chat(says("hello"))
    prompt = "<s>user: hello\nassistant: "
    assert response.text and response.text.isascii()
    assert response.tokens_in == len(prompt) - len("<s>") + 1  # a token for each character, and one for the beginning
    assert 1 <= response.tokens_out <= 8
    assert (response.provider, response.model) == (model.name, server.model)
    assert response.cost_usd == (0.0 if model.name == "local" else None)


async def test_max_tokens_cuts_off_and_says_so(model: ChatModel) -> None:
    for limit in (1, 8, 32):
        response = await model.chat(says(max_tokens=limit))
        assert (response.tokens_out, response.finish, len(response.text)) == (limit, "length", limit)


async def test_the_pieces_of_a_stream_make_the_whole(model: ChatModel) -> None:
    chunks = [chunk async for chunk in model.stream(says(max_tokens=32))]
    assert [chunk.response is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    response = cast("ChatResponse", chunks[-1].response)
    assert "".join(chunk.text for chunk in chunks) == response.text and len(response.text) == 32
    assert sum(1 for chunk in chunks if chunk.text) > 16  # it came in pieces, not at once
    assert (response.tokens_out, response.finish, response.provider) == (32, "length", model.name)
    assert response.tokens_in == (await model.chat(says(max_tokens=1))).tokens_in


async def test_what_the_system_says_reaches_the_model(model: ChatModel) -> None:
    without, with_it = await model.chat(says()), await model.chat(says(system="be brief"))
    assert with_it.tokens_in == without.tokens_in + len("system: be brief\n")


async def busy(server: LlamaServer) -> int:
    """How many answers it is writing."""
    import httpx2

    async with httpx2.AsyncClient(verify=False) as http:  # to read certificates takes longer than many an answer
        slots: list[dict[str, Any]] = (await http.get(f"{server.url}/slots")).json()
    return sum(1 for slot in slots if slot["is_processing"])


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(3_000):
        if await happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def until_busy(server: LlamaServer, number: int) -> None:
    async def so_busy() -> bool:
        return await busy(server) == number

    await until(so_busy)


def connections(server: LlamaServer) -> int:
    """How many this machine's processes hold open to the server (proc(5): remote address, state 01)."""
    port = int(server.url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[2].endswith(f":{port:04X}") and row[3] == "01")


async def test_cancelling_a_call_lets_go_of_its_connection(model: ChatModel, server: LlamaServer) -> None:
    """llama.cpp notices only when it has written; an idle connection would be kept for the next call."""
    await model.chat(says())

    async def held(number: int) -> bool:
        return connections(server) == number

    await until(lambda: held(1))
    call = asyncio.create_task(model.chat(says(max_tokens=1_500)))  # so that it is seen while it is busy
    await until_busy(server, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: held(0))
    await until_busy(server, 0)
    assert (await model.chat(says())).text


async def test_closing_a_stream_stops_the_server(model: ChatModel, server: LlamaServer) -> None:
    """It goes on with the other answer, which began before and would have ended before."""
    written: list[str] = []

    async def read() -> None:
        async for chunk in model.stream(says(max_tokens=LONG)):
            written.append(chunk.text)  # noqa: PERF401 - somebody looks at it meanwhile

    other = asyncio.create_task(read())
    await until_busy(server, 1)
    async with aclosing(cast("Any", model.stream(says(max_tokens=LONG)))) as chunks:
        assert (await anext(chunks)).response is None
        await until_busy(server, 2)
    await until_busy(server, 1)
    assert len("".join(written)) < LONG - 500
    other.cancel()
    await until_busy(server, 0)
    assert (await model.chat(says())).text


async def test_many_calls_at_once_share_a_pool_and_keep_apart(model: ChatModel) -> None:
    texts = ["x" * length for length in range(1, 51)]
    responses = await asyncio.gather(*[model.chat(says(text, max_tokens=4)) for text in texts])
    base = responses[0].tokens_in - 1
    assert [response.tokens_in for response in responses] == [base + len(text) for text in texts]
    assert all(response.tokens_out == 4 for response in responses)


async def test_a_server_that_is_killed_is_an_outage(open_one: Open) -> None:
    """While it writes, and when it is gone."""
    with LlamaServer() as server:
        async with open_one(server) as model:
            chunks = model.stream(says(max_tokens=LONG))
            assert (await anext(chunks)).text
            call = asyncio.create_task(model.chat(says(max_tokens=LONG)))
            await until_busy(server, 2)
            server.kill()
            with pytest.raises(ModelOutage):
                await call
            with pytest.raises(ModelOutage):
                [chunk async for chunk in chunks]
            with pytest.raises(ModelOutage, match="no connection"):
                await model.chat(says())
