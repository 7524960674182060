"""Ollama's native interface as it is spoken to a stub: what is sent, what is made of answers and of refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from chimera.core.errors import InputError, ModelError, ModelOutage, ModelRefused, ModelTooLong
from chimera.core.types import Quote
from chimera.llm.chat import ChatChunk, ChatMessage, ChatRequest, ToolCall, ToolSpec
from chimera.llm.local_provider import BATCH, MAX_RESPONSE_BYTES, LocalLLMProvider
from tests.llm_stub import LlmStub, Scripted, ndjson, ollama_part, plain

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ASKED = ChatRequest(
    messages=(ChatMessage(role="system", content="be short"), ChatMessage(role="user", content="how many?")),
    max_tokens=77,
    temperature=0.5,
    seed=42,
)


@pytest.fixture
def stub() -> Iterator[LlmStub]:
    with LlmStub() as stub:
        yield stub


@pytest.fixture
async def model(stub: LlmStub) -> AsyncIterator[LocalLLMProvider]:
    async with LocalLLMProvider("mine", model="qwen", base_url=stub.url, num_ctx=4_096, timeout_s=20.0) as model:
        yield model


async def pieces(model: LocalLLMProvider, request: ChatRequest = ASKED) -> list[ChatChunk]:
    return [chunk async for chunk in model.stream(request)]


async def refused(model: LocalLLMProvider, *, stream: bool) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await (pieces(model) if stream else model.chat(ASKED))
    return caught.value


async def test_the_window_is_always_set_and_what_comes_back_is_all_read(stub: LlmStub, model: LocalLLMProvider) -> None:
    stub.script = [plain(ollama_part("forty-two", done=True))]
    response = await model.chat(ASKED)
    assert stub.asked[0].path == "/api/chat"
    assert stub.asked[0].body == {
        "model": "qwen",
        "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "how many?"}],
        "stream": False,
        "truncate": False,
        "shift": False,
        "options": {"num_ctx": 4_096, "num_predict": 77, "temperature": 0.5, "seed": 42},
    }
    assert (response.text, response.tokens_in, response.tokens_out, response.cost_usd) == ("forty-two", 11, 7, 0.0)
    assert (response.model, response.provider, response.finish) == ("qwen-served", "mine", "stop")


async def test_a_stream(stub: LlmStub, model: LocalLLMProvider) -> None:
    last = ollama_part(done=True, done_reason="length")
    stub.script = [ndjson([ollama_part("for"), ollama_part("ty"), last])]
    *texts, end = await pieces(model)
    assert [chunk.text for chunk in texts] == ["for", "ty"]
    assert end.response is not None and (end.response.text, end.response.finish) == ("forty", "length")
    assert (end.response.tokens_in, end.response.tokens_out, end.response.cost_usd) == (11, 7, 0.0)
    assert stub.asked[0].body["stream"] is True


async def test_lines_may_be_cut_anywhere(stub: LlmStub, model: LocalLLMProvider) -> None:
    data = b"".join(ndjson([ollama_part("für"), ollama_part("ty"), ollama_part(done=True)]).pieces)
    for size in (1, 7, len(data)):
        parts = tuple(data[at : at + size] for at in range(0, len(data), size))
        stub.script = [Scripted(pieces=parts)]
        assert "".join(chunk.text for chunk in await pieces(model)) == "fürty"


async def test_the_schema_of_an_answer_and_tools_are_sent(stub: LlmStub, model: LocalLLMProvider) -> None:
    stub.script = [plain(ollama_part('{"n": 42}', done=True)), plain(ollama_part("no", done=True))]
    assert (await model.chat(ASKED.model_copy(update={"answer": SCHEMA}))).text == '{"n": 42}'
    assert stub.asked[0].body["format"] == SCHEMA
    tools = (ToolSpec(name="look", description="Looks.", parameters=SCHEMA),)
    await model.chat(ASKED.model_copy(update={"tools": tools}))
    function = {"name": "look", "description": "Looks.", "parameters": SCHEMA}
    assert stub.asked[1].body["tools"] == [{"type": "function", "function": function}]
    assert "format" not in stub.asked[1].body
    with pytest.raises(ModelRefused, match="not both"):
        await model.chat(ASKED.model_copy(update={"tools": tools, "answer": SCHEMA}))


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_get_ids_and_their_answers_go_back_by_name(
    stub: LlmStub, model: LocalLLMProvider, stream: bool
) -> None:
    asked = [{"function": {"name": "look", "arguments": {"at": n}}} for n in (1, 2)]
    parts = [ollama_part(message={"tool_calls": [call]}) for call in asked] + [ollama_part(done=True)]
    whole = ollama_part(done=True, message={"tool_calls": asked})
    stub.script = [ndjson(parts) if stream else plain(whole), plain(whole)]
    got = (await pieces(model))[-1].response if stream else await model.chat(ASKED)
    assert got is not None
    calls = tuple(ToolCall(id=f"call_{n}", name="look", arguments={"at": n + 1}) for n in (0, 1))
    assert (got.calls, got.finish) == (calls, "calls")
    said = [ChatMessage(role="assistant", content="", calls=calls)]
    said += [ChatMessage(role="tool", content=id, call_id=id) for id in ("call_1", "call_0")]
    again = await model.chat(ASKED.model_copy(update={"messages": (*ASKED.messages, *said)}))
    sent = stub.asked[1].body["messages"][2:]
    assert [call["function"] for call in sent[0]["tool_calls"]] == [call["function"] for call in asked]
    assert [(one["role"], one["tool_name"], one["content"]) for one in sent[1:]] == [
        ("tool", "look", "call_1"),
        ("tool", "look", "call_0"),
    ]
    assert [call.id for call in again.calls] == ["call_2", "call_3"]  # none of an earlier call


async def test_documents_reach_it_with_their_citations(stub: LlmStub, model: LocalLLMProvider) -> None:
    stub.script = [plain(ollama_part("ok", done=True))]
    await model.chat(ASKED.model_copy(update={"documents": (Quote(text="Ten features.", file="d.rst", line=7),)}))
    assert "Ten features. [d.rst:7]" in stub.asked[0].body["messages"][1]["content"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("taken", "fits"), [(4_095, True), (4_096, False), (9_999, False)])
async def test_a_prompt_that_filled_the_window_is_refused(
    stub: LlmStub, model: LocalLLMProvider, stream: bool, taken: int, fits: bool
) -> None:
    part = ollama_part("yes", done=True, prompt_eval_count=taken)
    stub.script = [ndjson([part]) if stream else plain(part)]
    if fits:
        assert await pieces(model) if stream else await model.chat(ASKED)
        return
    error = await refused(model, stream=stream)
    assert isinstance(error, ModelRefused) and "4096 tokens" in str(error) and "num_ctx" in str(error)


LLAMA_SAYS = {"error": {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 2_622, "n_ctx": 512}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "body", "error", "said"),
    [
        (404, {"error": "model 'qwen' not found"}, ModelRefused, "`ollama pull qwen`"),
        (400, {"error": "qwen does not support tools"}, ModelRefused, "does not support tools"),
        (400, {"error": "the input length exceeds the context length"}, ModelRefused, "longer than the model's window"),
        (500, {"error": "the input length exceeds the context length"}, ModelRefused, "longer than the model's window"),
        (400, {"error": json.dumps(LLAMA_SAYS)}, ModelRefused, "longer than the model's window"),
        (503, {"error": "server busy, please try again"}, ModelOutage, "busy"),
        (500, {"error": "llama runner process has terminated"}, ModelOutage, "terminated"),
        (429, {"error": "slow down"}, ModelOutage, "slow down"),
        (302, {"error": "elsewhere"}, ModelRefused, "302"),
    ],
)
async def test_what_refusals_mean(
    stub: LlmStub,
    model: LocalLLMProvider,
    stream: bool,
    status: int,
    body: dict[str, Any],
    error: type[ModelError],
    said: str,
) -> None:
    stub.script = [plain(body, status, retry_after="3", location=f"{stub.url}/elsewhere")]
    raised = await refused(model, stream=stream)
    assert type(raised) is error and said in str(raised)
    assert len(stub.asked) == 1
    if isinstance(raised, ModelOutage):
        assert raised.retry_after_s == 3.0


async def test_a_stream_that_breaks_off_or_ends_with_an_error_is_an_outage(
    stub: LlmStub, model: LocalLLMProvider
) -> None:
    part = ollama_part("for")
    stub.script = [ndjson([part], breaks=True), ndjson([part]), ndjson([part, {"error": "out of memory"}])]
    for said in ("broke off", "broke off", "out of memory"):
        stream = model.stream(ASKED)
        assert (await anext(stream)).text == "for"
        with pytest.raises(ModelOutage, match=said):
            await anext(stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        b"null",
        b"[]",
        b"{}",
        b'{"message": null, "done": true}',
        b'{"message": {"content": 7}, "done": true}',
        b'{"message": {"content": "", "tool_calls": [{}]}, "done": true}',
        b'{"message": {"content": "", "tool_calls": [{"function": {"name": "a b"}}]}, "done": true}',
        b'{"message": {"content": "half"}}',
    ],
)
async def test_garbage_is_an_outage(stub: LlmStub, model: LocalLLMProvider, stream: bool, body: bytes) -> None:
    stub.script = [Scripted(body=body)]
    assert isinstance(await refused(model, stream=stream), ModelOutage)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_endless_answer_is_not_read(stub: LlmStub, stream: bool) -> None:
    stub.script = [Scripted(pieces=(b"x" * 1_000_000,) * (MAX_RESPONSE_BYTES // 1_000_000 + 1))]
    async with LocalLLMProvider("mine", model="qwen", base_url=stub.url) as model:
        assert isinstance(await refused(model, stream=stream), ModelTooLong)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_says_nothing_is_left_in_time(stub: LlmStub, stream: bool) -> None:
    never = threading.Event()
    stub.script = [Scripted(waits=never)]
    async with LocalLLMProvider("slow", model="qwen", base_url=stub.url, timeout_s=0.3) as model:
        error = await refused(model, stream=stream)
    never.set()
    assert isinstance(error, ModelOutage) and "slow did not answer within 0.3 s" in str(error)


async def test_a_stream_that_drips_ends_in_time(stub: LlmStub) -> None:
    """Each piece comes in time; the whole never would."""
    stub.script = [Scripted(pieces=(b" ",) * 10_000, every_s=0.02)]
    async with LocalLLMProvider("drip", model="qwen", base_url=stub.url, timeout_s=0.1) as model:
        assert isinstance(await refused(model, stream=True), ModelOutage)


async def test_embeddings_come_in_batches_in_order(stub: LlmStub, model: LocalLLMProvider) -> None:
    texts = [str(number) for number in range(BATCH + 2)]
    stub.script = [
        plain({"model": "nomic", "embeddings": [[float(text), 0.5] for text in batch], "prompt_eval_count": len(batch)})
        for batch in (texts[:BATCH], texts[BATCH:])
    ]
    embeddings = await model.embed(texts)
    assert embeddings.vectors == tuple((float(text), 0.5) for text in texts)
    assert (embeddings.tokens_in, embeddings.cost_usd, embeddings.model) == (BATCH + 2, 0.0, "nomic")
    assert [one.path for one in stub.asked] == ["/api/embed"] * 2
    assert stub.asked[0].body["truncate"] is False and stub.asked[0].body["options"] == {"num_ctx": 4_096}
    with pytest.raises(ModelRefused, match="from 1 to"):
        await model.embed([])
    with pytest.raises(ModelRefused, match="from 1 to"):
        await model.embed(["x"] * 2_049)


@pytest.mark.parametrize("vectors", [None, [], [[1.0], [2.0]], [["x"]], [7], [[float("nan")]]])
async def test_vectors_that_are_none_are_an_outage(stub: LlmStub, model: LocalLLMProvider, vectors: Any) -> None:
    stub.script = [plain({"embeddings": vectors})]
    with pytest.raises(ModelOutage):
        await model.embed(["a"])


@pytest.mark.parametrize("num_ctx", [0, -1, 10**9])
def test_a_window_that_is_none_is_refused(num_ctx: int) -> None:
    with pytest.raises(InputError, match="num_ctx"):
        LocalLLMProvider("mine", model="qwen", num_ctx=num_ctx)
