"""An answer as a pydantic model, from any model that can write JSON, whether its server enforces a schema or not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from chimera.core.errors import InputError, ModelError, ModelRefused, ModelUnauthorized
from chimera.llm.chat import ChatMessage, ChatModel, ChatRequest, ChatResponse, answer_of

M = TypeVar("M", bound=BaseModel)

MAX_REPAIRS = 10

MAX_OBJECTS = 32
"""That are looked for in one answer."""

MAX_READ_CHARS = 1_000_000
MAX_SHOWN_CHARS = 20_000
"""Of a wrong answer, when it is shown to the model again."""

MAX_FAULTS = 10
"""That are told of one answer."""

_DECODER = json.JSONDecoder()


async def ask(model: ChatModel, request: ChatRequest, answer: type[M], *, repairs: int = 1) -> tuple[M, ChatResponse]:
    """What the model answers, as an `answer`; and its last reply, with the tokens and the cost of all that it took.

    The schema goes to the server as `request.answer`, and to the model in words, because many servers ignore the one.
    A model that refuses a schema is asked without. A wrong answer is shown to the model with what is wrong, up to
    `repairs` times (0 to 10). Raises ModelError if no answer fits or the model will not answer, InputError for a
    request with tools, and what `chat` raises.
    """
    if request.tools or not 0 <= repairs <= MAX_REPAIRS:
        raise InputError(f"ask for an answer without tools, with 0 to {MAX_REPAIRS} repairs")
    schema = answer_of(answer)
    told = request.model_copy(update={"messages": _with_schema(request.messages, schema), "answer": schema})
    asked = told
    taken: list[ChatResponse] = []
    for _ in range(repairs + 1):
        try:
            response = await model.chat(asked)
        except ModelUnauthorized:
            raise
        except ModelRefused:
            if asked.answer is None:
                raise
            told, asked = (one.model_copy(update={"answer": None}) for one in (told, asked))
            response = await model.chat(asked)
        taken.append(response)
        if response.finish == "refusal":
            raise ModelError(f"{model.name} will not answer: {response.text[:200]!r}")
        found = _read(response.text, answer)
        if isinstance(found, BaseModel):
            return found, _summed(taken)
        wrong = f"it was cut off after {request.max_tokens} tokens" if response.finish == "length" else found
        asked = told.model_copy(update={"messages": (*told.messages, *_complaint(response.text, wrong))})
    raise ModelError(
        f"{model.name} gave no {answer.__name__} in {len(taken)} answers; of the last one, {wrong[:1_000]}"
    )


def _with_schema(messages: tuple[ChatMessage, ...], schema: dict[str, object]) -> tuple[ChatMessage, ...]:
    """The messages, with the schema at the end of what the user said last."""
    asked = f"Answer with one JSON object that fits this JSON schema, and with nothing else:\n{json.dumps(schema)}"
    last = messages[-1]
    if last.role != "user":
        return (*messages, ChatMessage(role="user", content=asked))
    return (*messages[:-1], last.model_copy(update={"content": f"{last.content}\n\n{asked}"}))


def _complaint(text: str, wrong: str) -> tuple[ChatMessage, ChatMessage]:
    again = f"That answer cannot be used: {wrong}\nAnswer again with the whole JSON object, and with nothing else."
    shown = text[:MAX_SHOWN_CHARS] or "(nothing)"
    return ChatMessage(role="assistant", content=shown), ChatMessage(role="user", content=again)


def _read(text: str, answer: type[M]) -> M | str:
    """The first object in it that fits; else what is wrong with the first one there is."""
    wrong = ""
    for found in _objects(text):
        try:
            return answer.model_validate_json(found)
        except ValidationError as error:
            wrong = wrong or _faults(error)
    return wrong or "there is no JSON object in it"


def _objects(text: str) -> Iterator[str]:
    """The JSON objects in a text, in their order: all of it, in a fence, among words, after thoughts."""
    text = text.rpartition("</think>")[2][:MAX_READ_CHARS]
    place = 0
    for _ in range(MAX_OBJECTS):
        place = text.find("{", place)
        if place < 0:
            return
        try:
            _, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        yield text[place:end]
        place = end


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'the object'}: {fault['msg'][:200]}" for fault in faults[:MAX_FAULTS]
    )


def _summed(taken: list[ChatResponse]) -> ChatResponse:
    costs = [one.cost_usd for one in taken]
    counts = ("tokens_in", "tokens_out", "tokens_cached", "tokens_stored")
    return taken[-1].model_copy(
        update={
            **{name: sum(getattr(one, name) for one in taken) for name in counts},
            "cost_usd": None if None in costs else sum(cost for cost in costs if cost is not None),
        }
    )
