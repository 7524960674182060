"""OpenAI's newer interface, "responses". Nothing is kept at the server (`store` is off). It knows no seed.

Source: OpenAI's API reference, "Create a model response" and "Streaming events".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from chimera.llm.chat import ChatMessage, ChatRequest, ChatResponse
from chimera.llm.openai_wire import Pieces, Without, finish_of, strict, text_of, tool_calls
from chimera.llm.remote import Remote, count

ENDED = ("response.completed", "response.incomplete")
TOLD = ("response.output_text.delta", "response.refusal.delta")


class Responses:
    """The interface `api="responses"`."""

    def body(self, model: str, request: ChatRequest, without: Without) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "input": [item for message in request.told() for item in _items(message)],
            "max_output_tokens": request.max_tokens,
            "store": False,
        }
        if "temperature" not in without:
            body["temperature"] = request.temperature
        if request.tools:
            tools = [tool.model_dump(mode="json") for tool in request.tools]
            body["tools"] = [{"type": "function", "strict": False, **tool} for tool in tools]
        if request.answer is not None:
            enforced = None if "strict" in without else strict(request.answer)
            schema = {"name": "answer", "schema": enforced or request.answer, "strict": enforced is not None}
            body["text"] = {"format": {"type": "json_schema", **schema}}
        return body

    def read(self, body: Mapping[str, Any], remote: Remote) -> ChatResponse:
        if body.get("status") not in ("completed", "incomplete", None):
            raise LookupError("an end")
        output = body["output"]
        contents = [part for item in output if item["type"] == "message" for part in item["content"]]
        refusal = "".join(text_of(part["refusal"]) for part in contents if part["type"] == "refusal")
        wanted = [item for item in output if item["type"] == "function_call"]
        calls = tool_calls(((item.get("call_id"), item["name"], item.get("arguments")) for item in wanted), remote)
        why = (body.get("incomplete_details") or {}).get("reason")
        usage = body.get("usage")
        return ChatResponse(
            text="".join(text_of(part["text"]) for part in contents if part["type"] == "output_text") or refusal,
            calls=calls,
            tokens_in=count(usage, "input_tokens"),
            tokens_out=count(usage, "output_tokens"),
            tokens_cached=count(usage, "input_tokens_details", "cached_tokens"),
            finish=finish_of(
                cut=why == "max_output_tokens", refused=bool(refusal) or why == "content_filter", calls=calls
            ),
            model=remote.clean(str(body.get("model") or "")),
            provider=remote.name,
        )

    def pieces(self) -> Pieces:
        return _ResponsePieces()


class _ResponsePieces:
    def __init__(self) -> None:
        self.failure: Mapping[str, Any] | None = None
        self._whole: Mapping[str, Any] | None = None

    def add(self, event: Mapping[str, Any]) -> str:
        kind = event.get("type")
        if kind in ENDED:
            self._whole = event["response"]
        elif kind == "response.failed":
            self.failure = event["response"].get("error") or {"message": "it failed"}
        elif kind == "error" or event.get("error"):
            error = event.get("error")
            self.failure = error if isinstance(error, dict) else event
        return text_of(event["delta"]) if kind in TOLD else ""

    def whole(self) -> Mapping[str, Any] | None:
        return self._whole


def _items(message: ChatMessage) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        yield {"type": "function_call_output", "call_id": message.call_id, "output": message.content}
        return
    if message.role == "assistant" and message.content:  # llama.cpp takes it in the long form only
        content = [{"type": "output_text", "text": message.content, "annotations": []}]
        yield {"type": "message", "role": "assistant", "content": content}
    elif message.content or not message.calls:
        yield {"role": message.role, "content": message.content}
    for call in message.calls:
        arguments = json.dumps(call.arguments)
        yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments}
