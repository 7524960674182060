"""The ledger's rows as the databases hold them, and back (pure): one spelling for each, so that hashes compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from pydantic import ValidationError

from chimera.core.types import Frozen
from chimera.treasury.chain import COLUMNS
from chimera.treasury.ledger import Row
from chimera.treasury.types import (
    MAX_AMOUNT,
    Account,
    Approval,
    Cap,
    CfoDecision,
    Id,
    Line,
    PaymentRequest,
    Rules,
    Signed,
    Transfer,
    Window,
)

Columns = Mapping[str, str | int]


class Switch(Frozen):
    """Spending is stopped, or goes on again: why, and who said so."""

    action: Literal["stop", "resume"]
    why: Line
    by: Id


AnyRow = Row | Cap | Rules | Switch
"""What a table of the ledger holds."""


def columns(row: AnyRow) -> tuple[str, dict[str, str | int]]:
    """The table of a row, and its columns there, in the order of `COLUMNS`."""
    match row:
        case Account():
            return "account", {"id": row.id, "kind": str(row.kind), "currency": row.currency, "title": row.title}
        case PaymentRequest():
            told: dict[str, str | int] = {**row.model_dump(), "digest": row.digest()}
            return "request", {name: told[name] for name in COLUMNS["request"]}
        case CfoDecision():
            return "decision", {"request_id": row.request_id, "verdict": row.verdict, **_signed(row)}
        case Approval():
            said = {"request_id": row.request_id, "approver": row.approver, "verdict": row.verdict}
            return "approval", {**said, "expires_at": row.expires_at, **_signed(row)}
        case Transfer():
            moved: dict[str, str | int] = {**row.model_dump(), "kind": str(row.kind)}
            return "transfer", {name: moved[name] for name in COLUMNS["transfer"]}
        case Cap():
            which = {"account": row.account, "currency": row.currency, "period": str(row.window)}
            return "cap", {**which, "most": row.limit}
        case Rules():
            return "rule", {"currency": row.currency, "ask_over": row.ask_over, "dual_over": row.dual_over}
        case Switch():
            return "stop", {"action": row.action, "why": row.why, "by_whom": row.by}


def parse(table: str, told: Columns) -> AnyRow:
    """The row that has these columns (any others are passed over). Raises ValueError if there can be none."""
    try:
        own = {name: told[name] for name in COLUMNS[table]}
        row = _parse(table, own)
    except (KeyError, TypeError, RecursionError, ValidationError) as error:
        raise ValueError(f"no {table} can be read from these columns: {error}") from None
    if columns(row)[1] != own:
        raise ValueError(f"this {table} says one thing in its columns and another in what is signed")
    return row


def word(table: str, payload: str, signature: str) -> CfoDecision | Approval:
    """The decision or approval that was signed. Raises ValueError if there is none."""
    told = json.loads(payload)
    if not isinstance(told, dict):
        raise ValueError("what is signed is a JSON object")
    told.pop("chimera", None)
    kind = CfoDecision if table == "decision" else Approval
    return kind.model_validate({**told, "signature": signature})


def _signed(row: Signed) -> dict[str, str | int]:
    return {"key_id": row.key_id, "payload": row.payload().decode(), "signature": row.signature}


def _parse(table: str, own: Columns) -> AnyRow:
    match table:
        case "account":
            return Account.model_validate(own)
        case "request":
            return PaymentRequest.model_validate({name: own[name] for name in own if name != "digest"})
        case "decision" | "approval":
            return word(table, str(own["payload"]), str(own["signature"]))
        case "transfer":
            return Transfer.model_validate(own)
        case "cap":
            window = Window(str(own["period"]))
            return Cap.model_validate(
                {"account": own["account"], "currency": own["currency"], "window": window, "limit": own["most"]}
            )
        case "rule":
            if not all(
                type(own[name]) is int and 0 <= int(own[name]) <= MAX_AMOUNT for name in ("ask_over", "dual_over")
            ):
                raise ValueError("a limit is a whole number of billionths, and not below zero")
            # The currency's spelling is a cap's: rules leave it open.
            Cap.model_validate({"currency": own["currency"], "window": Window.DAY, "limit": 0})
            return Rules.model_validate(own)
        case _:
            return Switch.model_validate({"action": own["action"], "why": own["why"], "by": own["by_whom"]})
