"""The treasury over HTTP, before a vault that runs: who may what, what is paid once, and what nobody gets past."""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.api.money import in_units, units
from chimera.api.services import Services
from chimera.core.config import Settings
from chimera.security.manager import LOCAL
from chimera.security.roles import Permission, Role, allowed
from chimera.system.treasury import Treasury
from chimera.treasury.keys import FileKey, approve
from chimera.treasury.types import MAX_AMOUNT, NANO, PaymentRequest, nano
from chimera.treasury.vault.home import VaultHome, init
from chimera.treasury.vault.process import start_vault
from tests.api.asks import ASKS, NO_PAYMENT
from tests.api.whole import PASSWORD, Api, opened

SETTINGS = """
people: {{ann: {{ann-1: {ann}}}}}
accounts:
  - {{id: cash, kind: fund}}
  - {{id: bank, kind: outside}}
  - {{id: acme, kind: outside, title: Acme Ltd.}}
  - {{id: globex, kind: outside}}
  - {{id: initech, kind: outside}}
{accounts}policy: {{ask_at: 1.0, refuse_at: 1.0}}
"""
"""A house in which a person is asked above 50 USD, and risk decides nothing."""

TREASURY = [name for name in ASKS if "/api/treasury" in name]


class House:
    """A treasury's folder, and the key of ann, who signs."""

    def __init__(self, accounts: str = "") -> None:
        self.home = Path(tempfile.mkdtemp(prefix="cht"))  # short: a socket's path has at most 107 bytes
        self.ann = FileKey.create(self.home / "keys" / "ann", "ann-1")
        self.place: VaultHome = asyncio.run(init(self.home))
        self.place.config.write_text(SETTINGS.format(ann=self.ann.public.hex(), accounts=accounts))


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """With a vault that runs, and money."""
    made = House()
    vault = start_vault(made.home, end_with_me=True)
    asyncio.run(_fill(made))
    yield made
    vault.stop()
    shutil.rmtree(made.home)


async def _fill(house: House) -> None:
    async with Treasury(Settings(home=house.home)) as treasury:
        filled = await treasury.pay(debit="bank", credit="cash", amount=5_000, category="income", requester="owner")
        assert filled.state == "paid"


@pytest.fixture
async def api(tmp_path: Path, house: House) -> AsyncIterator[Api]:
    async with asking(tmp_path / "node", house) as made:
        yield made


@asynccontextmanager
async def asking(folder: Path, house: House) -> AsyncIterator[Api]:
    """A node that asks the house's vault; ann is one of its administrators."""
    async with Treasury(Settings(home=house.home)) as treasury:

        def change(services: Services) -> None:
            services.treasury = treasury

        async with opened(folder, change=change) as api:
            await api.node.security.create_user("ann", PASSWORD, Role.ADMIN, by=LOCAL)
            yield api


async def pay(
    api: Api, amount: Any = "1.50", user: Role | str = Role.OPERATOR, key: str = "", **more: Any
) -> httpx2.Response:
    body = {"debit": "cash", "credit": "acme", "amount": amount, "category": "hosting", **more}
    headers = {"Idempotency-Key": key} if key else {}
    return await api.ask("POST", "/api/treasury/payments", user, json=body, headers=headers)


async def waits(api: Api, user: Role | str = Role.OPERATOR, **more: Any) -> str:
    """The id of a payment that a person has to approve."""
    made = await pay(api, "60", user, **more)
    assert (made.status_code, made.json()["state"]) == (201, "waiting"), made.text
    return str(made.json()["id"])


async def answer(api: Api, request_id: str, user: Role | str, what: str = "approve", **body: Any) -> httpx2.Response:
    return await api.ask("POST", f"/api/treasury/payments/{request_id}/{what}", user, json=body)


async def said(api: Api, request_id: str) -> dict[str, Any]:
    told: dict[str, Any] = (await api.ask("GET", f"/api/treasury/payments/{request_id}", Role.OBSERVER)).json()
    return told


