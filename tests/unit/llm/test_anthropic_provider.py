"""Anthropic's interface as it is spoken to a stub: what is sent, what is made of answers and of refusals."""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from chimera.core.errors import (
    InputError,
    ModelError,
    ModelOutage,
    ModelQuota,
    ModelRefused,
    ModelTooLong,
    ModelUnauthorized,
)
from chimera.core.types import Quote
from chimera.llm.anthropic_provider import AnthropicProvider
from chimera.llm.anthropic_wire import ANSWER_TOOL
from chimera.llm.chat import ChatChunk, ChatMessage, ChatRequest, ToolCall, ToolSpec
from chimera.llm.remote import MAX_RESPONSE_BYTES
from tests.llm_stub import LlmStub, Scripted, anthropic_error, anthropic_message, events, plain

KEY = "sk-ant-very-secret-0123456789"
TEXT = {"type": "text", "text": "forty-two"}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ASKED = ChatRequest(messages=(ChatMessage(role="user", content="how many?"),), max_tokens=77)


@pytest.fixture
def stub() -> Iterator[LlmStub]:
    with LlmStub() as stub:
        yield stub


@pytest.fixture
async def model(stub: LlmStub) -> AsyncIterator[AnthropicProvider]:
    async with AnthropicProvider("claude", model="claude-x", base_url=stub.url, api_key=KEY, timeout_s=20.0) as model:
        yield model


async def refused(model: AnthropicProvider, *, stream: bool = False) -> ModelError:
    """What it raises. In no line of a traceback, which a log may hold, stands the key."""
    with pytest.raises(ModelError) as caught:
        await (pieces(model, ASKED) if stream else model.chat(ASKED))
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return caught.value


async def pieces(model: AnthropicProvider, request: ChatRequest) -> list[ChatChunk]:
    return [chunk async for chunk in model.stream(request)]


async def test_a_conversation_is_sent_as_the_interface_wants_it(stub: LlmStub, model: AnthropicProvider) -> None:
    """The system apart, turns of one role merged, no empty texts, and neither temperature nor seed, which are 400."""
    stub.script = [plain(anthropic_message(TEXT))]
    call = ToolCall(id="t1", name="look", arguments={"at": 3})
    messages = (
        ChatMessage(role="system", content="be short"),
        ChatMessage(role="user", content="look"),
        ChatMessage(role="user", content="now"),
        ChatMessage(role="system", content="be kind"),
        ChatMessage(role="assistant", content="", calls=(call, call.model_copy(update={"id": "t2"}))),
        ChatMessage(role="tool", content="red", call_id="t1"),
        ChatMessage(role="tool", content="blue", call_id="t2"),
        ChatMessage(role="user", content="and?"),
    )
    tool = ToolSpec(name="look", description="Looks.", parameters=SCHEMA)
    quote = Quote(text="Ten features.", file="d.rst", line=7)
    request = ChatRequest(
        messages=messages, tools=(tool,), documents=(quote,), max_tokens=128_000, seed=5, temperature=0.7
    )
    await model.chat(request)
    body = stub.asked[0].body
    last = body["messages"][2]["content"].pop()
    assert "Ten features. [d.rst:7]" in last["text"] and last["text"].endswith("and?")
    used = [{"type": "tool_use", "id": id, "name": "look", "input": {"at": 3}} for id in ("t1", "t2")]
    results = [
        {"type": "tool_result", "tool_use_id": id, "content": said} for id, said in (("t1", "red"), ("t2", "blue"))
    ]
    assert body == {
        "model": "claude-x",
        "max_tokens": 128_000,
        "system": "be short\n\nbe kind",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "text", "text": "now"}]},
            {"role": "assistant", "content": used},
            {"role": "user", "content": results},
        ],
        "tools": [{"name": "look", "description": "Looks.", "input_schema": SCHEMA}],
    }
    assert stub.asked[0].path == "/v1/messages"
    assert stub.asked[0].headers["authorization"] == f"Bearer {KEY}"


