"""From a model's name to the model."""

from __future__ import annotations

import pytest

from chimera.core.errors import InputError, ModelUnavailable
from chimera.llm.chat import ChatMessage, ChatRequest
from chimera.llm.models import open_model
from chimera.llm.offline import OfflineModel
from chimera.llm.python_model import PythonModel
from tests.llm_server import LlmServer

ASKED = ChatRequest(messages=(ChatMessage(role="user", content="hi"),))


def test_offline() -> None:
    assert isinstance(open_model("offline"), OfflineModel)


@pytest.mark.parametrize("name", ["openai:gpt-5", "anthropic:claude", "local:llama3:8b"])
def test_a_provider_without_an_adapter_is_refused_plainly(name: str) -> None:
    with pytest.raises(ModelUnavailable, match=f"{name}: .*no adapter.*use offline"):
        open_model(name)


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
    ],
)
def test_any_other_name_is_answered_with_the_forms(name: str) -> None:
    forms = "use offline, chutes:MODEL, compatible:MODEL@URL, python:MODULE:FUNCTION, openai:NAME"
    with pytest.raises(InputError, match=forms) as refusal:
        open_model(name)
    assert not isinstance(refusal.value, ModelUnavailable)


def test_chutes_needs_a_key_and_says_which_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHUTES_API_KEY", " ")
    with pytest.raises(InputError, match="set CHUTES_API_KEY"):
        open_model("chutes:deepseek-ai/DeepSeek-V3")
    monkeypatch.setenv("CHUTES_API_KEY", "cpk_1")
    model = open_model("chutes:deepseek-ai/DeepSeek-V3")
    assert (model.name, model.writes) == ("chutes:deepseek-ai/DeepSeek-V3", True)


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
        ("compatible:m@http://", "not an address"),
        ("compatible:m@https://me:pw@h/v1", "no user, password"),
        ("python:no_such_module:f", "PYTHONPATH"),
    ],
)
def test_a_name_of_a_known_form_that_is_wrong_is_answered_with_what_is_wrong(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_model(name)


def test_python() -> None:
    assert isinstance(open_model("python:textwrap:dedent"), PythonModel)
