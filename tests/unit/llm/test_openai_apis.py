"""OpenAI's two interfaces: tools, schemas, streams and vectors mean the same over both. The server is a stub."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest

from chimera.core.errors import InputError, ModelError, ModelOutage, ModelQuota, ModelRefused, ModelTooLong
from chimera.llm.chat import ChatChunk, ChatMessage, ChatRequest, ToolCall, ToolSpec
from chimera.llm.openai_provider import OpenAIProvider
from tests.llm_server import LlmServer, Said, sse

WEATHER = ToolSpec(name="weather", description="of a city", parameters={"type": "object", "properties": {}})
CALLED = ToolCall(id="c1", name="weather", arguments={"city": "Bern"})
HELLO = ChatRequest(messages=(ChatMessage(role="user", content="hi"),), temperature=0.5)
TALK = ChatRequest(
    messages=(
        ChatMessage(role="system", content="be short"),
        ChatMessage(role="user", content="Bern?"),
        ChatMessage(role="assistant", content="", calls=(CALLED,)),
        ChatMessage(role="tool", content="rain", call_id="c1"),
    ),
    tools=(WEATHER,),
)
NUMBER: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}}
STRICT = {**NUMBER, "required": ["n"], "additionalProperties": False}


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with LlmServer() as server:
        yield server


@pytest.fixture(params=["chat", "responses"])
def api(request: pytest.FixtureRequest) -> Literal["chat", "responses"]:
    return "responses" if request.param == "responses" else "chat"


@pytest.fixture
async def model(server: LlmServer, api: Literal["chat", "responses"]) -> AsyncIterator[OpenAIProvider]:
    async with OpenAIProvider("n", model="m", base_url=server.url, api=api, timeout_s=20.0) as model:
        yield model


def called(api: str, arguments: Any, name: str = "weather", finish: str = "tool_calls") -> bytes:
    """An answer that asks for a tool."""
    if api == "chat":
        call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
        choice: dict[str, Any] = {"message": {"content": None, "tool_calls": [call]}, "finish_reason": finish}
        return json.dumps({"model": "m-1", "choices": [choice]}).encode()
    item = {"type": "function_call", "call_id": "c1", "name": name, "arguments": arguments}
    return json.dumps({"model": "m-1", "status": "completed", "output": [item]}).encode()


async def streamed(model: OpenAIProvider, request: ChatRequest = HELLO) -> list[ChatChunk]:
    return [chunk async for chunk in model.stream(request)]


async def test_an_answer_says_what_it_took_and_who_gave_it(server: LlmServer, model: OpenAIProvider) -> None:
    response = await model.chat(HELLO)
    assert (response.text, response.tokens_in, response.tokens_out) == ("you said: hi", 11, 7)
    assert (response.finish, response.model, response.provider, response.cost_usd) == ("stop", "m", "n", None)
    assert server.requests[0]["temperature"] == 0.5


async def test_a_stream_is_the_same_answer_in_pieces(server: LlmServer, model: OpenAIProvider) -> None:
    whole = await model.chat(HELLO)
    *told, last = await streamed(model)
    assert len(told) == 3 and all(chunk.response is None for chunk in told)
    assert "".join(chunk.text for chunk in told) == "you said: hi"
    assert last.response == whole
    await streamed(model)
    assert len(set(server.peers)) == 1, "a stream that was read to its end leaves its connection to the next call"


async def test_a_conversation_with_tools_over_chat(server: LlmServer) -> None:
    async with OpenAIProvider("n", model="m", base_url=server.url) as model:
        await model.chat(TALK)
    [sent] = server.requests
    assert sent["tools"] == [{"type": "function", "function": WEATHER.model_dump()}]
    assistant, answer = sent["messages"][2:]
    assert assistant["tool_calls"][0]["id"] == "c1" and answer == {
        "role": "tool",
        "content": "rain",
        "tool_call_id": "c1",
    }
    function = assistant["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("weather", {"city": "Bern"})


async def test_a_conversation_with_tools_over_responses(server: LlmServer) -> None:
    server.reply = lambda body: "wet"
    async with OpenAIProvider("n", model="m", base_url=server.url, api="responses") as model:
        await model.chat(TALK)
    [sent] = server.requests
    assert server.paths == ["/v1/responses"]
    assert (sent["store"], sent["max_output_tokens"]) == (False, TALK.max_tokens)
    assert sent["tools"] == [{"type": "function", "strict": False, **WEATHER.model_dump()}]
    assert sent["input"] == [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "Bern?"},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Bern"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
    ]


async def test_what_the_model_said_before_is_told_again(server: LlmServer, model: OpenAIProvider, api: str) -> None:
    before = ChatMessage(role="assistant", content="hello")
    await model.chat(ChatRequest(messages=(*HELLO.messages, before, *HELLO.messages)))
    said = server.requests[0]["messages" if api == "chat" else "input"][1]
    text = {"type": "output_text", "text": "hello", "annotations": []}
    long = {"type": "message", "role": "assistant", "content": [text]}
    assert said == ({"role": "assistant", "content": "hello"} if api == "chat" else long)


async def test_a_tool_that_is_asked_for_is_read(server: LlmServer, model: OpenAIProvider, api: str) -> None:
    server.script = [Said(body=called(api, '{"city": "Bern"}')), Said(body=called(api, ""))]
    response = await model.chat(TALK)
    assert (response.calls, response.finish, response.text, response.model) == ((CALLED,), "calls", "", "m-1")
    assert (await model.chat(TALK)).calls[0].arguments == {}


@pytest.mark.parametrize("arguments", ["[1]", "7", '{"city":', "nope", '{"n": NaN}', '{"c": "\\ud800"}', "[" * 9_999])
async def test_arguments_that_are_no_object_are_an_error_that_shows_them(
    server: LlmServer, model: OpenAIProvider, api: str, arguments: str
) -> None:
    server.script = [Said(body=called(api, arguments))]
    with pytest.raises(ModelError, match="no JSON object: weather") as caught:
        await model.chat(TALK)
    assert type(caught.value) is ModelError and len(str(caught.value)) < 400


async def test_a_name_that_no_tool_can_have_is_an_error(server: LlmServer, model: OpenAIProvider, api: str) -> None:
    server.script = [Said(body=called(api, "{}", name="rm -rf /"))]
    with pytest.raises(ModelError, match="rm -rf"):
        await model.chat(TALK)


async def test_too_many_tools_at_once_are_an_error(server: LlmServer, model: OpenAIProvider, api: str) -> None:
    body = json.loads(called(api, "{}"))
    if api == "chat":
        body["choices"][0]["message"]["tool_calls"] *= 129
    else:
        body["output"] *= 129
    server.script = [Said(body=json.dumps(body).encode())]
    with pytest.raises(ModelError, match="more than 128 tools"):
        await model.chat(TALK)


async def test_tools_asked_for_in_a_mixed_order_are_put_in_theirs(server: LlmServer) -> None:
    parts = [(1, "b", ""), (0, "a", '{"n"'), (1, None, '{"n": 1}'), (0, None, ": 0}")]
    calls = [{"index": n, "id": id_, "function": {"name": id_, "arguments": part}} for n, id_, part in parts]
    choices: list[dict[str, Any]] = [{"delta": {"tool_calls": [call]}} for call in calls]
    choices.append({"delta": {}, "finish_reason": "tool_calls"})
    server.script = [Said(body=sse(*({"choices": [choice]} for choice in choices)))]
    async with OpenAIProvider("n", model="m", base_url=server.url) as model:
        [last] = await streamed(model, TALK)
    assert last.response is not None
    assert [(call.name, call.arguments) for call in last.response.calls] == [("a", {"n": 0}), ("b", {"n": 1})]


async def test_a_tool_asked_for_piece_by_piece(server: LlmServer) -> None:
    first = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}}
    parts = [{"index": 0, "function": {"arguments": part}} for part in ('{"ci', 'ty": "Be', 'rn"}')]
    choices: list[dict[str, Any]] = [{"delta": {"tool_calls": [call]}} for call in (first, *parts)]
    choices.append({"delta": {}, "finish_reason": "tool_calls"})
    server.script = [Said(body=sse(*({"choices": [choice]} for choice in choices)))]
    async with OpenAIProvider("n", model="m", base_url=server.url) as model:
        [last] = await streamed(model, TALK)
    assert last.response is not None and (last.response.calls, last.response.finish) == ((CALLED,), "calls")


async def test_why_an_answer_ended(server: LlmServer) -> None:
    def chat(reason: str, **message: str | None) -> bytes:
        return json.dumps({"choices": [{"message": message, "finish_reason": reason}]}).encode()

    def item(kind: str, name: str, text: str) -> dict[str, Any]:
        return {"type": "message", "content": [{"type": kind, name: text}]}

    def incomplete(reason: str) -> bytes:
        details = {"reason": reason}
        output = [item("output_text", "text", "so")]
        return json.dumps({"status": "incomplete", "incomplete_details": details, "output": output}).encode()

    told: dict[Literal["chat", "responses"], list[bytes]] = {
        "chat": [chat("length", content="so"), chat("content_filter", content="so"), chat("stop", refusal="so")],
        "responses": [
            incomplete("max_output_tokens"),
            incomplete("content_filter"),
            json.dumps({"status": "completed", "output": [item("refusal", "refusal", "so")]}).encode(),
        ],
    }
    for api, bodies in told.items():
        server.script = [Said(body=body) for body in bodies]
        async with OpenAIProvider("n", model="m", base_url=server.url, api=api) as model:
            responses = [await model.chat(HELLO) for _ in bodies]
        assert [(one.finish, one.text) for one in responses] == [("length", "so"), ("refusal", "so"), ("refusal", "so")]


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        (NUMBER, {"schema": STRICT, "strict": True}),
        ({"type": "object"}, {"schema": {"type": "object"}, "strict": False}),
    ],
)
async def test_a_schema_is_sent_and_enforced_where_it_fits(
    server: LlmServer, model: OpenAIProvider, api: str, schema: dict[str, Any], sent: dict[str, Any]
) -> None:
    await model.chat(HELLO.model_copy(update={"answer": schema}))
    [body] = server.requests
    if api == "chat":
        assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", **sent}}
    else:
        assert body["text"]["format"] == {"type": "json_schema", "name": "answer", **sent}


def complaint(param: str | None) -> Said:
    error = {"message": f"Unsupported: {param}", "param": param, "code": "unsupported_value"}
    return Said(400, json.dumps({"error": error}).encode())


async def test_what_a_model_does_not_take_is_left_out_from_then_on(server: LlmServer, model: OpenAIProvider) -> None:
    server.script = [complaint("temperature")]
    assert (await model.chat(HELLO)).text == "you said: hi"
    await model.chat(HELLO)
    assert ["temperature" in body for body in server.requests] == [True, False, False]


async def test_a_limit_goes_by_its_newer_name_where_the_older_is_refused(server: LlmServer) -> None:
    server.script = [complaint("max_tokens"), complaint("seed")]
    async with OpenAIProvider("n", model="m", base_url=server.url) as model:
        await model.chat(HELLO.model_copy(update={"seed": 1}))
    last = server.requests[-1]
    assert (
        len(server.requests) == 3
        and last["max_completion_tokens"] == 1024
        and last.keys().isdisjoint({"max_tokens", "seed"})
    )


@pytest.mark.parametrize("param", ["messages", None, "temperature"])
async def test_any_other_complaint_ends_it(server: LlmServer, model: OpenAIProvider, param: str | None) -> None:
    server.script = [complaint(param) for _ in range(9)]
    with pytest.raises(ModelRefused):
        await model.chat(HELLO)
    assert len(server.requests) == (2 if param == "temperature" else 1)


WORD: dict[str, Any] = {"choices": [{"delta": {"content": "so"}}]}
DELTA: dict[str, Any] = {"type": "response.output_text.delta", "delta": "so"}


@pytest.mark.parametrize("cut", [False, True])
async def test_a_stream_that_breaks_off_is_an_outage_after_what_was_said(
    server: LlmServer, model: OpenAIProvider, api: str, cut: bool
) -> None:
    server.script = [Said(body=sse(WORD if api == "chat" else DELTA), cut=cut)]
    told: list[str] = []

    async def read() -> None:
        async for chunk in model.stream(HELLO):
            told.append(chunk.text)  # noqa: PERF401 - it breaks off

    with pytest.raises(ModelOutage, match="broke off"):
        await read()
    assert told == ["so"]
    assert (await model.chat(HELLO)).text == "you said: hi"


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"data: <html>\n\n", b"data: []\n\n", b"data: 7\n\n", b'data: {"choices": [7]}\n\n', b"\xff\xfe",
     b'data: {"choices": [{"delta": {"content": 7}}]}\n\n', b'data: {"type": "response.completed"}\n\n',
     b'data: {"type": "response.completed", "response": {}}\n\n', b"data: " + b"[" * 99_999 + b"\n\n"],
)  # fmt: skip
async def test_garbage_in_a_stream_is_an_outage(server: LlmServer, model: OpenAIProvider, body: bytes) -> None:
    server.script = [Said(body=body)]
    with pytest.raises(ModelOutage):
        await streamed(model)


async def test_a_stream_is_bounded(
    server: LlmServer, model: OpenAIProvider, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chimera.llm.openai_provider.MAX_RESPONSE_BYTES", 1_000)
    server.script = [Said(body=sse(*[WORD if api == "chat" else DELTA] * 1_000)), Said(body=b"x" * 1_000_000)]
    for _ in range(2):
        with pytest.raises(ModelTooLong, match="n: the answer has more than 16000 bytes"):
            await streamed(model)


async def test_the_words_of_a_stream_are_bounded(server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimera.llm.openai_chat.MAX_RESPONSE_BYTES", 1_000)
    server.script = [Said(body=sse(*[WORD] * 1_000))]
    async with OpenAIProvider("n", model="m", base_url=server.url) as model:
        with pytest.raises(ModelTooLong, match="1000 characters"):
            await streamed(model)


@pytest.mark.parametrize(
    ("error", "kind"),
    [({"message": "pay", "code": "insufficient_quota"}, ModelQuota), ({"message": "oops", "code": "e"}, ModelOutage),
     ({"message": "no", "code": 400}, ModelRefused)],
)  # fmt: skip
async def test_an_error_within_a_stream_is_the_error_it_is(
    server: LlmServer, model: OpenAIProvider, api: str, error: dict[str, Any], kind: type[ModelError]
) -> None:
    events = [WORD, {"error": error}] if api == "chat" else [DELTA, {"type": "error", **error}]
    server.script = [Said(body=sse(*events))]
    with pytest.raises(kind, match=error["message"]) as caught:
        await streamed(model)
    assert type(caught.value) is kind


@pytest.mark.parametrize("kind", [ModelQuota, ModelOutage])
async def test_an_error_instead_of_an_answer_is_the_error_it_is(
    server: LlmServer, model: OpenAIProvider, kind: type[ModelError]
) -> None:
    error = {"message": "pay", "code": "insufficient_quota" if kind is ModelQuota else None}
    server.script = [Said(body=json.dumps({"error": error}).encode())]
    with pytest.raises(kind, match="ended its answer with an error: pay") as caught:
        await model.chat(HELLO)
    assert type(caught.value) is kind


@pytest.mark.parametrize("endless", [b": nothing yet\n\n", sse(WORD)], ids=["comments", "words"])
async def test_a_stream_that_drips_is_left_in_time(endless: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes come before any time-out for a read; an event, or its end, never would."""
    monkeypatch.setattr("chimera.llm.openai_provider.STREAM_TIMES", 2)
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100_000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + sse(WORD))
            while not stop.wait(0.02):
                try:
                    connection.sendall(endless)
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with OpenAIProvider("drip", model="m", base_url=url, timeout_s=0.3) as model:
            with pytest.raises(ModelOutage, match=r"drip did not answer within 0\.3 s"):
                await streamed(model)
        stop.set()
        thread.join()


