"""The model that needs no network: it extracts, and writes nothing of its own."""

from __future__ import annotations

from chimera.core.errors import ModelError, ModelRefused
from chimera.llm.chat import ChatModel, ChatRequest, ChatResponse


class OfflineModel(ChatModel):
    """Answers with the documents' texts and their citations, in order, one per line, each once, word for word.

    Nothing is written, so nothing is counted or paid, and `max_tokens` does not apply: a text cut short would no
    longer be word for word. Raises ModelError when there are no documents, ModelRefused for tools and a schema.
    """

    name = "offline"
    writes = False

    async def chat(self, request: ChatRequest) -> ChatResponse:
        if request.tools or request.answer is not None:
            raise ModelRefused("the offline model only extracts: it knows no tools, and no schema of an answer")
        if not request.documents:
            raise ModelError("the offline model only extracts: give it documents, or name a model that writes")
        text = "\n".join(dict.fromkeys(f"{quote.text} {quote.citation}" for quote in request.documents))
        return ChatResponse(text=text, cost_usd=0.0, model=self.name, provider=self.name)
