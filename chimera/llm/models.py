"""The one place where a model's name becomes a model."""

from __future__ import annotations

from chimera.core.errors import InputError, ModelUnavailable
from chimera.llm.chat import ChatModel
from chimera.llm.offline import OfflineModel

PROVIDERS = ("openai", "anthropic", "local")


def open_model(name: str) -> ChatModel:
    """The model called `name`: `offline`, or `PROVIDER:NAME`.

    Raises ModelUnavailable for a provider that has no adapter yet, InputError for any other name.
    """
    if name == OfflineModel.name:
        return OfflineModel()
    provider, _, model = name.partition(":")
    if provider in PROVIDERS and model.strip():
        raise ModelUnavailable(f"{name}: this version has no adapter for {provider} models yet; use offline")
    forms = ", ".join(f"{provider}:NAME" for provider in PROVIDERS)
    raise InputError(f"{name!r} is not a model: use offline, {forms}")