async def test_a_response_that_has_not_ended_is_an_outage(server: LlmServer) -> None:
    server.script = [Said(body=b'{"status": "in_progress", "output": []}')]
    async with OpenAIProvider("n", model="m", base_url=server.url, api="responses") as model:
        with pytest.raises(ModelOutage, match="in_progress"):
            await model.chat(HELLO)


async def test_a_response_that_failed_is_an_outage(server: LlmServer) -> None:
    failed = {"status": "failed", "output": [], "error": {"code": "server_error", "message": "oops"}}
    server.script = [
        Said(body=json.dumps(failed).encode()),
        Said(body=sse({"type": "response.failed", "response": failed})),
    ]
    async with OpenAIProvider("n", model="m", base_url=server.url, api="responses") as model:
        with pytest.raises(ModelOutage, match="oops"):
            await model.chat(HELLO)
        with pytest.raises(ModelOutage, match="oops"):
            await streamed(model)


async def test_a_refusal_to_stream_is_a_refusal(server: LlmServer, model: OpenAIProvider) -> None:
    server.script = [Said(429, b'{"error": {"message": "later"}}', {"Retry-After": "3"})]
    with pytest.raises(ModelOutage, match="later") as caught:
        await streamed(model)
    assert caught.value.retry_after_s == 3.0


