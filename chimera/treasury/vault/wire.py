"""What goes over a socket of the vault: frames, each four bytes of length and so much JSON.

A call is `{"id": 7, "call": "account", "with": ["cash"]}`; its answer has the same id, and `answer` or `error`. Whoever
is at the other end is not believed: what is read is bounded, and checked by the same models as everywhere.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from chimera.core import errors
from chimera.core.errors import ChimeraError, InputError, LedgerError, WireError
from chimera.core.types import Frozen
from chimera.treasury.ledger import MAX_BATCH, Head, Row, Stop
from chimera.treasury.signer import MAX_PROPOSALS, Proposal
from chimera.treasury.types import (
    Account,
    Approval,
    Balance,
    Cap,
    CapUse,
    CfoDecision,
    Outcome,
    PaymentRequest,
    Refused,
    Rules,
    Transfer,
    Written,
)

MAX_FRAME = 4_000_000
"""Bytes of one call or answer."""
FRAME_S = 30.0
"""By then a frame that has begun has come, or gone: one that stays half would hold its connection for ever."""
HEADER = 4
MAX_TEXT = 2_000
"""Characters of an error that are passed on."""

Text = Annotated[str, Field(max_length=1_000)]
Number = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]


class PublicKeys(Frozen):
    """Public keys in hex, by key id: what a `Keyring` is made of elsewhere."""

    cfo: dict[str, str]
    people: dict[str, dict[str, str]]


def _row_kind(row: Any) -> str:
    """By the columns that only such a row has. One that is none of them fails as whatever it is taken for."""
    if not isinstance(row, Mapping):
        return type(row).__name__
    for field, kind in (
        ("debit", PaymentRequest),
        ("risk", CfoDecision),
        ("approver", Approval),
        ("request_id", Transfer),
    ):
        if field in row:
            return kind.__name__
    return Account.__name__


def _outcome_kind(outcome: Any) -> str:
    if isinstance(outcome, Mapping):
        return Refused.__name__ if "reason" in outcome else Written.__name__
    return type(outcome).__name__


_ROW = Annotated[
    Annotated[Account, Tag("Account")]
    | Annotated[PaymentRequest, Tag("PaymentRequest")]
    | Annotated[CfoDecision, Tag("CfoDecision")]
    | Annotated[Approval, Tag("Approval")]
    | Annotated[Transfer, Tag("Transfer")],
    Discriminator(_row_kind),
]
_WORD = Annotated[
    Annotated[CfoDecision, Tag("CfoDecision")] | Annotated[Approval, Tag("Approval")],
    Discriminator(_row_kind),
]
_OUTCOME = Annotated[
    Annotated[Written, Tag("Written")] | Annotated[Refused, Tag("Refused")],
    Discriminator(_outcome_kind),
]

FORMS: Mapping[str, tuple[Any, Any]] = {
    "write": (tuple[Annotated[list[_ROW], Field(max_length=MAX_BATCH)]], list[_OUTCOME]),
    "account": (tuple[Text], Account | None),
    "request": (tuple[Text], PaymentRequest | None),
    "decisions": (tuple[Text], list[_WORD]),
    "transfers": (tuple[Text], list[Transfer]),
    "balance": (tuple[Text], Balance),
    "waiting": (tuple[Text, Number], list[PaymentRequest]),
    "caps": (tuple[()], list[CapUse]),
    "set_cap": (tuple[Cap], _OUTCOME),
    "set_rules": (tuple[Rules], _OUTCOME),
    "stop": (tuple[Text, Text], None),
    "resume": (tuple[Text], None),
    "stopped": (tuple[()], Stop | None),
    "head": (tuple[()], Head),
    "rows": (tuple[Number, Number], list[tuple[int, str, dict[str, str | int], str]]),
    "decide": (tuple[Annotated[list[Proposal], Field(max_length=MAX_PROPOSALS)]], list[_OUTCOME]),
    "public_keys": (tuple[()], PublicKeys),
}
"""Each call: what it is called with, and what it answers."""


_ERRORS = {
    name: each for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, ChimeraError)
}


class Ask(Frozen):
    """A call as it comes in."""

    id: Annotated[int, Field(ge=0, lt=2**53)]
    call: Annotated[str, Field(max_length=32)]
    with_: Annotated[list[Any], Field(alias="with", max_length=4)]


@cache
def arguments(call: str) -> TypeAdapter[Any]:
    """What a call is called with. Raises InputError where there is no such call."""
    return TypeAdapter(_form(call)[0])


@cache
def answers(call: str) -> TypeAdapter[Any]:
    return TypeAdapter(_form(call)[1])


def _form(call: str) -> tuple[Any, Any]:
    if call not in FORMS:
        raise InputError(f"the vault has no call {call!r:.40}: it knows {', '.join(FORMS)}")
    return FORMS[call]


def asking(number: int, call: str, values: tuple[Any, ...]) -> bytes:
    """The frame of a call. Raises InputError for one that is too large."""
    frame = b'{"id":%d,"call":"%s","with":%s}' % (number, call.encode(), arguments(call).dump_json(values))
    if len(frame) > MAX_FRAME:
        raise InputError(f"{len(frame)} bytes are too many at once: the vault takes {MAX_FRAME}; write fewer rows")
    return frame


def asked(frame: bytes) -> Ask:
    """Raises WireError."""
    try:
        return Ask.model_validate(from_json(frame, allow_inf_nan=False))
    except (ValueError, RecursionError) as error:
        raise WireError(f"this is no call to the vault: {error!s:.300}") from None


def called(ask: Ask) -> tuple[Any, ...]:
    """What it is called with. Raises InputError."""
    try:
        found: tuple[Any, ...] = arguments(ask.call).validate_python(ask.with_)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{ask.call}: {where:.200}: {first['msg']:.300}") from None
    return found


def answering(number: int, call: str, answer: Any) -> bytes:
    """The frame of an answer; of as many of the rows as fit. Raises LedgerError for another that is too large."""
    while True:
        frame = b'{"id":%d,"answer":%s}' % (number, answers(call).dump_json(answer, warnings="error"))
        if len(frame) <= MAX_FRAME:
            return frame
        if call not in ("rows", "waiting") or len(answer) < 2:
            raise LedgerError(f"the answer to {call} has {len(frame)} bytes, and {MAX_FRAME} are passed on at most")
        answer = answer[: len(answer) // 2]


def failing(number: int, error: ChimeraError) -> bytes:
    """The frame of an error."""
    told = [each[:MAX_TEXT] if isinstance(each, str) else each for each in error.args]
    try:
        return to_json({"id": number, "error": {"kind": type(error).__name__, "args": told}})
    except ValueError:
        return to_json({"id": number, "error": {"kind": "LedgerError", "args": [ascii(str(error))[:MAX_TEXT]]}})


def answered(frame: bytes) -> tuple[int, Any, ChimeraError | None]:
    """The call's number, and its answer as plain data, or its error. Raises WireError."""
    try:
        told = json.loads(frame)
        number, error = int(told["id"]), told.get("error")
        return number, told.get("answer"), None if error is None else _error(str(error["kind"]), error["args"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WireError(f"this is no answer of the vault: {error!s:.300}") from None


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame; None when the other end has closed. Raises WireError; TimeoutError for one that stays half."""
    try:
        header = await reader.readexactly(1)
        async with asyncio.timeout(FRAME_S):
            header += await reader.readexactly(HEADER - 1)
            size = int.from_bytes(header)
            if size > MAX_FRAME:
                raise WireError(f"a frame of {size} bytes is too large: {MAX_FRAME} are taken")
            return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(HEADER) + frame


def _error(kind: str, told: list[Any]) -> ChimeraError:
    found: Callable[..., ChimeraError] | None = _ERRORS.get(kind)
    if found is not None:
        return found(*(tuple(each) if isinstance(each, list) else each for each in told))
    return LedgerError(str(told[0]) if told else kind)


assert set(Row.__args__) == {Account, PaymentRequest, CfoDecision, Approval, Transfer}  # a row that is new needs a tag
assert set(Outcome.__args__) == {Written, Refused}