async def spent(api: Api) -> int:
    told = (await api.ask("GET", "/api/treasury", Role.OBSERVER)).json()
    return 5_000 * NANO - nano(next(each["posted"] for each in told["accounts"] if each["id"] == "cash"))


async def test_a_payment_is_made_in_the_callers_name_and_seen(api: Api) -> None:
    before = await spent(api)
    made = await pay(api, "12.5", reason="The mail server.", mission="m-1")
    told = made.json()
    assert (made.status_code, told["state"], told["amount"], told["moved"]) == (201, "paid", "12.50", "12.50")
    assert (told["requester"], told["verdict"], told["approvals"]) == ("operator", "approved", [])
    assert await said(api, told["id"]) == told
    assert await spent(api) - before == nano("12.5")
    status = (await api.ask("GET", "/api/treasury", Role.OBSERVER)).json()
    assert status["stopped"] is None
    assert {cap["window"]: cap["limit"] for cap in status["caps"]}["last_day"] == "1000.00"
    assert [each["title"] for each in status["accounts"] if each["id"] == "acme"] == ["Acme Ltd."]
    entries = (await api.ask("GET", "/api/treasury/entries?limit=3", Role.OBSERVER)).json()["items"]
    assert entries[0]["line"] == f"{told['id']}: 12.50 is paid" and entries[0]["row"]["amount"] == "12.50"
    assert entries[2]["line"] == f"operator asks for 12.50 USD from cash to acme ({told['id']})"
    forged = await pay(api, requester="ann")
    assert forged.status_code == 422


async def test_roles_do_what_they_may(api: Api) -> None:
    asked = {
        Permission.TREASURY_READ: ("GET", "/api/treasury", None, 200),
        Permission.TREASURY_PAY: ("POST", "/api/treasury/payments", "pay", 201),
        Permission.TREASURY_APPROVE: ("POST", f"/api/treasury/payments/{NO_PAYMENT}/approve", {}, 404),
        Permission.TREASURY_STOP: ("POST", "/api/treasury/stop", {"why": ""}, 422),
    }
    body = ASKS["POST /api/treasury/payments"].body(api.node, "")
    for role in Role:
        for need, (method, path, sent, good) in asked.items():
            told = await api.ask(method, path, role, json=body if sent == "pay" else sent)
            assert told.status_code == (good if allowed(role, need) else 403), (role, need)
    may = {role: {need.split(":")[1] for need in asked if allowed(role, need)} for role in Role}
    assert may == {
        Role.ADMIN: {"read", "pay", "approve", "stop"},
        Role.OPERATOR: {"read", "pay", "stop"},
        Role.OBSERVER: {"read"},
        Role.NODE: set(),
        Role.API_CLIENT: set(),
    }


async def test_a_program_pays_by_a_key_that_is_for_that_and_for_nothing_else(api: Api) -> None:
    key = await api.node.key(Role.OPERATOR, scopes=frozenset({Permission.TREASURY_PAY}))
    bearing = {"authorization": f"Bearer {key}"}
    body = ASKS["POST /api/treasury/payments"].body(api.node, "")
    paid = await api.ask("POST", "/api/treasury/payments", json=body, headers=bearing)
    assert (paid.status_code, paid.json()["requester"]) == (201, "operator")
    assert (await api.ask("POST", "/api/treasury/stop", json={"why": "x"}, headers=bearing)).status_code == 403


NO_AMOUNTS = (
    *("1e3", "-1", "+1", "NaN", "Infinity", "0", "0.0", "", " 1", "1,5", "1_0", "0.0000000001", "1000000000", "\u0661"),
    *(12.5, 7, None, True, ["1"]),
)


async def test_what_is_no_amount_is_refused(api: Api) -> None:
    before = await spent(api)
    assert {str(amount): (await pay(api, amount)).status_code for amount in NO_AMOUNTS} == {
        str(amount): 422 for amount in NO_AMOUNTS
    }
    assert await spent(api) == before