async def test_vectors_come_in_the_order_of_their_texts(server: LlmServer, model: OpenAIProvider) -> None:
    texts = ["x" * (n % 7 + 1) for n in range(70)]
    found = await model.embed(texts)
    assert found.vectors == tuple((float(len(text)), 1.0) for text in texts)
    assert (found.tokens_in, found.model, found.provider) == (70, "m", "n")
    assert [len(body["input"]) for body in server.requests] == [32, 32, 6]
    assert (await model.embed([])).vectors == ()


@pytest.mark.parametrize("texts", [[""], ["x"] * 2_049])
async def test_what_cannot_be_embedded_is_refused_unsent(
    server: LlmServer, model: OpenAIProvider, texts: list[str]
) -> None:
    with pytest.raises(InputError, match="up to 2048 texts"):
        await model.embed(texts)
    assert not server.requests


@pytest.mark.parametrize(
    "data",
    [[], [{"index": 0, "embedding": []}], [{"index": 0, "embedding": ["x"]}], [{"index": 1, "embedding": [1]}], {},
     [{"index": 0, "embedding": [float("nan")]}], [{"embedding": [1]}], None],
)  # fmt: skip
async def test_vectors_that_are_none_are_an_outage(server: LlmServer, model: OpenAIProvider, data: Any) -> None:
    server.script = [Said(body=json.dumps({"data": data}).encode())]
    with pytest.raises(ModelOutage):
        await model.embed(["x"])
