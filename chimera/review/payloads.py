"""What may stand in a queue: JSON of a bounded size, and edits that can take the place of what was proposed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pydantic import JsonValue

from chimera.core.errors import InputError
from chimera.core.hashing import canonical_json
from chimera.review.types import MAX_PAYLOAD_BYTES, Proposal

EditCheck: TypeAlias = Callable[[Proposal, JsonValue], None]
"""Raises InputError unless the payload can stand for the proposal's."""


def same_shape(proposal: Proposal, payload: JsonValue) -> None:
    """Raises InputError unless `payload` has the JSON type of what was proposed, and an object its fields and types."""
    before = proposal.payload
    if type(before) is not type(payload):
        raise InputError(f"the edited payload must be {_type(before)}, as the proposed one; it is {_type(payload)}")
    if not isinstance(before, dict) or not isinstance(payload, dict):
        return
    if before.keys() != payload.keys():
        other = ", ".join(sorted(before.keys() ^ payload.keys()))
        raise InputError(f"the edited payload must have the fields of the proposed one; these differ: {other:.300}")
    for name, value in before.items():
        if value is not None and payload[name] is not None and _type(value) != _type(payload[name]):
            raise InputError(f"{name:.100} must be {_type(value)}; it is {_type(payload[name])}")


def _type(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"


def check_json(value: JsonValue, what: str) -> None:
    """Raises InputError for what no journal takes, before it shares an append with others."""
    try:
        size = len(canonical_json(value).encode())
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{what} has no JSON form: {error}") from None
    if size > MAX_PAYLOAD_BYTES:
        raise InputError(
            f"{what} has {size:,} bytes; {MAX_PAYLOAD_BYTES:,} may be: keep it elsewhere, and name it here"
        )
