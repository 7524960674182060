"""Answers as pydantic models: found in whatever stands around them, and asked for again when they are wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator

from chimera.core.errors import InputError, ModelError, ModelOutage, ModelRefused, ModelUnauthorized
from chimera.core.types import Frozen
from chimera.llm.chat import ChatMessage, ChatModel, ChatRequest, ChatResponse, ToolSpec, answer_of
from chimera.llm.models import open_model
from chimera.llm.structured import ask
from tests.llm_server import LlmServer

GOOD = '{"city": "Bern", "people": 134}'


class City(Frozen):
    city: str
    people: int

    @field_validator("people")
    @classmethod
    def _some(cls, people: int) -> int:
        if people < 1:
            raise ValueError("nobody lives there")
        return people


class Scripted(ChatModel):
    """Says what it is told to say, and keeps what it was asked."""

    name = "scripted"
    writes = True

    def __init__(self, *said: str | ChatResponse | Exception) -> None:
        self.said = list(said)
        self.requests: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> ChatResponse:
        self.requests.append(request)
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        return (
            said if isinstance(said, ChatResponse) else ChatResponse(text=said, tokens_in=3, tokens_out=2, cost_usd=0.5)
        )


ASKED = ChatRequest(
    messages=(ChatMessage(role="system", content="be short"), ChatMessage(role="user", content="where?"))
)


async def test_the_schema_is_told_in_words_and_to_the_server() -> None:
    model = Scripted(GOOD)
    city, response = await ask(model, ASKED, City)
    assert (city, response.text) == (City(city="Bern", people=134), GOOD)
    [request] = model.requests
    assert request.answer == answer_of(City)
    assert request.messages[0] == ASKED.messages[0] and len(request.messages) == 2
    assert (
        request.messages[1].content.startswith("where?\n")
        and json.dumps(answer_of(City)) in request.messages[1].content
    )


@pytest.mark.parametrize(
    "text",
    [
        f"Here you are:\n```json\n{GOOD}\n```\nAnything else?",
        f"  {GOOD}  ",
        f'As {{asked}}: {{"city": 7}} was wrong, so {GOOD}',
        f'<think>maybe {{"city": "Basel", "people": 1}}</think>{GOOD}',
        "{" * 5 + GOOD,
    ],
)
async def test_it_is_found_in_what_a_model_says_around_it(text: str) -> None:
    assert (await ask(Scripted(text), ASKED, City, repairs=0))[0] == City(city="Bern", people=134)


@given(before=st.text(st.characters(exclude_characters="{<"), max_size=50), after=st.text(max_size=50), city=st.text())
async def test_it_is_found_behind_any_words(before: str, after: str, city: str) -> None:
    text = before + json.dumps({"city": city, "people": 1}) + after.replace("</think>", "")
    assert (await ask(Scripted(text), ASKED, City, repairs=0))[0].city == city


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ('{"city": "Bern", "people": "many"}', ["people", "valid integer"]),
        ('{"city": "Bern", "people": 0}', ["nobody lives there"]),
        ('{"city": "Bern", "people": 1, "x": 1}', ["x", "Extra"]),
        ("I do not know.", ["no JSON object"]),
        ("", ["no JSON object"]),
        ('{"city": "B', ["no JSON object"]),
    ],
)
async def test_a_wrong_answer_is_shown_with_what_is_wrong(wrong: str, told: Sequence[str]) -> None:
    model = Scripted(wrong, GOOD)
    city, response = await ask(model, ASKED, City)
    assert city.people == 134
    assert (response.tokens_in, response.tokens_out, response.cost_usd) == (6, 4, 1.0)
    first, second = model.requests
    *same, shown, complaint = second.messages
    assert tuple(same) == first.messages and second.answer == first.answer
    assert (shown.role, complaint.role) == ("assistant", "user") and shown.content == (wrong or "(nothing)")
    assert all(words in complaint.content for words in told)


async def test_an_unknown_cost_stays_unknown() -> None:
    _, response = await ask(Scripted("no", ChatResponse(text=GOOD)), ASKED, City)
    assert response.cost_usd is None


async def test_one_that_was_cut_off_is_told_so() -> None:
    model = Scripted(ChatResponse(text='{"city": "B', finish="length"), GOOD)
    await ask(model, ASKED.model_copy(update={"max_tokens": 9}), City)
    assert "cut off after 9 tokens" in model.requests[1].messages[-1].content


@pytest.mark.parametrize("repairs", [0, 2])
async def test_it_is_asked_so_often_and_then_it_is_an_error(repairs: int) -> None:
    model = Scripted(*["{}"] * 9)
    with pytest.raises(ModelError, match=f"scripted gave no City in {repairs + 1} answers.*Field required") as caught:
        await ask(model, ASKED, City, repairs=repairs)
    assert type(caught.value) is ModelError
    assert [len(request.messages) for request in model.requests] == [2, 4, 4][: repairs + 1]


async def test_an_answer_that_is_all_braces_is_given_up() -> None:
    with pytest.raises(ModelError, match="no JSON object"):
        await ask(Scripted('{"a":' * 200_000), ASKED, City, repairs=0)


async def test_no_more_is_read_than_fits_and_no_more_is_shown_again() -> None:
    model = Scripted("x" * 1_000_000 + GOOD, GOOD)
    await ask(model, ASKED, City)
    assert model.requests[1].messages[-2].content == "x" * 20_000


async def test_an_object_within_another_is_no_answer() -> None:
    with pytest.raises(ModelError, match="city: Field required"):
        await ask(Scripted(f'{{"answer": {GOOD}}}'), ASKED, City, repairs=0)


async def test_one_that_refuses_later_is_not_asked_the_same_twice() -> None:
    model = Scripted(ModelRefused("no schema"), "no", ModelRefused("too long"), GOOD)
    with pytest.raises(ModelRefused, match="too long"):
        await ask(model, ASKED, City)
    assert len(model.requests) == 3


async def test_a_refusal_is_not_asked_about_again() -> None:
    model = Scripted(ChatResponse(text="I must not.", finish="refusal"), GOOD)
    with pytest.raises(ModelError, match=r"will not answer: 'I must not\.'"):
        await ask(model, ASKED, City)
    assert len(model.requests) == 1


async def test_one_that_knows_no_schemas_is_asked_in_words_only() -> None:
    model = Scripted(ModelRefused("no schema"), "no", GOOD)
    assert (await ask(model, ASKED, City))[0].city == "Bern"
    assert [request.answer is None for request in model.requests] == [False, True, True]
    assert all("JSON schema" in request.messages[1].content for request in model.requests)


@pytest.mark.parametrize(
    ("errors", "asked"),
    [
        ([ModelUnauthorized("key")], 1),
        ([ModelOutage("gone")], 1),
        ([ModelRefused("too long"), ModelRefused("too long")], 2),
    ],
)
async def test_what_a_model_raises_is_raised(errors: list[ModelError], asked: int) -> None:
    model = Scripted(*errors, GOOD)
    with pytest.raises(type(errors[0])):
        await ask(model, ASKED, City)
    assert len(model.requests) == asked


@pytest.mark.parametrize("repairs", [-1, 11])
async def test_repairs_are_bounded(repairs: int) -> None:
    with pytest.raises(InputError, match="0 to 10 repairs"):
        await ask(Scripted(GOOD), ASKED, City, repairs=repairs)


async def test_tools_do_not_go_with_it() -> None:
    with pytest.raises(InputError, match="without tools"):
        await ask(Scripted(GOOD), ASKED.model_copy(update={"tools": (ToolSpec(name="t"),)}), City)


async def test_over_a_real_connection_a_server_that_ignores_the_schema_mends_its_answer() -> None:
    said = iter(["Bern.", f"```json\n{GOOD}\n```"])
    with LlmServer(lambda body: next(said)) as server:
        async with open_model(f"compatible:m@{server.url}") as model:
            city, response = await ask(model, ASKED, City)
        assert city.people == 134 and response.tokens_in == 22
        assert [message["role"] for message in server.requests[1]["messages"]] == [
            "system",
            "user",
            "assistant",
            "user",
        ]
        assert server.requests[0]["response_format"]["json_schema"]["strict"] is True


async def test_a_function_answers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "city_function.py").write_text(
        f"def answer(prompt): return {GOOD!r} if 'JSON schema' in prompt else ''"
    )
    monkeypatch.syspath_prepend(tmp_path)
    async with open_model("python:city_function:answer") as model:
        assert (await ask(model, ASKED, City))[0].city == "Bern"