async def test_an_answer_is_read_with_all_that_it_took(stub: LlmStub, model: AnthropicProvider) -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    message = anthropic_message(thought, TEXT, TEXT, cache_creation_input_tokens=100, cache_read_input_tokens=1_000)
    stub.script = [plain(message, request_id="req_1")]
    response = await model.chat(ASKED)
    assert response.text == "forty-twoforty-two"
    assert (response.tokens_in, response.tokens_out, response.cost_usd) == (1_111, 7, None)
    assert (response.model, response.provider, response.request_id) == ("claude-served", "claude", "req_1")


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refusal"),
        ("something_new", "stop"),
    ],
)
async def test_why_it_ended(stub: LlmStub, model: AnthropicProvider, stop: str, finish: str) -> None:
    stub.script = [plain(anthropic_message(TEXT, stop=stop))]
    assert (await model.chat(ASKED)).finish == finish


async def test_a_call_of_a_tool(stub: LlmStub, model: AnthropicProvider) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": [1, None]}}
    stub.script = [plain(anthropic_message(TEXT, use, stop="tool_use"))]
    response = await model.chat(ASKED)
    assert response.calls == (ToolCall(id="t1", name="look", arguments={"at": [1, None]}),)
    assert (response.text, response.finish) == ("forty-two", "calls")


async def test_an_answer_with_a_schema_is_had_by_a_forced_tool(stub: LlmStub, model: AnthropicProvider) -> None:
    use = {"type": "tool_use", "id": "t1", "name": ANSWER_TOOL, "input": {"n": 42}}
    stub.script = [plain(anthropic_message({"type": "text", "text": "Here:"}, use, stop="tool_use")) for _ in range(2)]
    request = ASKED.model_copy(update={"answer": SCHEMA})
    response = await model.chat(request)
    assert json.loads(response.text) == {"n": 42} and (response.calls, response.finish) == ((), "stop")
    body = stub.asked[0].body
    assert body["tools"][0]["input_schema"] == SCHEMA
    assert body["tool_choice"] == {"type": "tool", "name": ANSWER_TOOL, "disable_parallel_tool_use": True}
    await model.chat(request.model_copy(update={"tools": (ToolSpec(name="look"),)}))
    assert stub.asked[1].body["tool_choice"]["type"] == "any"  # it may look first
    with pytest.raises(ModelRefused, match=ANSWER_TOOL):
        await model.chat(request.model_copy(update={"tools": (ToolSpec(name=ANSWER_TOOL),)}))


def streamed(
    *deltas: tuple[int, dict[str, Any]], blocks: tuple[dict[str, Any], ...], stop: str
) -> list[dict[str, Any]]:
    begun = anthropic_message(cache_read_input_tokens=4)
    return [
        {"type": "message_start", "message": {**begun, "stop_reason": None, "content": []}},
        *[{"type": "content_block_start", "index": n, "content_block": block} for n, block in enumerate(blocks)],
        {"type": "ping"},
        *[{"type": "content_block_delta", "index": n, "delta": delta} for n, delta in deltas],
        {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]


def told(text: str) -> dict[str, Any]:
    return {"type": "text_delta", "text": text}


def given(text: str) -> dict[str, Any]:
    return {"type": "input_json_delta", "partial_json": text}


NOTHING = {"type": "text", "text": ""}
LOOK = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}


async def test_a_stream_of_text_and_a_call(stub: LlmStub, model: AnthropicProvider) -> None:
    deltas = ((0, told("for")), (0, told("ty")), (1, given('{"at"')), (1, given(": 3}")))
    stub.script = [events(streamed(*deltas, blocks=(NOTHING, LOOK), stop="tool_use"))]
    *texts, last = await pieces(model, ASKED)
    assert [chunk.text for chunk in texts] == ["for", "ty"] and last.text == ""
    assert last.response is not None
    assert last.response.calls == (ToolCall(id="t1", name="look", arguments={"at": 3}),)
    assert (last.response.text, last.response.finish) == ("forty", "calls")
    assert (last.response.tokens_in, last.response.tokens_out) == (15, 9)
    assert stub.asked[0].body["stream"] is True


