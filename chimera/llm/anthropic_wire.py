"""The Messages interface of Anthropic, as data: a request made of ours, a response of ours made of what came. Pure.

Source: Anthropic's API reference, "Messages", version 2026-10-21. It takes neither a temperature nor a seed (400), so
those of a request are not sent.
"""

from __future__ import annotations

import json
from typing import Any

from chimera.core.errors import ModelRefused, ModelTooLong
from chimera.llm.chat import MAX_TOOLS, ChatMessage, ChatRequest, ChatResponse, ToolCall
from chimera.llm.remote import MAX_RESPONSE_BYTES, Remote, arguments_of, characters, count

ANSWER_TOOL = "chimera_answer"
"""The tool that a model has to use for an answer with a schema."""

FINISHES = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "calls",
    "refusal": "refusal",
}
"""Every other reason is that it had said all."""

SPOKEN = {"text": "text", "tool_use": "input"}
"""The blocks that come in parts, and what the parts are of."""

STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What an error in the middle of a stream would have had for a status; any other 500."""


def asked(request: ChatRequest, model: str) -> dict[str, Any]:
    """The body of a request. Raises ModelRefused if there is nothing in it to answer."""
    messages = request.told()
    turns = _turns([message for message in messages if message.role != "system"])
    if not turns:
        raise ModelRefused("there is no message with any text in it, besides the system's")
    body: dict[str, Any] = {"model": model, "max_tokens": request.max_tokens, "messages": turns}
    if system := "\n\n".join(message.content for message in messages if message.role == "system" and message.content):
        body["system"] = system
    tools = [_tool(tool.name, tool.description, tool.parameters) for tool in request.tools]
    if request.answer is not None:
        if any(tool.name == ANSWER_TOOL for tool in request.tools):
            raise ModelRefused(f"no tool may be called {ANSWER_TOOL}, as answers with a schema are given by it")
        choice = {"type": "any"} if tools else {"type": "tool", "name": ANSWER_TOOL}
        body["tool_choice"] = {**choice, "disable_parallel_tool_use": True}
        tools.append(_tool(ANSWER_TOOL, "Give your whole answer with this tool.", request.answer))
    if tools:
        body["tools"] = tools
    return body


def _tool(name: str, description: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "description": description, "input_schema": schema}


def _turns(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """Users' and assistants' turns one after the other: those of one role in a row are one. Empty texts are refused
    there, so they are left out."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks: list[dict[str, Any]] = []
        if message.role == "tool":
            blocks.append({"type": "tool_result", "tool_use_id": message.call_id, "content": message.content})
        elif message.content.strip():
            blocks.append({"type": "text", "text": message.content})
        blocks += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in message.calls
        ]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def answered(body: Any, remote: Remote, request_id: str | None) -> ChatResponse:
    """The response that `body` is. Raises LookupError, TypeError, AttributeError or ValueError where it is none.

    Cached tokens are counted as taken in. A block's `input` may be the text of its JSON, as streams bring it.
    """
    text, answer, calls = "", None, []
    finish = FINISHES.get(str(body["stop_reason"]), "stop")
    for block in body["content"]:
        if block["type"] == "text":
            text += block["text"]
        elif block["type"] == "tool_use" and block["name"] == ANSWER_TOOL:
            given = block["input"]
            answer = answer or (given if isinstance(given, str) else json.dumps(given, ensure_ascii=False))
        elif block["type"] == "tool_use":
            call = _call(block, cut_off=finish == "length")
            calls += [call] if call else []
            if len(calls) > MAX_TOOLS:
                raise ValueError("too many calls of tools")
    if finish == "calls" and not calls:
        finish = "stop"  # it was the answer that it called
    usage = body.get("usage")
    kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return ChatResponse.model_validate(
        {
            "text": characters(text if answer is None else answer),
            "calls": tuple(calls),
            "tokens_in": sum(count(usage, kind) for kind in kinds),
            "tokens_out": count(usage, "output_tokens"),
            "tokens_cached": count(usage, "cache_read_input_tokens"),
            "tokens_stored": count(usage, "cache_creation_input_tokens"),
            "finish": finish,
            "model": remote.clean(str(body.get("model") or "")),
            "provider": remote.name,
            "request_id": request_id,
        }
    )


def _call(block: dict[str, Any], *, cut_off: bool) -> ToolCall | None:
    """None for one whose arguments were cut off in the middle."""
    try:
        arguments = arguments_of(block["input"])
    except ValueError:
        if cut_off:
            return None
        raise
    return ToolCall(id=block["id"], name=block["name"], arguments=arguments)


class Growing:
    """A response as the events of a stream make it: `take` each, and at the end `body` is as if it had come whole."""

    def __init__(self, *, answer: bool) -> None:
        self._answer = answer
        self._blocks: dict[int, dict[str, Any]] = {}
        self._parts: dict[int, list[str]] = {}
        """Of each block's text, or of its tool's input: joined at the end, for adding each to the last takes ages."""
        self._size = 0
        self._answers_at: int | None = None
        self.body: dict[str, Any] = {"content": [], "stop_reason": None, "usage": {}}
        self.ended = False

    def take(self, event: Any) -> str:
        """The text that this event adds to the answer. Raises as `answered` does for what is no event."""
        match event["type"]:
            case "message_start":
                self.body["model"] = event["message"].get("model")
                self.body["usage"].update(event["message"].get("usage") or {})
            case "content_block_start":
                return self._begin(event["index"], event["content_block"])
            case "content_block_delta":
                return self._add(event["index"], event["delta"])
            case "message_delta":
                self.body["stop_reason"] = event["delta"].get("stop_reason")
                self.body["usage"].update(event.get("usage") or {})
            case "message_stop":
                for index, block in self._blocks.items():
                    if block["type"] in SPOKEN:
                        block[SPOKEN[block["type"]]] = "".join(self._parts[index])
                self.body["content"] = list(self._blocks.values())
                self.ended = True
        return ""

    def _begin(self, index: int, given: dict[str, Any]) -> str:
        block = self._blocks[index] = dict(given)
        self._parts[index] = []
        if block["type"] == "tool_use" and block["name"] == ANSWER_TOOL and self._answers_at is None:
            self._answers_at = index
        text = self._keep(index, block["text"]) if block["type"] == "text" else ""
        return "" if self._answer else text

    def _add(self, index: int, delta: dict[str, Any]) -> str:
        if delta["type"] == "text_delta":
            text = self._keep(index, delta["text"])
            return "" if self._answer else text
        if delta["type"] == "input_json_delta":
            text = self._keep(index, delta["partial_json"])
            return text if index == self._answers_at else ""
        return ""  # thinking, citations

    def _keep(self, index: int, part: Any) -> str:
        if not isinstance(part, str):
            raise TypeError("a part that is no text")
        self._size += len(part)
        if self._size > MAX_RESPONSE_BYTES:
            raise ModelTooLong(f"the answer has more than {MAX_RESPONSE_BYTES} characters")
        self._parts[index].append(part)
        return part
