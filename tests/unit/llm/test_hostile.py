"""What no server, proxy or environment may do to any of the three providers. The servers are stubs, on real sockets."""

from __future__ import annotations

import asyncio
import json
import pickle
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, ModelError, ModelOutage, ModelSilent, ModelTooLong
from chimera.llm import bounded
from chimera.llm.anthropic_provider import AnthropicProvider
from chimera.llm.anthropic_wire import ANSWER_TOOL
from chimera.llm.anthropic_wire import Growing as AnthropicGrowing
from chimera.llm.chat import MAX_TOOLS, ChatMessage, ChatModel, ChatRequest
from chimera.llm.local_provider import LocalLLMProvider
from chimera.llm.meter import Cap, Caps, Meter, Metered
from chimera.llm.ollama_wire import Growing as OllamaGrowing
from chimera.llm.openai_provider import OpenAIProvider
from chimera.llm.prices import Prices
from chimera.llm.remote import MAX_COUNT, MAX_RESPONSE_BYTES, MAX_WAIT_S, Remote, count, seconds
from tests.llm_stub import LlmStub, Scripted, anthropic_message, events, ollama_part, plain
from tests.unit.llm.metering import nothing_is_held

KEY = "sk-very-secret-0123456789"
ASKED = ChatRequest(messages=(ChatMessage(role="user", content="hello"),), max_tokens=100)

Open = Callable[..., ChatModel]

OPENERS: dict[str, Open] = {
    "openai": lambda url, **more: OpenAIProvider("m", model="m", base_url=url, api_key=KEY, **more),
    "anthropic": lambda url, **more: AnthropicProvider("m", model="m", base_url=url, api_key=KEY, **more),
    "ollama": lambda url, **more: LocalLLMProvider("m", model="m", base_url=url, **more),
}


def openai_body(text: str = "hi", usage: Any = None, **message: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    return {"model": "m", "choices": [choice]} | ({} if usage is None else {"usage": usage})


def called(arguments: Any) -> dict[str, dict[str, Any]]:
    """An answer with a call, as each interface has it."""
    function = {"name": "f", "arguments": arguments}
    return {
        "openai": openai_body(tool_calls=[{"id": "c", "function": {**function, "arguments": json.dumps(arguments)}}]),
        "anthropic": anthropic_message({"type": "tool_use", "id": "c", "name": "f", "input": arguments}),
        "ollama": ollama_part(done=True, message={"tool_calls": [{"function": function}]}),
    }


ANSWERS: dict[str, dict[str, Any]] = {
    "openai": openai_body(usage={"prompt_tokens": 11, "completion_tokens": 7}),
    "anthropic": anthropic_message({"type": "text", "text": "hi"}),
    "ollama": ollama_part("hi", done=True),
}

each = pytest.mark.parametrize("kind", sorted(OPENERS))


@each
def test_a_model_serves_one_loop_after_the_other(kind: str) -> None:
    with LlmStub(*[plain(ANSWERS[kind]) for _ in range(3)]) as stub:
        model = OPENERS[kind](stub.url)
        for _ in range(3):
            assert asyncio.run(model.chat(ASKED)).text == "hi"
        asyncio.run(model.close())


@each
async def test_what_is_said_to_this_machine_is_said_to_no_proxy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with LlmStub(plain(ANSWERS[kind])) as stub, LlmStub(plain(ANSWERS[kind])) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with OPENERS[kind](stub.url) as model:
            await model.chat(ASKED)
        assert (len(stub.asked), len(proxy.asked)) == (1, 0)


@each
async def test_cookies_are_not_kept_for_the_next_who_asks(kind: str) -> None:
    body = json.dumps(ANSWERS[kind]).encode()
    with LlmStub(*[Scripted(200, body, {"Set-Cookie": f"c{n}={'x' * 1_000}"}) for n in range(3)]) as stub:
        async with OPENERS[kind](stub.url) as model:
            for _ in range(3):
                await model.chat(ASKED)
        assert [asked.headers.get("cookie") for asked in stub.asked] == [None] * 3


@each
@pytest.mark.parametrize("arguments", [{"a": "\ud800"}, {"a": [float("nan")]}, ["a"], "{", "[1]", 7])
async def test_arguments_that_json_cannot_hold_are_an_error_and_leave_nothing_reserved(
    kind: str, arguments: Any
) -> None:
    meter = Meter(Prices(), Caps(day=Cap(tokens=10_000)), ManualClock())
    with LlmStub(plain(called(arguments)[kind])) as stub:
        async with Metered(OPENERS[kind](stub.url), meter) as model:
            with pytest.raises(ModelError):
                await model.chat(ASKED)
    assert nothing_is_held(meter) and len(meter.entries) == 1


@each
async def test_more_calls_than_a_conversation_may_hold_are_an_error(kind: str) -> None:
    body = called({})[kind]
    if kind == "anthropic":
        body["content"] *= MAX_TOOLS + 1
    else:
        (body["message"] if kind == "ollama" else body["choices"][0]["message"])["tool_calls"] *= MAX_TOOLS + 1
    with LlmStub(plain(body)) as stub:
        async with OPENERS[kind](stub.url) as model:
            with pytest.raises(ModelError):
                await model.chat(ASKED)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize(
    ("usage", "tokens_in", "tokens_out", "assumed"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3}, 5, 3, False),
        ({"prompt_tokens": 5, "completion_tokens": -3}, 5, 50, True),
        ({"prompt_tokens": 5}, 5, 50, True),
        ({"completion_tokens": 3}, 37, 3, True),
        ({"prompt_tokens": "5", "completion_tokens": 1.5}, 37, 50, True),
        ({"prompt_tokens": True, "completion_tokens": None}, 37, 50, True),
        ([], 37, 50, True),
        (None, 37, 50, True),
        ({"prompt_tokens": 10**400, "completion_tokens": 3}, MAX_COUNT, 3, False),
    ],
)
async def test_a_count_that_is_missing_or_none_is_counted_from_above(
    local: bool, usage: Any, tokens_in: int, tokens_out: int, assumed: bool
) -> None:
    meter = Meter(Prices(), Caps(), ManualClock())
    with LlmStub(plain(openai_body("x" * 50, usage))) as stub:
        url = f"{stub.url}/v1"
        model = LocalLLMProvider("m", model="m", base_url=url, wire="openai") if local else OPENERS["openai"](url)
        async with Metered(model, meter) as metered:
            await metered.chat(ASKED)
    (entry,) = meter.entries
    assert (entry.tokens_in, entry.tokens_out, entry.assumed) == (tokens_in, tokens_out, assumed)


