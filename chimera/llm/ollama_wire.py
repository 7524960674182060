"""Ollama's native interface, as data: a request made of ours, a response of ours made of what came. Pure.

Source: Ollama's documentation, docs/api.md, "Generate a chat completion" and "Generate embeddings".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from chimera.core.errors import ModelRefused
from chimera.llm.chat import MAX_TOOLS, ChatMessage, ChatRequest, ChatResponse, Embeddings, ToolCall
from chimera.llm.remote import Remote, arguments_of, characters, count


def asked(request: ChatRequest, model: str, num_ctx: int, *, stream: bool) -> dict[str, Any]:
    """The body of a chat. Raises ModelRefused for tools beside a schema, of which Ollama would drop one.

    `truncate` and `shift` off make it say when a prompt or an answer does not fit; servers before 0.12 ignore them.
    """
    if request.tools and request.answer is not None:
        raise ModelRefused("Ollama takes tools or the schema of an answer, not both in one request")
    options: dict[str, Any] = {
        "num_ctx": num_ctx,
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
    }
    if request.seed is not None:
        options["seed"] = request.seed
    messages = _messages(request.told())
    body = {"model": model, "messages": messages, "stream": stream, "truncate": False, "shift": False}
    body["options"] = options
    if request.tools:
        body["tools"] = [
            {"type": "function", "function": tool.model_dump(include={"name", "description", "parameters"})}
            for tool in request.tools
        ]
    if request.answer is not None:
        body["format"] = request.answer
    return body


def _messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Ollama knows an answer to a call by the tool's name."""
    names = {call.id: call.name for message in messages for call in message.calls}
    told: list[dict[str, Any]] = []
    for message in messages:
        said: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.calls:
            said["tool_calls"] = [
                {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}} for call in message.calls
            ]
        if message.call_id is not None:
            said |= {"tool_name": names.get(message.call_id, ""), "tool_call_id": message.call_id}
        told.append(said)
    return told


def embedded(body: Any, texts: int, remote: Remote) -> Embeddings:
    """The vectors that `body` has. Raises LookupError, TypeError or ValueError where it has not one for each text."""
    vectors = body["embeddings"]
    if len(vectors) != texts:
        raise ValueError(f"{len(vectors)} vectors for {texts} texts")
    numbers = tuple(tuple(float(number) for number in vector) for vector in vectors)
    if not all(math.isfinite(number) for vector in numbers for number in vector):
        raise ValueError("a vector with a number that is none")
    return Embeddings(
        vectors=numbers,
        tokens_in=count(body, "prompt_eval_count"),
        cost_usd=0.0,
        model=remote.clean(str(body.get("model") or "")),
        provider=remote.name,
    )


class Growing:
    """A response as its parts make it: `take` each (a whole answer is one part), and at the end ask for `response`."""

    def __init__(self, request: ChatRequest, num_ctx: int, remote: Remote) -> None:
        self._num_ctx = num_ctx
        self._remote = remote
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._asked_before = sum(len(message.calls) for message in request.messages)
        self._last: dict[str, Any] = {}

    @property
    def ended(self) -> bool:
        return bool(self._last)

    def take(self, body: Any) -> str:
        """The text that this part adds. Raises LookupError, TypeError, AttributeError or ValueError for no part."""
        message = body["message"]
        text = characters(message.get("content") or "")
        self._texts.append(text)
        for call in message.get("tool_calls") or ():
            self._calls.append(self._call(call))
            if len(self._calls) > MAX_TOOLS:
                raise ValueError("too many calls of tools")
        if body.get("done") is True:
            self._last = body
        return text

    def _call(self, given: dict[str, Any]) -> ToolCall:
        """Older servers give calls no id, so one is made, that no other of this conversation has."""
        function = given["function"]
        return ToolCall(
            id=given.get("id") or f"call_{self._asked_before + len(self._calls)}",
            name=function["name"],
            arguments=arguments_of(function.get("arguments") or {}),
        )

    def response(self) -> ChatResponse:
        """The whole. Raises ModelRefused when the server's own count shows that the prompt did not fit."""
        tokens_in = count(self._last, "prompt_eval_count")
        if tokens_in >= self._num_ctx:
            raise ModelRefused(
                f"{self._remote.name}: the prompt filled all {self._num_ctx} tokens of the model's window, so some "
                "of it was cut off; say less, or raise num_ctx"
            )
        cut_off = self._last.get("done_reason") == "length"
        return ChatResponse(
            text="".join(self._texts),
            calls=tuple(self._calls),
            tokens_in=tokens_in,
            tokens_out=count(self._last, "eval_count"),
            cost_usd=0.0,
            finish="length" if cut_off else "calls" if self._calls else "stop",
            model=self._remote.clean(str(self._last.get("model") or "")),
            provider=self._remote.name,
        )
