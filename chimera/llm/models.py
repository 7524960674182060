"""The one place where a model's name becomes a model."""

from __future__ import annotations

import os
from typing import Literal
from urllib.parse import urlsplit

from chimera.core.errors import InputError
from chimera.llm.chat import ChatModel
from chimera.llm.offline import OfflineModel
from chimera.llm.remote import check_url

CHUTES_URL = "https://llm.chutes.ai/v1"

FORMS = (
    "offline, openai:MODEL, openai-responses:MODEL, anthropic:MODEL, local:MODEL[@URL], chutes:MODEL, "
    "compatible:MODEL@URL, python:MODULE:FUNCTION"
)


def open_model(name: str) -> ChatModel:
    """The model called `name`, in one of the FORMS. Nothing is connected to yet.

    Keys are read from the environment: OPENAI_API_KEY, ANTHROPIC_API_KEY and CHUTES_API_KEY, without which those
    providers are refused; `compatible` sends OPENAI_API_KEY if that is set. OPENAI_BASE_URL and ANTHROPIC_BASE_URL
    name another server than the provider's own. `local` is Ollama, at its usual address or at URL; where URL ends with
    /v1, it is any server that speaks as OpenAI does. Raises InputError for any other name, an address that is none, a
    missing key; MissingExtra for a package that is not installed.
    """
    if name == OfflineModel.name:
        return OfflineModel()
    provider, _, model = name.partition(":")
    if model and model == model.strip():
        match provider:
            case "openai":
                return _openai(name, model, "chat")
            case "openai-responses":
                return _openai(name, model, "responses")
            case "anthropic":
                return _anthropic(name, model)
            case "local":
                return _local(name, model)
            case "chutes":
                return _chutes(name, model)
            case "compatible":
                return _compatible(name, model)
            case "python":
                from chimera.llm.python_model import PythonModel

                return PythonModel(name)
    raise InputError(f"{name!r:.200} is not a model: use {FORMS}")


def _openai(name: str, model: str, api: Literal["chat", "responses"]) -> ChatModel:
    from chimera.llm.openai_provider import OPENAI_URL, OpenAIProvider

    url = check_url(_environment("OPENAI_BASE_URL") or OPENAI_URL)
    return OpenAIProvider(name, model=model, base_url=url, api_key=_key(name, "OPENAI_API_KEY"), api=api)


def _anthropic(name: str, model: str) -> ChatModel:
    from chimera.llm.anthropic_provider import AnthropicProvider

    key, url = _key(name, "ANTHROPIC_API_KEY"), _environment("ANTHROPIC_BASE_URL")
    if not url:
        return AnthropicProvider(name, model=model, api_key=key)
    return AnthropicProvider(name, model=model, api_key=key, base_url=check_url(url))


def _local(name: str, rest: str) -> ChatModel:
    from chimera.llm.local_provider import LocalLLMProvider

    model, at, url = rest.partition("@http")
    if not model.strip() or ("@" in model and "@sha256:" not in model):
        raise InputError(
            f"{name!a:.300} is not of the form local:MODEL or local:MODEL@URL, with an URL from http:// or https:// on"
        )
    if not at:
        return LocalLLMProvider(name, model=model)
    url = check_url("http" + url)
    if urlsplit(url).path.rstrip("/").endswith("/v1"):
        return LocalLLMProvider(name, model=model, base_url=url, wire="openai")
    return LocalLLMProvider(name, model=model, base_url=url, wire="ollama")


def _chutes(name: str, model: str) -> ChatModel:
    from chimera.llm.openai_provider import OpenAIProvider

    key = _key(name, "CHUTES_API_KEY")
    return OpenAIProvider(name, model=model, base_url=CHUTES_URL, api_key=key, key_from="CHUTES_API_KEY")


def _compatible(name: str, rest: str) -> ChatModel:
    from chimera.llm.openai_provider import OpenAIProvider

    model, at, url = rest.partition("@http")  # a model's own name may hold an @
    if not model.strip() or not at:
        raise InputError(
            f"{name!a:.300} is not of the form compatible:MODEL@URL, with an URL from http:// or https:// on"
        )
    return OpenAIProvider(name, model=model, base_url=check_url("http" + url), api_key=_environment("OPENAI_API_KEY"))


def _key(name: str, variable: str) -> str:
    key = _environment(variable)
    if not key:
        raise InputError(f"{name}: set {variable} to your key of this provider, here and where the workers run")
    return key


def _environment(variable: str) -> str:
    return os.environ.get(variable, "").strip()