async def test_a_streamed_answer_with_a_schema_is_its_json_alone(stub: LlmStub, model: AnthropicProvider) -> None:
    tool = {**LOOK, "name": ANSWER_TOOL}
    deltas = ((0, told("Here:")), (1, given('{"n": ')), (1, given("42}")))
    stub.script = [
        events(streamed(*deltas, blocks=(NOTHING, tool), stop="tool_use")),
        events(streamed((0, told("no tool")), blocks=(NOTHING,), stop="end_turn")),
    ]
    request = ASKED.model_copy(update={"answer": SCHEMA})
    for text, finish in (('{"n": 42}', "stop"), ("no tool", "stop")):
        chunks = await pieces(model, request)
        response = chunks[-1].response
        assert "".join(chunk.text for chunk in chunks) == text
        assert response is not None and (response.text, response.finish, response.calls) == (text, finish, ())


async def test_a_call_that_was_cut_off_is_no_call(stub: LlmStub, model: AnthropicProvider) -> None:
    events_of = {
        stop: streamed((0, given('{"at": ')), blocks=(LOOK,), stop=stop) for stop in ("max_tokens", "tool_use")
    }
    stub.script = [events(events_of["max_tokens"]), events(events_of["tool_use"])]
    response = (await pieces(model, ASKED))[-1].response
    assert response is not None and (response.calls, response.finish) == ((), "length")
    assert isinstance(await refused(model, stream=True), ModelOutage)


@pytest.mark.parametrize("breaks", [True, False])
async def test_a_stream_that_breaks_off_is_an_outage(stub: LlmStub, model: AnthropicProvider, breaks: bool) -> None:
    whole = streamed((0, told("for")), blocks=(NOTHING,), stop="end_turn")
    stub.script = [events(whole[:4], breaks=breaks)]
    stream = model.stream(ASKED)
    assert (await anext(stream)).text == "for"
    with pytest.raises(ModelOutage, match="broke off"):
        await anext(stream)


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("overloaded_error", 529, ModelOutage),
        ("rate_limit_error", 429, ModelOutage),
        ("api_error", 500, ModelOutage),
        ("timeout_error", 504, ModelOutage),
        ("billing_error", 402, ModelQuota),
        ("authentication_error", 401, ModelUnauthorized),
        ("permission_error", 403, ModelUnauthorized),
        ("invalid_request_error", 400, ModelRefused),
        ("not_found_error", 404, ModelRefused),
        ("request_too_large", 413, ModelRefused),
    ],
)
async def test_what_refusals_mean_whole_streamed_and_in_the_middle(
    stub: LlmStub, model: AnthropicProvider, kind: str, status: int, error: type[ModelError]
) -> None:
    body = anthropic_error(kind, f"no: {KEY}")
    middle = events([{"type": "ping"}, body])
    stub.script = [plain(body, status, retry_after="3.5"), plain(body, status, retry_after="3.5"), middle]
    for stream, said in ((False, status), (True, status), (True, "")):
        if kind == "request_too_large" and not said:
            continue  # it is never one in the middle
        raised = await refused(model, stream=stream)
        assert type(raised) is error and f"the server answered {said}" in str(raised)
        if isinstance(raised, ModelOutage) and said:
            assert raised.retry_after_s == 3.5
    assert len(stub.asked) in (2, 3)  # each was asked once


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, anthropic_error("invalid_request_error", "Your credit balance is too low to access the Anthropic API.")),
        (403, anthropic_error("permission_error", "no", error_code="enforced_spend_limit_reached")),
        (429, anthropic_error("rate_limit_error", "no", error_code="contract_spend_limit_reached")),
    ],
)
async def test_no_money_is_told_from_a_bad_request(
    stub: LlmStub, model: AnthropicProvider, status: int, body: dict[str, Any]
) -> None:
    stub.script = [plain(body, status)]
    assert type(await refused(model)) is ModelQuota


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        b"null",
        b"[]",
        b"{}",
        b'{"content": null, "stop_reason": "end_turn"}',
        b'{"content": [7], "stop_reason": "end_turn"}',
        b'{"content": [{"type": "text", "text": 7}], "stop_reason": "end_turn"}',
        b'{"content": [{"type": "tool_use", "id": "", "name": "x y", "input": {}}], "stop_reason": "tool_use"}',
        b'{"content": [{"type": "tool_use", "id": "1", "name": "x", "input": []}], "stop_reason": "tool_use"}',
    ],
)
async def test_garbage_is_an_outage(stub: LlmStub, model: AnthropicProvider, body: bytes) -> None:
    lines = b"event: x\ndata: " + body + b"\n\n"
    stub.script = [Scripted(body=body), Scripted(body=lines)]
    for stream in (False, True):
        assert isinstance(await refused(model, stream=stream), ModelOutage)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_endless_answer_is_not_read(
    stub: LlmStub, model: AnthropicProvider, status: int, stream: bool
) -> None:
    stub.script = [Scripted(status, b"data: " + b"x" * 17 * MAX_RESPONSE_BYTES)]
    assert isinstance(await refused(model, stream=stream), ModelTooLong)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_says_nothing_is_left_in_time(stub: LlmStub, stream: bool) -> None:
    never = threading.Event()
    stub.script = [Scripted(waits=never)]
    async with AnthropicProvider("slow", model="m", base_url=stub.url, api_key=KEY, timeout_s=0.3) as model:
        error = await refused(model, stream=stream)
    never.set()
    assert isinstance(error, ModelOutage) and "slow did not answer within 0.3 s" in str(error)


