"""From a model's name to the model."""

from __future__ import annotations

import pytest

from chimera.core.errors import InputError, ModelUnavailable
from chimera.llm.models import open_model
from chimera.llm.offline import OfflineModel


def test_offline() -> None:
    assert isinstance(open_model("offline"), OfflineModel)


@pytest.mark.parametrize("name", ["openai:gpt-5", "anthropic:claude", "local:llama3:8b"])
def test_a_provider_without_an_adapter_is_refused_plainly(name: str) -> None:
    with pytest.raises(ModelUnavailable, match=f"{name}: .*no adapter.*use offline"):
        open_model(name)


@pytest.mark.parametrize("name", ["", "gpt-5", "openai", "openai:", "local: ", "Offline", "offline:x", "mistral:large"])
def test_any_other_name_is_answered_with_the_forms(name: str) -> None:
    with pytest.raises(InputError, match="use offline, openai:NAME, anthropic:NAME, local:NAME") as refusal:
        open_model(name)
    assert not isinstance(refusal.value, ModelUnavailable)
