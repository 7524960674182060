"""The one place where a model's name becomes a model."""

from __future__ import annotations

import os

from chimera.core.errors import InputError, ModelUnavailable
from chimera.llm.chat import ChatModel
from chimera.llm.offline import OfflineModel

PROVIDERS = ("openai", "anthropic", "local")
"""These have no adapter yet."""

CHUTES_URL = "https://llm.chutes.ai/v1"

FORMS = "offline, chutes:MODEL, compatible:MODEL@URL, python:MODULE:FUNCTION, openai:NAME, anthropic:NAME, local:NAME"


def open_model(name: str) -> ChatModel:
    """The model called `name`, in one of the FORMS. Nothing is connected to yet.

    `chutes` takes its key from CHUTES_API_KEY, `compatible` from OPENAI_API_KEY if that is set. Raises ModelUnavailable
    for a provider that has no adapter yet, InputError for any other name, an address that is none, a missing key.
    """
    if name == OfflineModel.name:
        return OfflineModel()
    provider, _, model = name.partition(":")
    if model.strip():
        if provider in PROVIDERS:
            raise ModelUnavailable(f"{name}: this version has no adapter for {provider} models yet; use offline")
        if provider == "chutes":
            return _chutes(name, model)
        if provider == "compatible":
            return _compatible(name, model)
        if provider == "python":
            from chimera.llm.python_model import PythonModel

            return PythonModel(name)
    raise InputError(f"{name!r} is not a model: use {FORMS}")


def _chutes(name: str, model: str) -> ChatModel:
    from chimera.llm.compatible import CompatibleModel

    key = os.environ.get("CHUTES_API_KEY", "").strip()
    if not key:
        raise InputError(f"{name}: set CHUTES_API_KEY to your key for chutes.ai, here and where the workers run")
    return CompatibleModel(name, model=model, base_url=CHUTES_URL, api_key=key, key_from="CHUTES_API_KEY")


def _compatible(name: str, rest: str) -> ChatModel:
    from chimera.llm.compatible import CompatibleModel, check_url

    model, at, url = rest.partition("@http")  # a model's own name may hold an @
    if not model.strip() or not at:
        raise InputError(
            f"{name!a:.300} is not of the form compatible:MODEL@URL, with an URL from http:// or https:// on"
        )
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    return CompatibleModel(name, model=model, base_url=check_url("http" + url), api_key=key)
