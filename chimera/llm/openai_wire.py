"""What both of OpenAI's interfaces share: tool calls as they travel, strict schemas, what a server does not support."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from chimera.core.errors import ModelError
from chimera.llm.chat import MAX_TOOLS, ChatRequest, ChatResponse, ToolCall
from chimera.llm.remote import Remote, arguments_of, characters

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What reading an answer raises that has not the shape it should have."""

REFUSED = {
    "temperature": "temperature",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "stream_options": "stream_options",
    "response_format": "strict",
    "text.format.schema": "strict",
    "text.format": "strict",
}
"""Parameters that some models do not take, and the word here for going without."""

Without = frozenset[str]

Finish = Literal["stop", "length", "calls", "refusal"]


class Pieces(Protocol):
    """An answer that comes piece by piece."""

    def add(self, event: Mapping[str, Any]) -> str:
        """The text in it. Raises one of UNREADABLE for what is no event."""
        ...

    @property
    def failure(self) -> Mapping[str, Any] | None:
        """The error that the server ended with."""
        ...

    def whole(self) -> Mapping[str, Any] | None:
        """The answer as it would have come at once; None if it has not come to its end."""
        ...


class Wire(Protocol):
    """One of OpenAI's interfaces, without its transport."""

    def body(self, model: str, request: ChatRequest, without: Without) -> dict[str, Any]:
        """What is sent."""
        ...

    def read(self, body: Mapping[str, Any], remote: Remote) -> ChatResponse:
        """What came. Raises ModelError for a tool call that is none, one of UNREADABLE for anything else."""
        ...

    def pieces(self) -> Pieces: ...


def unsupported(text: str) -> Without:
    """What the body of a 400 says that the model cannot do, as words of REFUSED; empty for any other complaint."""
    try:
        param = json.loads(text)["error"]["param"]
        return frozenset({REFUSED[param]})
    except UNREADABLE:
        return frozenset()


def tool_calls(named: Iterable[tuple[Any, Any, Any]], remote: Remote) -> tuple[ToolCall, ...]:
    """From ids, names and arguments, which are JSON text. Raises ModelError for what is no call of a tool."""
    calls: list[ToolCall] = []
    for id_, name, arguments in named:
        if len(calls) == MAX_TOOLS:
            raise ModelError(f"{remote.name} asked for more than {MAX_TOOLS} tools at once")
        try:
            given = arguments_of({} if arguments is None else arguments)
            calls.append(ToolCall(id=id_ or f"call_{len(calls)}", name=name, arguments=given))
        except (ValidationError, ValueError, TypeError, RecursionError):
            said = remote.clean(f"{name}({arguments})")
            raise ModelError(f"{remote.name} asked for a tool with arguments that are no JSON object: {said}") from None
    return tuple(calls)


def finish_of(*, cut: bool, refused: bool, calls: object) -> Finish:
    """Why an answer ended; that it was cut off goes first."""
    if cut:
        return "length"
    if refused:
        return "refusal"
    return "calls" if calls else "stop"


def text_of(content: Any) -> str:
    """A text that may be absent. Raises TypeError for anything else."""
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content that is no text: {type(content).__name__}")
    return characters(content or "")


KEPT = frozenset(
    "type enum const description pattern format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf "
    "minItems maxItems minLength maxLength".split()
)
"""Keywords that a strict schema may have as they are."""

DROPPED = frozenset({"title", "default", "examples"})
"""That say nothing about which answers fit."""


def strict(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema in the form that OpenAI enforces, which asks for every property; None where it does not fit.

    What fits it fits `schema` too. Source: OpenAI's guide, "Structured model outputs", "Supported schemas".
    """
    try:
        made = _strict(schema)
    except (LookupError, TypeError, AttributeError, RecursionError):
        return None
    return made if made.get("type") == "object" else None


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Raises LookupError for a keyword that does not fit."""
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}  # no other keyword may stand beside it
    made: dict[str, Any] = {}
    for word, value in schema.items():
        if word in KEPT:
            made[word] = value
        elif word in ("properties", "$defs"):
            made[word] = {name: _strict(inner) for name, inner in value.items()}
        elif word == "anyOf":
            made[word] = [_strict(inner) for inner in value]
        elif word == "items":
            made[word] = _strict(value)
        elif word not in DROPPED and word != "required" and not (word == "additionalProperties" and value is False):
            raise LookupError(word)
    if made.get("type") == "object":
        made |= {"required": list(made["properties"]), "additionalProperties": False}
    elif not made.keys() & {"type", "enum", "const", "anyOf"}:
        raise LookupError("anything at all")
    return made