async def test_nobody_approves_what_they_have_asked_for(api: Api) -> None:
    request_id = await waits(api, Role.ADMIN)
    own = await answer(api, request_id, Role.ADMIN)
    assert own.status_code == 403 and "nobody approves what they asked for" in own.json()["detail"]
    key = await api.node.key(Role.ADMIN)
    by_key = await api.ask(
        "POST",
        f"/api/treasury/payments/{request_id}/approve",
        json={},
        headers={"authorization": f"Bearer {key}"},
    )
    assert by_key.status_code == 403
    assert (await said(api, request_id))["approvals"] == []


async def test_what_a_person_refuses_is_not_paid_and_the_same_answer_again_is_fine(api: Api) -> None:
    request_id, before = await waits(api), await spent(api)
    listed = (await api.ask("GET", "/api/treasury/payments?state=waiting", Role.OBSERVER)).json()["items"]
    assert request_id in [each["id"] for each in listed]
    for _ in range(2):
        told = await answer(api, request_id, Role.ADMIN, "refuse")
        assert (told.status_code, told.json()["state"]) == (200, "refused")
    other = await answer(api, request_id, Role.ADMIN)
    assert other.status_code == 400 and "admin has refused it" in other.json()["detail"]
    assert await spent(api) == before
    listed = (await api.ask("GET", "/api/treasury/payments", Role.OBSERVER)).json()["items"]
    assert request_id not in [each["id"] for each in listed]


async def test_who_approved_what_is_written_down_before_it_is_done(api: Api) -> None:
    request_id = await waits(api, credit="globex")
    told = await answer(api, request_id, Role.ADMIN)
    assert (told.status_code, told.json()["state"]) == (200, "paid")
    assert [(each["approver"], each["signed"]) for each in told.json()["approvals"]] == [("admin", False)]
    [entry] = [each for each in api.node.audit.entries if each.action == "approve payment"]
    assert (entry.actor, entry.resource) == ("admin", request_id)
    told_of = [entry.detail[name] for name in ("amount", "payee", "requester")]
    assert told_of == ["60.00 USD", "globex", "operator"]
    other = await waits(api, credit="globex")

    def full(*_: Any) -> None:
        raise OSError("no space left")

    api.node.audit.append = full  # type: ignore[method-assign,assignment]
    assert (await answer(api, other, Role.ADMIN)).status_code == 500
    assert (await said(api, other))["approvals"] == []


async def test_who_has_a_key_signs_with_it_and_only_for_that_payment(api: Api, house: House) -> None:
    request_id, other = await waits(api), await waits(api)
    unsigned = await answer(api, request_id, "ann")
    assert unsigned.status_code == 403 and "signs with it" in unsigned.json()["detail"]
    shown = await said(api, request_id)
    fields = {name: shown[name] for name in PaymentRequest.model_fields} | {"amount": nano(shown["amount"])}
    request = PaymentRequest.model_validate(fields)
    assert request.digest() == shown["digest"], "whoever signs needs to believe nobody about what they sign"
    at = int(api.node.clock.now() * 1_000_000)
    word = approve(request, approver="ann", key=house.ann, at=at, expires_at=at + 60_000_000)
    signed = word.model_dump(include={"key_id", "signature", "at", "expires_at"})
    for path, what, user, body in (
        (other, "approve", "ann", signed),
        (request_id, "refuse", "ann", signed),
        (request_id, "approve", Role.ADMIN, signed),
        (request_id, "approve", "ann", {**signed, "expires_at": at + 60_000_001}),
    ):
        assert (await answer(api, path, user, what, **body)).status_code == 403, (what, user)
    assert (await answer(api, request_id, "ann", signature=word.signature)).status_code == 422
    assert (await said(api, request_id))["approvals"] == []
    told = await answer(api, request_id, "ann", **signed)
    assert (told.status_code, told.json()["state"]) == (200, "paid")
    assert [(each["approver"], each["signed"]) for each in told.json()["approvals"]] == [("ann", True)]