async def test_a_stream_that_falls_silent_is_left_in_time(stub: LlmStub) -> None:
    never = threading.Event()
    said = events(streamed((0, told("for")), blocks=(NOTHING,), stop="end_turn"))
    said.holds = never
    stub.script = [said]
    async with AnthropicProvider("slow", model="m", base_url=stub.url, api_key=KEY, timeout_s=0.3) as model:
        assert isinstance(await refused(model, stream=True), ModelOutage)
    never.set()


async def test_a_cancelled_call_is_gone_from_the_server(stub: LlmStub, model: AnthropicProvider) -> None:
    waits = threading.Event()
    stub.script = [Scripted(pieces=(b"x" * 1_000_000,) * 50, waits=waits)]
    call = asyncio.create_task(model.chat(ASKED))
    while not stub.asked:  # noqa: ASYNC110 - another thread's list
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    waits.set()
    assert await asyncio.to_thread(stub.gone.wait, 30)


async def test_a_key_goes_only_where_nobody_listens_in(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2

    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", KEY)
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"X-Mine: {KEY}\nAuthorization: Bearer other")
    for url, key, sent in (
        ("https://llm.example.com", KEY, True),
        ("http://127.0.0.1:9", KEY, True),
        ("http://10.0.0.7", KEY, False),
        ("http://127.0.0.1.example.com", KEY, False),
        ("https://llm.example.com", "", False),
    ):
        seen: list[httpx2.Request] = []

        async def answer(request: httpx2.Request, seen: list[httpx2.Request] = seen) -> httpx2.Response:
            seen.append(request)
            return httpx2.Response(401, json=anthropic_error("authentication_error", "no"))

        async with AnthropicProvider("n", model="m", base_url=url, api_key=key) as model:
            model._client.get()._client._transport = httpx2.MockTransport(answer)
            error = await refused(model)
        headers = dict(seen[0].headers)
        assert headers.get("authorization") == (f"Bearer {KEY}" if sent else None)
        assert [name for name, value in headers.items() if KEY in value] == (["authorization"] if sent else [])
        assert ("only sent over https" in str(error)) == url.startswith("http://1") * (not sent)


@pytest.mark.parametrize("key", ["sk 1", "sk-1\nX: y", "sk-é"])
def test_what_is_no_key_is_refused_without_saying_it(key: str) -> None:
    with pytest.raises(InputError, match="ANTHROPIC_API_KEY is not a key") as caught:
        AnthropicProvider("n", model="m", api_key=key)
    assert key not in str(caught.value)


async def test_it_follows_no_redirect(stub: LlmStub, model: AnthropicProvider) -> None:
    stub.script = [Scripted(307, b"{}", {"Location": f"{stub.url}/elsewhere"})]
    assert isinstance(await refused(model), ModelRefused)
    assert len(stub.asked) == 1


async def test_nothing_to_answer_and_no_embeddings_are_refused(model: AnthropicProvider) -> None:
    with pytest.raises(ModelRefused, match="no message"):
        await model.chat(ChatRequest(messages=(ChatMessage(role="system", content="be"),)))
    with pytest.raises(ModelRefused, match="offers no embeddings"):
        await model.embed(["a"])
