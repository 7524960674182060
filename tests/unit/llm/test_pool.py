"""Agents of one event loop share a model and its connections; other loops have their own; each is closed once."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from pydantic import JsonValue

from chimera.core.errors import InputError
from chimera.core.types import Quote, Task
from chimera.llm import pool
from chimera.llm.chat import ChatChunk, ChatMessage, ChatModel, ChatRequest, ChatResponse, Embeddings
from chimera.llm.openai_provider import OpenAIProvider
from chimera.llm.pool import close_shared, shared_model
from chimera.swarm import brief
from chimera.swarm.policy import Context
from chimera.swarm.roles import compose
from tests.llm_server import LlmServer

ASKED = ChatRequest(messages=(ChatMessage(role="user", content="hello"),))


class Bound(ChatModel):
    """Works in the loop that made it only, as a connection does."""

    writes = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = asyncio.get_running_loop()
        self.closed_in: list[asyncio.AbstractEventLoop] = []

    async def chat(self, request: ChatRequest) -> ChatResponse:
        assert asyncio.get_running_loop() is self.loop and not self.closed_in
        await asyncio.sleep(0)
        return ChatResponse(text=self.name)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        for text in "ab":
            yield ChatChunk(text=text)

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        return Embeddings(vectors=((1.0,),))

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed_in.append(asyncio.get_running_loop())


class Opened:
    """Opens models, and remembers them."""

    def __init__(self) -> None:
        self.models: list[Bound] = []

    def __call__(self, name: str) -> ChatModel:
        self.models.append(Bound(name))
        return self.models[-1]


async def test_a_thousand_agents_share_one_model_a_name() -> None:
    opened = Opened()

    async def agent(number: int) -> str:
        async with shared_model(f"m{number % 2}", open=opened) as model:
            return (await model.chat(ASKED)).text

    said = await asyncio.gather(*(agent(number) for number in range(1_000)))
    assert said == ["m0", "m1"] * 500
    assert [model.name for model in opened.models] == ["m0", "m1"]
    assert not any(model.closed_in for model in opened.models)
    await close_shared()
    assert [len(model.closed_in) for model in opened.models] == [1, 1]


async def test_all_of_the_port_is_handed_on() -> None:
    opened = Opened()
    model = shared_model("m", open=opened)
    assert (model.name, model.writes) == ("m", True)
    assert [chunk.text async for chunk in model.stream(ASKED)] == ["a", "b"]
    assert (await model.embed(["x"])).vectors == ((1.0,),)
    await close_shared()


async def test_after_it_was_closed_the_next_call_opens_it_again() -> None:
    opened = Opened()
    model = shared_model("m", open=opened)
    await asyncio.gather(close_shared(), close_shared())
    await model.chat(ASKED)
    assert [len(model.closed_in) for model in opened.models] == [1, 0]
    await close_shared()
    await close_shared()
    assert [len(model.closed_in) for model in opened.models] == [1, 1]


def test_it_is_closed_with_its_loop_in_its_loop() -> None:
    opened = Opened()

    async def main() -> None:
        await shared_model("m", open=opened).chat(ASKED)

    for _ in range(2):
        asyncio.run(main())
    assert len(opened.models) == 2 and opened.models[0].loop is not opened.models[1].loop
    assert all(model.closed_in == [model.loop] for model in opened.models)
    assert not any(model.loop in pool._by_loop for model in opened.models)


def test_one_that_cannot_be_closed_keeps_none_open() -> None:
    opened = Opened()

    async def broken() -> None:
        raise RuntimeError("broken")

    async def main() -> None:
        for name in "abc":
            shared_model(name, open=opened)
        opened.models[1].close = broken  # type: ignore[method-assign]
        await close_shared()

    asyncio.run(main())
    assert [len(model.closed_in) for model in opened.models] == [1, 0, 1]


def test_a_loop_that_ends_without_a_word_is_forgotten() -> None:
    opened = Opened()

    async def main() -> None:
        shared_model("m", open=opened)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    assert loop in pool._by_loop
    asyncio.run(main())
    gc.collect()
    assert loop not in pool._by_loop and len(opened.models) == 2


def test_threads_have_loops_and_models_of_their_own() -> None:
    opened, together = Opened(), threading.Barrier(4)
    failed: list[BaseException] = []

    async def agents() -> None:
        together.wait(timeout=30.0)
        for _ in range(20):
            await asyncio.gather(*(shared_model("m", open=opened).chat(ASKED) for _ in range(5)))

    def work() -> None:
        try:
            for _ in range(3):
                asyncio.run(agents())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(opened.models) == 12 == len({id(model.loop) for model in opened.models})
    assert all(model.closed_in == [model.loop] for model in opened.models)


async def test_one_handle_serves_any_loop() -> None:
    opened = Opened()
    model = shared_model("m", open=opened)
    await asyncio.to_thread(asyncio.run, model.chat(ASKED))
    await model.chat(ASKED)
    assert [len(model.closed_in) for model in opened.models] == [0, 1]
    await close_shared()


async def test_names_are_bounded_and_a_wrong_one_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_MODELS", 2)
    opened = Opened()
    for name in ("a", "b", "a"):
        shared_model(name, open=opened)
    with pytest.raises(InputError, match="close_shared"):
        shared_model("c", open=opened)
    await close_shared()
    with pytest.raises(InputError, match="nonsense"):
        shared_model("nonsense")


def test_outside_of_a_loop_there_is_nothing_to_share() -> None:
    with pytest.raises(RuntimeError):
        shared_model("offline")


async def test_one_connection_serves_many_calls_of_a_real_server() -> None:
    with LlmServer() as server:

        def opens(name: str) -> ChatModel:
            return OpenAIProvider(name, model="m", base_url=server.url)

        for _ in range(5):
            async with shared_model("m", open=opens) as model:
                assert (await model.chat(ASKED)).text == "you said: hello"
        assert len(server.requests) == 5 and len(set(server.peers)) == 1
        await close_shared()


async def test_composers_of_a_swarm_share_a_connection() -> None:
    """They are agents: a thousand of them in a cell must not each open their own."""
    quote = Quote(text="Iris was collected by Anderson.", file="iris.rst", line=1)
    ballot = brief.Ballot(voter="v", finds=(brief.Find(quote=quote, confidence=1.0),))
    evidence = brief.Evidence(parts=(brief.Part(question="Who collected Iris?", ballots=(ballot,)),))
    judged = SimpleNamespace(decision=SimpleNamespace(value=evidence.model_dump(mode="json")))
    context = cast(Context, SimpleNamespace(upstream={"judge": judged}))
    with LlmServer() as server:
        inputs: dict[str, JsonValue] = {
            "question": "Who collected Iris?",
            "consensus": "majority",
            "model": f"compatible:m@{server.url}",
        }
        for _ in range(3):
            reply = await compose(Task(goal="compose", role="composer", inputs=inputs), context)
            assert brief.Brief.model_validate(reply.value).answer.startswith("you said:")
        assert len(server.requests) == 3 and len(set(server.peers)) == 1
        await close_shared()
