"""Models made from values that are known to be good."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

from chimera.core.types import Frozen

M = TypeVar("M", bound=Frozen)

_set = object.__setattr__


@cache
def _names(model: type[Frozen]) -> set[str]:
    return set(model.model_fields)


def known(model: type[M], **fields: object) -> M:
    """A `model` of `fields`, all of them and each as its check would leave it: for hot paths, where pydantic's own
    `model_construct` takes as long as a check. Nothing is checked or copied."""
    made = model.__new__(model)
    _set(made, "__dict__", fields)
    _set(made, "__pydantic_fields_set__", _names(model))
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made