def test_a_stream_is_bounded_in_its_characters_and_put_together_once() -> None:
    """20,000 pieces of a text of 4 MB: adding each to all before would copy 40 GB, and take a minute."""
    piece = "x" * (MAX_RESPONSE_BYTES // 20_000)
    ours = AnthropicGrowing(answer=False)
    ours.take({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    theirs = OllamaGrowing(ASKED, 8_192, Remote("m", "http://127.0.0.1"))
    for _ in range(20_000):
        ours.take({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
        theirs.take({"message": {"content": piece}})
    ours.take({"type": "message_stop"})
    theirs.take({"message": {}, "done": True})
    assert ours.body["content"][0]["text"] == theirs.response().text == piece * 20_000
    with pytest.raises(ModelTooLong):
        ours.take({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}})


@pytest.mark.parametrize("part", [7, None, ["a"], {}])
@pytest.mark.parametrize("block", ["text", "tool_use"])
async def test_a_piece_of_a_stream_that_is_no_text_is_an_outage(block: str, part: Any) -> None:
    began = {"type": block, "id": "c", "name": ANSWER_TOOL, "text": "", "input": {}}
    delta = (
        {"type": "text_delta", "text": part} if block == "text" else {"type": "input_json_delta", "partial_json": part}
    )
    told = [
        {"type": "content_block_start", "index": 0, "content_block": began},
        {"type": "content_block_delta", "index": 0, "delta": delta},
    ]
    with LlmStub(events(told)) as stub:
        async with OPENERS["anthropic"](stub.url) as model:
            with pytest.raises(ModelOutage, match="did not answer as its interface says"):
                _ = [chunk async for chunk in model.stream(ASKED)]


@each
async def test_who_finds_all_connections_in_use_has_asked_nobody(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "CONNECTIONS", 1)
    never = threading.Event()
    with LlmStub(Scripted(waits=never), Scripted(waits=never)) as stub:
        async with OPENERS[kind](stub.url, timeout_s=1.0) as model:
            first, second = await asyncio.gather(model.chat(ASKED), model.chat(ASKED), return_exceptions=True)
        never.set()
        assert len(stub.asked) == 1
    assert type(first) is ModelSilent, "it may have worked"
    assert type(second) is ModelOutage and "no call was made" in str(second)


@each
async def test_a_machine_that_does_not_even_refuse_is_left_soon(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "CONNECT_S", 0.2)
    with socket.socket() as deaf, socket.socket() as one, socket.socket() as two:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)  # and accepts none: once its queue is full, who connects hears nothing
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        async with asyncio.timeout(20), OPENERS[kind](f"http://127.0.0.1:{deaf.getsockname()[1]}") as model:
            with pytest.raises(ModelOutage, match="no connection to"):
                await model.chat(ASKED)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_key_shows_in_no_repr_and_travels_in_no_pickle(kind: str) -> None:
    model = OPENERS[kind]("https://llm.example.com/v1")
    assert KEY not in repr(vars(model))
    with pytest.raises(InputError, match="holds a key") as caught:
        pickle.dumps(model)
    assert KEY not in str(caught.value)


@each
@pytest.mark.parametrize("between", ["\u200b", "\x00", "\x1b"])
async def test_a_key_with_what_is_not_seen_between_its_letters_is_hidden_too(kind: str, between: str) -> None:
    hidden = between.join(KEY)
    body = ANSWERS[kind] | {"model": hidden}
    with LlmStub(plain({"error": {"message": hidden}}, 500), plain(body)) as stub:
        async with OPENERS[kind](stub.url) as model:
            with pytest.raises(ModelOutage) as caught:
                await model.chat(ASKED)
            response = await model.chat(ASKED)
    if kind != "ollama":  # which was told no key
        assert KEY not in str(caught.value) and KEY not in response.model
    assert len(response.model) <= 200


@each
@pytest.mark.parametrize("url", ["localhost:11434", "h", "http://", "http://[::1/v1", "ftp://h"])
def test_an_address_that_is_none_is_told_when_it_is_opened(kind: str, url: str) -> None:
    with pytest.raises(InputError, match="is not an address such as"):
        OPENERS[kind](url)


def test_an_address_that_is_wrong_is_told_without_its_password() -> None:
    with pytest.raises(InputError) as caught:
        OPENERS["openai"](f"http://me:{KEY}@h:99999/v1")
    assert KEY not in str(caught.value) and "h:99999" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("3", 3.0),
        ("1e309", 0.0),
        ("-5", 0.0),
        ("nan", 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
        ("1e300", MAX_WAIT_S),
    ],
)
def test_a_wish_for_a_pause_is_a_number_that_can_be_slept(text: str, wait_s: float) -> None:
    assert seconds(text) == wait_s


def test_a_count_is_found_within_and_bounded() -> None:
    usage = {"a": {"b": 3}, "c": -1, "d": 10**400, "e": True}
    assert [count(usage, *names) for names in (("a", "b"), ("c",), ("d",), ("e",), ("a",), ("c", "b"))] == [
        3, 0, MAX_COUNT, 0, 0, 0,
    ]  # fmt: skip


CREDIT = "Your credit balance is too low"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, {"message": "no such field: 'I have a question on billing, my credit balance'"}, "ModelRefused"),
        (422, {"message": "input: 'insufficient_quota'"}, "ModelRefused"),
        (404, {"message": "billing"}, "ModelRefused"),
        (400, {"message": CREDIT}, "ModelQuota"),
        (400, {"message": "limit", "code": "billing_hard_limit_reached"}, "ModelQuota"),
        (400, {"message": "limit", "type": "billing_error"}, "ModelQuota"),
        (429, {"message": "check your plan and billing details"}, "ModelQuota"),
        (403, {"message": "it requires moderation, and your input was flagged", "code": 403}, "ModelRefused"),
        (403, {"message": "not for this key"}, "ModelUnauthorized"),
        (401, {"message": "flagged"}, "ModelUnauthorized"),
    ],
)
def test_what_a_user_asks_about_is_not_taken_for_the_account_or_the_key(
    status: int, error: dict[str, Any], kind: str
) -> None:
    raised = Remote("m", "http://127.0.0.1").refusal(status, json.dumps({"error": error}), {})
    assert type(raised).__name__ == kind