async def test_a_key_or_an_id_that_is_sent_again_pays_once(api: Api) -> None:
    before = await spent(api)
    first, again = [await pay(api, "2", key="invoice-7") for _ in range(2)]
    assert first.json() == again.json() and again.headers["Idempotent-Replayed"] == "true"
    assert (await pay(api, "3", key="invoice-7")).status_code == 422
    api.node.clock.ahead_s = 3 * 86_400.0  # the answer is forgotten, and the payment is not
    late = await pay(api, "2", key="invoice-7")
    assert late.json()["id"] == first.json()["id"] and "Idempotent-Replayed" not in late.headers
    named = [await pay(api, "2", request_id="invoice:8") for _ in range(2)]
    assert [each.json()["id"] for each in named] == ["invoice:8"] * 2
    assert (await pay(api, "2", Role.ADMIN, request_id="invoice:8")).status_code == 400
    other = await pay(api, "2", Role.ADMIN, key="invoice-7")
    assert other.json()["id"] != first.json()["id"], "another's key is another payment"
    assert await spent(api) - before == nano("6")


async def test_what_the_ledger_cannot_file_says_why(api: Api) -> None:
    unknown = await pay(api, credit="nobody")
    assert unknown.status_code == 400 and "there is no such credit account" in unknown.json()["detail"]
    assert (await pay(api, request_id="costs/swarm-1")).status_code == 422, "such names are the house's own"
    assert (await pay(api, reason="two\nlines")).status_code == 422


NO_IDS = (NO_PAYMENT, "none", "..%2F..%2Fvault", "%00", "a%0ab", "'%20or%201=1", "x" * 97, "\u0663", "")


async def test_no_id_leads_anywhere(api: Api) -> None:
    for request_id in NO_IDS:
        for method, path in (("GET", ""), ("POST", "/approve"), ("POST", "/refuse")):
            told = await api.ask(method, f"/api/treasury/payments/{request_id}{path}", Role.ADMIN, json={})
            assert told.status_code in (404, 405, 422) or (request_id, path) == ("", ""), (request_id, path)


async def test_a_payment_of_the_houses_own_is_seen_and_approved(api: Api) -> None:
    treasury = api.node.services.treasury
    assert treasury is not None
    filed = await treasury.pay(
        debit="cash", credit="initech", amount=70, category="any", requester="cfo", request_id="costs/s-1/7"
    )
    assert filed.state == "waiting"
    assert (await said(api, "costs/s-1/7"))["amount"] == "70.00"
    assert (await answer(api, "costs%2Fs-1%2F7", Role.ADMIN)).json()["state"] == "paid"


async def test_all_spending_stops_until_who_may_approve_starts_it_again(api: Api) -> None:
    why = "<b>twice</b>"
    told = await api.ask("POST", "/api/treasury/stop", Role.OPERATOR, json={"why": why})
    assert (told.status_code, told.json()["stopped"]["why"], told.json()["stopped"]["by"]) == (200, why, "operator")
    refused = (await pay(api)).json()
    assert refused["state"] == "refused" and "stopped" in refused["why"]
    assert (await api.ask("POST", "/api/treasury/resume", Role.OPERATOR)).status_code == 403
    for _ in range(2):
        again = await api.ask("POST", "/api/treasury/resume", Role.ADMIN)
        assert (again.status_code, again.json()) == (200, {"stopped": None})
    entries = (await api.ask("GET", "/api/treasury/entries", Role.OBSERVER)).json()["items"]
    assert [each["line"] for each in entries if each["table"] == "stop"][:2] == [
        "admin starts spending again",
        f"operator stops all spending: {why}",
    ]
    assert (await pay(api)).json()["state"] == "paid"


