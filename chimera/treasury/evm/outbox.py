"""What the payer has done for each payment, in a file of its own: each step is durable before the next is taken.

So whoever comes after a crash knows which of the Safe's nonces a payment has, what was signed, and what may have been
sent: it sends the same again, and never another.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from chimera.core.errors import StorageError
from chimera.core.types import Frozen
from chimera.storage.sqlite_file import Layout, boundary, open_file, transaction
from chimera.treasury.evm.fate import Fate
from chimera.treasury.evm.types import Count, Envelope, SafeSignature, SafeTx, Sealed
from chimera.treasury.types import Id, PaymentRequest

BUSY_TIMEOUT_S = 5.0


class Planned(Frozen):
    """This is what the Safe shall do for a request. `since` is the newest block at that moment."""

    kind: Literal["planned"] = "planned"
    request: PaymentRequest
    tx: SafeTx
    since: Count


class Agreed(Frozen):
    """All owners have signed it: from now on anybody who sees the signatures can have it executed."""

    kind: Literal["agreed"] = "agreed"
    signatures: tuple[SafeSignature, ...]


class GasAsked(Frozen):
    """So much more is to be set aside for gas, under this request, when the newest block was `at`."""

    kind: Literal["gas_asked"] = "gas_asked"
    request: PaymentRequest
    at: Count


class GasAnswered(Frozen):
    """Whether it was set aside."""

    kind: Literal["gas_answered"] = "gas_answered"
    id: Id
    granted: bool


class Carried(Frozen):
    """This transaction is sent from now on, when the newest block was `at`."""

    kind: Literal["carried"] = "carried"
    envelope: Envelope
    sealed: Sealed
    at: Count


class Settled(Frozen):
    """What became of it on the chain, and has been told to the ledger; `why` if the ledger would not have it."""

    kind: Literal["settled"] = "settled"
    fate: Fate
    why: str = ""


class Closed(Frozen):
    """Nothing of it is left to do. Its gas cost so many wei; `why` if it was never signed."""

    kind: Literal["closed"] = "closed"
    cost: Annotated[int, Field(ge=0)] = 0
    why: str = ""


Fact = Planned | Agreed | GasAsked | GasAnswered | Carried | Settled | Closed
_FACT: TypeAdapter[Fact] = TypeAdapter(Annotated[Fact, Field(discriminator="kind")])


@dataclass
class Sent:
    """A payment, as its facts make it."""

    request: PaymentRequest
    tx: SafeTx
    since: int
    signatures: tuple[SafeSignature, ...] = ()
    gas: dict[str, GasAsked] = field(default_factory=dict)
    granted: dict[str, bool] = field(default_factory=dict)
    carriers: list[Carried] = field(default_factory=list)
    fate: Fate | None = None
    closed: Closed | None = None
    why: str = ""
    waits_for: str = ""
    """For people; it is not kept."""
    taken_at: int | None = None
    """Since which block its nonce seems to be another's; not kept either."""

    @property
    def reserved(self) -> int:
        """Billionths that are set aside for gas."""
        return sum(self.gas[key].request.amount for key, granted in self.granted.items() if granted)

    def take(self, fact: Fact) -> None:
        match fact:
            case Planned():
                raise StorageError(f"{self.request.id} was planned twice: the outbox is damaged")
            case Agreed():
                self.signatures = fact.signatures
            case GasAsked():
                self.gas[fact.request.id] = fact
            case GasAnswered():
                self.granted[fact.id] = fact.granted
            case Carried():
                self.carriers.append(fact)
            case Settled():
                self.fate, self.why = fact.fate, fact.why
            case Closed():
                self.closed, self.why = fact, self.why or fact.why


def _first(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE fact (seq INTEGER PRIMARY KEY, request_id TEXT NOT NULL, kind TEXT NOT NULL, told TEXT NOT NULL)"
        " STRICT"
    )
    connection.execute("CREATE INDEX fact_of ON fact (request_id, seq)")
    connection.execute("CREATE UNIQUE INDEX fact_once ON fact (request_id, kind) WHERE kind IN ('planned', 'closed')")
    for verb in ("UPDATE", "DELETE"):
        connection.execute(
            f"CREATE TRIGGER fact_{verb.lower()} BEFORE {verb} ON fact"
            " BEGIN SELECT RAISE(ABORT, 'what was done stays done'); END"
        )


LAYOUT = Layout(what="outbox", application_id=0x43484F42, upgrades=(_first,))
OPEN = (
    "SELECT told, request_id FROM fact WHERE request_id NOT IN (SELECT request_id FROM fact WHERE kind = 'closed')"
    " ORDER BY seq"
)


class Outbox:
    """In the SQLite file at `path`, which one payer has at a time.

    Raises StorageError if another has it, or where it cannot be read or written: then nothing more is done.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StorageError(f"{path}: another payer has this outbox: there is one for a relayer's account") from None
        self._connection = open_file(path, LAYOUT, BUSY_TIMEOUT_S)
        self._open = self._fold(OPEN)

    def open(self) -> list[Sent]:
        """Payments that have something left to do, by the Safe's nonce."""
        return sorted(self._open.values(), key=lambda each: (each.tx.nonce, each.since))

    def find(self, request_id: str) -> Sent | None:
        """A payment, also one that is closed."""
        if request_id in self._open:
            return self._open[request_id]
        sql = "SELECT told, request_id FROM fact WHERE request_id = ? ORDER BY seq"
        return self._fold(sql, request_id).get(request_id)

    async def plan(self, request: PaymentRequest, tx: SafeTx, since: int) -> Sent:
        """A new payment. Raises StorageError if there is one of this request."""
        fact = Planned(request=request, tx=tx, since=since)
        await asyncio.to_thread(self._insert, request.id, fact)
        sent = self._open[request.id] = Sent(request, tx, since)
        return sent

    async def record(self, sent: Sent, fact: Fact) -> None:
        """It is durable when this returns."""
        await asyncio.to_thread(self._insert, sent.request.id, fact)
        sent.take(fact)
        if sent.closed:
            self._open.pop(sent.request.id, None)

    def close(self) -> None:
        """Another payer may have it from now on. Twice is fine."""
        self._connection.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _insert(self, request_id: str, fact: Fact) -> None:
        with boundary(self._path, LAYOUT.what), transaction(self._connection):
            self._connection.execute(
                "INSERT INTO fact (request_id, kind, told) VALUES (?, ?, ?)",
                (request_id, fact.kind, fact.model_dump_json()),
            )

    def _fold(self, sql: str, *values: str | int) -> dict[str, Sent]:
        with boundary(self._path, LAYOUT.what):
            rows = self._connection.execute(sql, values).fetchall()
        return _folded((key, _FACT.validate_json(told)) for told, key in rows)


def _folded(facts: Iterable[tuple[str, Fact]]) -> dict[str, Sent]:
    found: dict[str, Sent] = {}
    for request_id, fact in facts:
        if isinstance(fact, Planned) and request_id not in found:
            found[request_id] = Sent(fact.request, fact.tx, fact.since)
        else:
            found[request_id].take(fact)
    return found
