"""A model behind OpenAI, or a server that speaks as it does: how it is asked, and what a bad server cannot do to us.

The server is a stub, over real connections.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Iterator

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
from chimera.llm.chat import ChatMessage, ChatRequest
from chimera.llm.openai_provider import OpenAIProvider
from chimera.llm.remote import MAX_RESPONSE_BYTES, check_url
from tests.llm_server import LlmServer, Said

KEY = "sk-very-secret-0123456789"

ASKED = ChatRequest(
    messages=(ChatMessage(role="system", content="be short"), ChatMessage(role="user", content="how many?")),
    max_tokens=77,
    seed=42,
)


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with LlmServer() as server:
        yield server


@pytest.fixture
async def model(server: LlmServer) -> AsyncIterator[OpenAIProvider]:
    name = f"compatible:m/1@{server.url}"
    async with OpenAIProvider(name, model="m/1", base_url=server.url, api_key=KEY, timeout_s=20.0) as model:
        yield model


async def refused(model: OpenAIProvider) -> ModelError:
    """What it raises. In no line of a traceback, which a log may hold, stands the key."""
    with pytest.raises(ModelError) as caught:
        await model.chat(ASKED)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return caught.value


async def test_what_is_sent_is_all_explicit_and_what_comes_back_is_all_read(
    server: LlmServer, model: OpenAIProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-not-yours")
    response = await model.chat(ASKED)
    assert (response.text, response.tokens_in, response.tokens_out) == ("you said: how many?", 11, 7)
    assert server.requests == [
        {
            "model": "m/1",
            "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "how many?"}],
            "max_tokens": 77,
            "temperature": 0,
            "seed": 42,
            "stream": False,
        }
    ]
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert "org-not-yours" not in server.headers[0].values()
    assert model.writes


async def test_no_seed_is_no_seed_and_no_key_is_no_header(server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)  # which the openai package would take by itself
    async with OpenAIProvider("n", model="m", base_url=server.url) as model:
        await model.chat(ChatRequest(messages=ASKED.messages))
    assert "seed" not in server.requests[0]
    assert "authorization" not in server.headers[0]


async def test_documents_reach_it_with_their_citations_before_the_question(
    server: LlmServer, model: OpenAIProvider
) -> None:
    quote = Quote(text="Ten features.", file="diabetes.rst", line=7)
    await model.chat(ASKED.model_copy(update={"documents": (quote,)}))
    system, user = server.requests[0]["messages"]
    assert system["content"] == "be short"
    assert "Ten features. [diabetes.rst:7]" in user["content"] and user["content"].endswith("how many?")


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"X-Chutes-InvocationID": "inv-1", "x-request-id": "req-1"}, "inv-1"),
        ({"x-request-id": "req-1"}, "req-1"),
        ({"x-request-id": "r" * 999}, "r" * 200),
        ({}, None),
    ],
)
async def test_the_request_id_is_the_providers(
    server: LlmServer, model: OpenAIProvider, headers: dict[str, str], request_id: str | None
) -> None:
    server.answer_headers = headers
    assert (await model.chat(ASKED)).request_id == request_id


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_fault_that_may_pass_is_an_outage_and_is_asked_once(
    server: LlmServer, model: OpenAIProvider, status: int
) -> None:
    server.script = [Said(status, b'{"error": {"message": "busy\\u001b[31m, \\nlater"}}', {"Retry-After": "2.5"})]
    error = await refused(model)
    assert isinstance(error, ModelOutage) and not isinstance(error, InputError)
    assert f"{status}: busy[31m, later" in str(error) and error.retry_after_s == 2.5
    assert len(server.requests) == 1


@pytest.mark.parametrize("after", ["nan", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"])
async def test_a_wait_that_makes_no_sense_is_none(server: LlmServer, model: OpenAIProvider, after: str) -> None:
    server.script = [Said(429, b"{}", {"Retry-After": after})]
    error = await refused(model)
    assert isinstance(error, ModelOutage) and error.retry_after_s == 0.0


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, "too many tokens"), (422, "too many tokens"), (404, "is there a model 'm/1'"), (302, "302")],
)
async def test_a_refusal_is_the_callers_to_mend(
    server: LlmServer, model: OpenAIProvider, status: int, said: str
) -> None:
    server.script = [Said(status, b'{"error": {"message": "too many tokens"}}', {"Location": "/elsewhere"})]
    error = await refused(model)
    assert type(error) is ModelRefused and isinstance(error, InputError)
    assert said in str(error)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_not_taken_is_named(server: LlmServer, model: OpenAIProvider, status: int) -> None:
    server.script = [Said(status, b'{"error": {"message": "no"}}')]
    error = await refused(model)
    assert isinstance(error, ModelUnauthorized) and "is OPENAI_API_KEY set" in str(error)


@pytest.mark.parametrize(
    ("status", "code"), [(429, "insufficient_quota"), (402, "payment_required")], ids=["openai", "others"]
)
async def test_an_empty_account_is_told_from_a_busy_server(
    server: LlmServer, model: OpenAIProvider, status: int, code: str
) -> None:
    server.script = [Said(status, json.dumps({"error": {"message": "pay", "code": code}}).encode()), Said(429, b"{}")]
    assert type(await refused(model)) is ModelQuota
    assert type(await refused(model)) is ModelOutage


async def test_a_server_that_repeats_the_key_does_not_get_it_into_a_message(
    server: LlmServer, model: OpenAIProvider
) -> None:
    told = f"Incorrect API key provided: {KEY}"
    bodies = [told, json.dumps({"error": {"message": told}}), json.dumps({"detail": told}), " " * 1_990 + KEY]
    server.script = [Said(status, body.encode()) for body in bodies for status in (200, 401, 500)]
    for _ in range(3 * len(bodies)):
        error = await refused(model)
        assert KEY[:8] not in str(error)
    assert not server.script


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"{}",
        b"[]",
        b"null",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"content": ["a"]}}]}',
    ],
)
async def test_garbage_is_an_outage(server: LlmServer, model: OpenAIProvider, body: bytes) -> None:
    server.script = [Said(body=body)]
    assert isinstance(await refused(model), ModelOutage)


async def test_what_is_odd_and_harmless_is_taken(server: LlmServer, model: OpenAIProvider) -> None:
    server.script = [
        Said(body=b'{"choices": [{"message": {"content": null}}], "usage": {"prompt_tokens": -1}}'),
        Said(body=b'{"choices": [{"message": {"content": "a\\ud800b"}}], "usage": "much"}'),
    ]
    nothing, odd = await model.chat(ASKED), await model.chat(ASKED)
    assert (nothing.text, nothing.tokens_in) == ("", 0)
    assert (odd.text, odd.tokens_in) == ("a?b", 0)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("packed", [False, True])
async def test_an_endless_answer_is_not_read(
    server: LlmServer, model: OpenAIProvider, status: int, packed: bool
) -> None:
    body = b'{"choices": [{"message": {"content": "' + b"x" * 2 * MAX_RESPONSE_BYTES + b'"}}]}'
    headers = {"Content-Encoding": "gzip"} if packed else {}
    server.script = [Said(status, gzip.compress(body) if packed else body, headers)]
    error = await refused(model)
    assert isinstance(error, ModelTooLong) and str(MAX_RESPONSE_BYTES) in str(error)
    assert (await model.chat(ASKED)).text == "you said: how many?"


async def test_an_answer_may_come_packed(server: LlmServer, model: OpenAIProvider) -> None:
    body = server.completion({"model": "m", "messages": [{"content": "hi"}]})
    server.script = [Said(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})]
    assert (await model.chat(ASKED)).text == "you said: hi"


async def test_a_server_that_says_nothing_is_left_in_time(server: LlmServer) -> None:
    never = threading.Event()
    server.script = [Said(waits=never)]
    async with OpenAIProvider("slow", model="m", base_url=server.url, timeout_s=0.2) as model:
        error = await refused(model)
    never.set()
    assert isinstance(error, ModelOutage) and "slow did not answer within 0.2 s" in str(error)


async def test_a_server_that_drips_is_left_in_time() -> None:
    """Each byte comes before any time-out for a read; the whole never would."""
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100_000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not stop.wait(0.02):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with OpenAIProvider("drip", model="m", base_url=url, timeout_s=0.4) as model:
            error = await refused(model)
        stop.set()
        thread.join()
    assert isinstance(error, ModelOutage) and "within 0.4 s" in str(error)


async def test_nobody_there_is_an_outage() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with OpenAIProvider("gone", model="m", base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY) as model:
        error = await refused(model)
    assert isinstance(error, ModelOutage) and "no connection" in str(error)


@pytest.mark.parametrize("key", ["sk 1", "sk-1\nX: y", "sk-é"])
def test_what_is_no_key_is_refused_without_saying_it(key: str) -> None:
    with pytest.raises(InputError, match="OPENAI_API_KEY is not a key") as caught:
        OpenAIProvider("n", model="m", base_url="https://h/v1", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://llm.example.com/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://llm.example.com/v1", False),
        ("http://127.0.0.1.example.com/v1", False),
        ("http://10.0.0.7/v1", False),
    ],
)
async def test_a_key_goes_only_where_nobody_listens_in(url: str, sent: bool) -> None:
    import httpx2

    async with OpenAIProvider("n", model="m", base_url=url, api_key=KEY) as model:
        client = model._client.get()
        seen: list[httpx2.Request] = []

        async def answer(request: httpx2.Request) -> httpx2.Response:
            seen.append(request)
            return httpx2.Response(401, json={"error": {"message": "no"}})

        client._client._transport = httpx2.MockTransport(answer)
        error = await refused(model)
    assert ("authorization" in seen[0].headers) == sent
    assert ("only sent over https" in str(error)) == (not sent)


@pytest.mark.parametrize(
    "url",
    ["", "host", "ftp://h/v1", "http://", "http://h:99999/v1", "http://a b/v1", "http://h/\x1b", "http://[::1/v1"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="not an address"):
        check_url(url)


@pytest.mark.parametrize("url", ["https://me:pw@h/v1", "https://h/v1?key=pw", "https://h/v1#pw"])
def test_no_secret_may_stand_in_an_address(url: str) -> None:
    with pytest.raises(InputError, match="OPENAI_API_KEY") as caught:
        check_url(url)
    assert "pw" not in str(caught.value).replace("password", "")
