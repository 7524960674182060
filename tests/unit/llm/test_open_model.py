"""From a model's name to the model."""

from __future__ import annotations

import re

import pytest

from chimera.core.errors import InputError, ModelError
from chimera.llm.chat import ChatMessage, ChatRequest
from chimera.llm.models import FORMS, open_model
from chimera.llm.offline import OfflineModel
from chimera.llm.python_model import PythonModel
from tests.llm_server import LlmServer

ASKED = ChatRequest(messages=(ChatMessage(role="user", content="hi"),))


def test_offline() -> None:
    assert isinstance(open_model("offline"), OfflineModel)


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai:gpt-5", "OPENAI_API_KEY"),
        ("openai-responses:gpt-5", "OPENAI_API_KEY"),
        ("anthropic:claude", "ANTHROPIC_API_KEY"),
        ("chutes:deepseek-ai/DeepSeek-V3", "CHUTES_API_KEY"),
    ],
)
def test_a_provider_needs_its_key_and_says_which_variable(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, " ")
    with pytest.raises(InputError, match=f"{name}: set {variable}"):
        open_model(name)
    monkeypatch.setenv(variable, "key-1")
    model = open_model(name)
    assert (model.name, model.writes) == (name, True)


@pytest.mark.parametrize(("name", "path"), [("openai", "/v1/chat/completions"), ("openai-responses", "/v1/responses")])
async def test_openai_speaks_its_two_interfaces_at_an_address_that_may_be_given(
    name: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with LlmServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        async with open_model(f"{name}:gpt-5") as model:
            assert (await model.chat(ASKED)).text == "you said: hi"
        assert (server.paths, server.requests[0]["model"]) == ([path], "gpt-5")
        assert server.headers[0]["authorization"] == "Bearer sk-1"


@pytest.mark.parametrize("variable", ["OPENAI", "ANTHROPIC"])
def test_an_address_in_the_environment_is_checked(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{variable}_API_KEY", "key-1")
    monkeypatch.setenv(f"{variable}_BASE_URL", "ftp://h")
    with pytest.raises(InputError, match="not an address"):
        open_model(f"{variable.lower()}:m")


def test_a_local_model_with_a_colon_in_its_name_is_ollamas() -> None:
    assert open_model("local:llama3:8b").name == "local:llama3:8b"


async def test_a_local_address_says_which_interface_it_is() -> None:
    with LlmServer() as server:
        async with open_model(f"local:m:8b@{server.url}") as model:
            assert (await model.chat(ASKED)).text == "you said: hi"
        async with open_model(f"local:m:8b@{server.url.removesuffix('/v1')}") as model:
            with pytest.raises(ModelError):
                await model.chat(ASKED)
    assert server.paths == ["/v1/chat/completions", "/api/chat"]
    assert {request["model"] for request in server.requests} == {"m:8b"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt-5",
        "openai",
        "openai:",
        "local: ",
        "Offline",
        "offline:x",
        "mistral:large",
        "chutes:",
        "python:",
        "http:x",
        "openai: gpt-5",
        "local:qwen ",
    ],
)
def test_any_other_name_is_answered_with_the_forms(name: str) -> None:
    with pytest.raises(InputError, match=f"use {re.escape(FORMS)}"):
        open_model(name)


@pytest.mark.parametrize("key", ["", "sk-1"])
async def test_a_compatible_server_with_or_without_a_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with LlmServer() as server:
        async with open_model(f"compatible:@cf/meta/m@{server.url}") as model:
            assert (await model.chat(ASKED)).text == "you said: hi"
        assert server.requests[0]["model"] == "@cf/meta/m"
        assert server.headers[0].get("authorization") == (f"Bearer {key}" if key else None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("compatible:m", "compatible:MODEL@URL"),
        ("compatible:@http://h/v1", "compatible:MODEL@URL"),
        ("compatible:m@ftp://h/v1", "compatible:MODEL@URL"),
        ("local:@http://h/v1", "local:MODEL@URL"),
        ("local:m@http://", "not an address"),
        ("local:m@localhost:11434", "URL from http:// or https:// on"),
        ("local:m@", "URL from http:// or https:// on"),
        ("compatible:m@http://", "not an address"),
        ("compatible:m@https://me:pw@h/v1", "no user, password"),
        ("python:no_such_module:f", "PYTHONPATH"),
    ],
)
def test_a_name_of_a_known_form_that_is_wrong_is_answered_with_what_is_wrong(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_model(name)


def test_a_digest_in_a_name_is_no_address_and_a_name_without_end_is_not_told_whole() -> None:
    assert open_model("local:m@sha256:0123").name == "local:m@sha256:0123"
    with pytest.raises(InputError) as caught:
        open_model("x" * 10_000)
    assert len(str(caught.value)) < 500


def test_python() -> None:
    assert isinstance(open_model("python:textwrap:dedent"), PythonModel)
