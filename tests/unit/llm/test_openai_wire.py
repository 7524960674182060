"""A schema in OpenAI's strict form: what fits it fits the schema, and what cannot be put so is not."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from chimera.core.types import Frozen
from chimera.llm.chat import answer_of
from chimera.llm.openai_wire import strict


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(Frozen):
    kind: Literal["leaf"] = "leaf"
    colour: Colour = Field(default=Colour.RED, description="of it")


class Branch(Frozen):
    title: str = Field(min_length=1)
    leaves: tuple[Leaf, ...] = ()
    branches: tuple[Branch, ...] = ()


class Tree(Frozen):
    """A tree."""

    trunk: Branch
    name: str | None = None
    weight: float = Field(default=1.0, ge=0)


class Open(BaseModel):
    words: dict[str, int]


class Fixed(Frozen):
    pair: tuple[int, str]


class Anything(Frozen):
    value: Any


def objects(schema: Any) -> list[dict[str, Any]]:
    """All schemas of objects in it."""
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    found = [schema] if isinstance(schema, dict) and schema.get("type") == "object" else []
    return found + [one for part in inner for one in objects(part)]


def test_every_object_asks_for_all_it_has_and_for_nothing_else() -> None:
    made = strict(answer_of(Tree))
    assert made is not None
    found = objects(made)
    assert sorted(sorted(one["properties"]) for one in found) == [
        ["branches", "leaves", "title"],
        ["colour", "kind"],
        ["name", "trunk", "weight"],
    ]
    for one in found:
        assert one["required"] == list(one["properties"]) and one["additionalProperties"] is False
    assert "default" not in json.dumps(made)


def test_what_fits_it_is_an_answer() -> None:
    made = strict(answer_of(Tree))
    assert made is not None
    leaf = {"kind": "leaf", "colour": "blue"}
    twig = {"title": "twig", "leaves": [leaf], "branches": []}
    value = {"trunk": {"title": "trunk", "leaves": [], "branches": [twig]}, "name": None, "weight": 2.5}
    jsonschema.validate(value, made)
    assert Tree.model_validate_json(json.dumps(value)).trunk.branches[0].leaves[0].colour is Colour.BLUE
    for less in ({**value, "weight": -1}, {**value, "x": 1}, {"trunk": value["trunk"], "weight": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(less, made)


@pytest.mark.parametrize("model", [Open, Fixed, Anything, Branch])
def test_what_cannot_be_enforced_is_not(model: type[BaseModel]) -> None:
    assert strict(answer_of(model)) is None


@pytest.mark.parametrize(
    "schema", [{}, {"type": "object"}, {"type": "array", "items": {"type": "string"}}, {"not": {}}]
)
def test_a_schema_of_no_certain_object_is_none(schema: dict[str, Any]) -> None:
    assert strict(schema) is None
