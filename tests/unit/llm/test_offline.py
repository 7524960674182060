"""The offline model extracts and writes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from chimera.core.errors import ModelError, ModelRefused
from chimera.core.types import Quote
from chimera.llm.chat import ChatMessage, ChatRequest, ToolSpec
from chimera.llm.offline import OfflineModel

ASKED = (ChatMessage(role="user", content="how many features?"),)


def quotes(*texts: str) -> tuple[Quote, ...]:
    return tuple(Quote(text=text, file=f"{n}.txt", line=1) for n, text in enumerate(texts))


async def test_every_text_once_in_order_word_for_word_with_its_citation() -> None:
    request = ChatRequest(
        messages=ASKED,
        documents=(*quotes("  b: 10\t", "a – “é”"), quotes("  b: 10\t")[0], quotes("", "", "", "b: 10")[3]),
        max_tokens=1,
    )
    response = await OfflineModel().chat(request)
    assert response.text == "  b: 10\t [0.txt:1]\na – “é” [1.txt:1]\nb: 10 [3.txt:1]"
    assert (response.tokens_in, response.tokens_out, response.cost_usd) == (0, 0, 0.0)


async def test_without_documents_it_says_what_it_cannot_do() -> None:
    with pytest.raises(ModelError, match="only extracts"):
        await OfflineModel().chat(ChatRequest(messages=ASKED))


def test_it_does_not_claim_to_write() -> None:
    assert not OfflineModel.writes


@pytest.mark.parametrize("wanted", [{"tools": (ToolSpec(name="t"),)}, {"answer": {"type": "object"}}])
async def test_it_knows_no_tools_and_no_schema(wanted: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused, match="no tools, and no schema"):
        await OfflineModel().chat(ChatRequest(messages=ASKED, documents=quotes("a"), **wanted))