async def test_a_month_is_told_in_sums_and_in_lines(api: Api) -> None:
    await pay(api, "1.25", credit="initech", reason="=cmd()")
    month = f"{datetime.now(UTC):%Y-%m}"
    told = (await api.ask("GET", f"/api/treasury/statement/{month}", Role.OBSERVER)).json()
    cash = next(each for each in told["accounts"] if each["account"] == "cash")
    assert nano(cash["closing"]) == nano(cash["opening"]) + nano(cash["moved_in"]) - nano(cash["moved_out"])
    assert cash["moved_in"] == "5000.00" and "transfers" not in told
    assert isinstance(told["by_category"][0]["amount"], str) and isinstance(told["by_category"][0]["transfers"], int)
    accept = {"accept": "text/csv"}
    lines = await api.ask("GET", f"/api/treasury/statement/{month}", Role.OBSERVER, headers=accept)
    assert lines.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(lines.text)))
    assert len(rows) == told["transfer_count"] and rows[-1]["amount"] == "1.250000000"
    assert rows[-1]["reason"] == "'=cmd()", "no spreadsheet runs it"
    assert (await api.ask("GET", "/api/treasury/statement/2999-01", Role.OBSERVER)).status_code == 400
    assert (await api.ask("GET", "/api/treasury/statement/november", Role.OBSERVER)).status_code == 422


async def test_a_tenants_caller_sees_and_does_nothing(api: Api) -> None:
    await api.node.security.create_user("red", PASSWORD, Role.ADMIN, by=LOCAL, tenant="red")
    request_id, before = await waits(api), await spent(api)
    answers = set()
    for name in TREASURY:
        method, path = name.split()
        path = (ASKS[name].path or path).replace(NO_PAYMENT, request_id)
        told = await api.ask(method, path, "red", json=ASKS[name].body(api.node, ""))
        answers.add((told.status_code, told.text))
    assert {status for status, _ in answers} == {404} and len(answers) == 1
    assert (await said(api, request_id))["state"] == "waiting" and await spent(api) == before


async def test_a_node_without_a_treasury_says_so(api: Api, tmp_path: Path) -> None:
    for without in (None, Treasury(Settings(home=tmp_path))):
        api.node.services.treasury = without
        for name in TREASURY:
            method, path = name.split()
            told = await api.ask(method, ASKS[name].path or path, Role.ADMIN, json=ASKS[name].body(api.node, ""))
            assert told.status_code == 501, name


async def test_a_vault_that_ends_in_between_is_found_again_and_pays_once(tmp_path: Path) -> None:
    house = await asyncio.to_thread(House)
    async with asking(tmp_path / "node", house) as api:
        down = await api.ask("GET", "/api/treasury", Role.OBSERVER)
        assert down.status_code == 503 and int(down.headers["Retry-After"]) >= 1
        assert str(house.home) not in down.text
        vault = await asyncio.to_thread(start_vault, house.home, end_with_me=True)
        try:
            assert (await pay(api, "500", debit="bank", credit="cash")).json()["state"] == "paid"
            before = await spent(api)
            await asyncio.to_thread(vault.kill)
            looked, paid = await asyncio.gather(
                api.ask("GET", "/api/treasury", Role.OBSERVER), pay(api, "2", key="invoice-9")
            )
            assert (looked.status_code, paid.status_code) == (503, 503) and "Retry-After" in paid.headers
            vault = await asyncio.to_thread(start_vault, house.home, end_with_me=True)
            again = await pay(api, "2", key="invoice-9")
            assert (again.status_code, again.json()["state"]) == (201, "paid")
            assert await spent(api) - before == nano("2")
        finally:
            await asyncio.to_thread(vault.stop)
            await asyncio.to_thread(shutil.rmtree, house.home)


@given(st.integers(-MAX_AMOUNT, MAX_AMOUNT))
def test_an_amount_that_is_told_is_the_amount(amount: int) -> None:
    assert nano(units(amount)) == amount


def test_only_amounts_are_told_in_units() -> None:
    told = in_units({"amount": 1, "at": 1, "by_day": [NANO], "by_category": {"at": NANO}, "cap": {"limit": 5 * NANO}})
    assert told == {
        "amount": "0.000000001",
        "at": 1,
        "by_day": ["1.00"],
        "by_category": {"at": "1.00"},
        "cap": {"limit": "5.00"},
    }
    assert in_units({"by_category": [{"amount": NANO, "transfers": 3}]}) == {
        "by_category": [{"amount": "1.00", "transfers": 3}]
    }
