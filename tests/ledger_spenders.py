"""A process of spenders who share nothing but the database: `python -m tests.ledger_spenders URL CFO_URL NAME SHARE`.

Each of eight moves SHARE requests of one billionth in each of two currencies, half of them through the adapter and half
as whoever has psql. What came of it is printed: how many were written, and why others were not.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import psycopg

from chimera.treasury.ledger import Ledger, LedgerRole
from chimera.treasury.postgres import PostgresLedger
from chimera.treasury.types import PaymentRequest
from tests.ledger_house import NEVER, decision, reason, transfer
from tests.ledgers import verify

SPENDERS = 8
FUNDS = {"USD": ("cash", "model"), "EUR": ("euros", "paris")}
MOVE = "INSERT INTO chimera_treasury.transfer (id, kind, request_id, amount, expires_at) VALUES (%s, %s, %s, %s, %s)"


async def adapted(ledger: Ledger, request: PaymentRequest) -> str:
    (outcome,) = await ledger.write([transfer(request)])
    return str(reason(outcome) or "written")


async def raw(connection: psycopg.AsyncConnection, request: PaymentRequest) -> str:
    row = transfer(request)
    try:
        await connection.execute(MOVE, [row.id, row.kind.value, row.request_id, row.amount, row.expires_at])
    except psycopg.Error as error:
        return str(error).split(":")[0]
    return "written"


async def spend(url: str, requests: list[PaymentRequest], found: Counter[str]) -> None:
    ledger = PostgresLedger(url=url, role=LedgerRole.APP, verify=verify)
    for request in requests:
        found[f"{request.currency} {await adapted(ledger, request)}"] += 1
    await ledger.close()


async def spend_raw(url: str, requests: list[PaymentRequest], found: Counter[str]) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for request in requests:
            found[f"{request.currency} {await raw(connection, request)}"] += 1


def asked(name: str, currency: str) -> PaymentRequest:
    debit, credit = FUNDS[currency]
    told = {"debit": debit, "credit": credit, "currency": currency, "id": f"{name}-{currency}", "amount": 1}
    return PaymentRequest(category="any", requester="worker-1", expires_at=NEVER, **told)


async def main(url: str, cfo_url: str, name: str, share: int) -> None:
    app = PostgresLedger(url=url, role=LedgerRole.APP, verify=verify)
    cfo = PostgresLedger(url=cfo_url, role=LedgerRole.CFO, verify=verify)
    lots = [
        [asked(f"{name}-{spender}-{i}", currency) for i in range(share) for currency in FUNDS]
        for spender in range(SPENDERS)
    ]
    for lot in lots:
        assert not any(map(reason, await app.write(lot)))
        assert not any(map(reason, await cfo.write([decision(request) for request in lot])))
    await app.close()
    await cfo.close()
    found: Counter[str] = Counter()
    await asyncio.gather(*((spend_raw if i % 2 else spend)(url, lot, found) for i, lot in enumerate(lots)))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
