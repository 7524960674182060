"""OpenAI's chat completions, which most other servers speak too: Chutes, vLLM, llama.cpp, Ollama, OpenRouter ...

Source: OpenAI's API reference, "Create chat completion" and "Streaming events".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chimera.core.errors import ModelTooLong
from chimera.llm.chat import ChatMessage, ChatRequest, ChatResponse
from chimera.llm.openai_wire import Pieces, Without, finish_of, strict, text_of, tool_calls
from chimera.llm.remote import MAX_RESPONSE_BYTES, Remote, count


class ChatCompletions:
    """The interface `api="chat"`. Nothing is left to a server's defaults but what it refuses to be told."""

    def body(self, model: str, request: ChatRequest, without: Without) -> dict[str, Any]:
        limit = "max_completion_tokens" if "max_tokens" in without else "max_tokens"
        body: dict[str, Any] = {
            "model": model,
            "messages": [_message(message) for message in request.told()],
            limit: request.max_tokens,
        }
        if "temperature" not in without:
            body["temperature"] = request.temperature
        if request.seed is not None and "seed" not in without:
            body["seed"] = request.seed
        if request.tools:
            body["tools"] = [{"type": "function", "function": tool.model_dump(mode="json")} for tool in request.tools]
        if request.answer is not None:
            enforced = None if "strict" in without else strict(request.answer)
            schema = {"name": "answer", "schema": enforced or request.answer, "strict": enforced is not None}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def read(self, body: Mapping[str, Any], remote: Remote) -> ChatResponse:
        choice = body["choices"][0]
        message = choice["message"]
        if not message.keys() & {"content", "refusal", "tool_calls"}:
            raise LookupError("content")
        refusal = text_of(message.get("refusal"))
        calls = tool_calls(
            ((call.get("id"), call["function"]["name"], call["function"].get("arguments")) for call in _list(message)),
            remote,
        )
        usage, why = body.get("usage"), choice.get("finish_reason")
        return ChatResponse(
            text=text_of(message.get("content")) or refusal,
            calls=calls,
            tokens_in=count(usage, "prompt_tokens"),
            tokens_out=count(usage, "completion_tokens"),
            tokens_cached=count(usage, "prompt_tokens_details", "cached_tokens"),
            finish=finish_of(cut=why == "length", refused=bool(refusal) or why == "content_filter", calls=calls),
            model=remote.clean(str(body.get("model") or "")),
            provider=remote.name,
        )

    def pieces(self) -> Pieces:
        return _ChatPieces()


class _ChatPieces:
    def __init__(self) -> None:
        self.failure: Mapping[str, Any] | None = None
        self._told: dict[str, list[str]] = {"content": [], "refusal": []}
        self._calls: dict[int, dict[str, list[str]]] = {}
        self._head: dict[str, Any] = {}
        self._finish: Any = None
        self._size = 0

    def add(self, event: Mapping[str, Any]) -> str:
        if event.get("error"):
            error = event["error"]
            self.failure = error if isinstance(error, dict) else {"message": str(error)}
            return ""
        self._head |= {name: event[name] for name in ("model", "usage") if event.get(name)}
        if not event.get("choices"):
            return ""  # the last one has only the usage
        choice = event["choices"][0]
        self._finish = choice.get("finish_reason") or self._finish
        delta = choice.get("delta") or {}
        for call in _list(delta):
            place = call.get("index", len(self._calls))
            parts = self._calls.setdefault(int(place), {"id": [], "name": [], "arguments": []})
            function = call.get("function") or {}
            for name, part in (("id", call.get("id")), *((n, function.get(n)) for n in ("name", "arguments"))):
                self._keep(parts[name], part)
        for name, parts_ in self._told.items():
            self._keep(parts_, delta.get(name))
        return text_of(delta.get("content")) or text_of(delta.get("refusal"))

    def whole(self) -> Mapping[str, Any] | None:
        if self._finish is None:
            return None
        calls = [
            {"id": "".join(call["id"]), "function": {name: "".join(call[name]) for name in ("name", "arguments")}}
            for _, call in sorted(self._calls.items())
        ]
        message = {name: "".join(parts) for name, parts in self._told.items()} | {"tool_calls": calls}
        return {**self._head, "choices": [{"message": message, "finish_reason": self._finish}]}

    def _keep(self, parts: list[str], part: Any) -> None:
        if part:
            self._size += len(part)
            if self._size > MAX_RESPONSE_BYTES:
                raise ModelTooLong(f"the answer has more than {MAX_RESPONSE_BYTES} characters")
            parts.append(part)


def _message(message: ChatMessage) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        told["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in message.calls
        ]
    if message.call_id is not None:
        told["tool_call_id"] = message.call_id
    return told


def _list(message: Mapping[str, Any]) -> list[Any]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise TypeError("tool_calls that are no list")
    return calls
