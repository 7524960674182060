"""What the CFO's key signs, and what is tried to have it sign something else: over the sockets, with real keys."""

from __future__ import annotations

import pytest

from chimera.core.errors import Forbidden, InputError, LedgerError
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.signer import MAX_PROPOSALS
from chimera.treasury.types import NANO, Account, AccountKind, CfoDecision, Factor, RefusalReason, Refused, Written
from tests.ledger_house import approval, decision, reason, transfer
from tests.ledgers_vault import SETTINGS, inside, proposal

UNKNOWN, CONFLICT, EXPIRED = RefusalReason.UNKNOWN, RefusalReason.CONFLICT, RefusalReason.EXPIRED
UNSIGNED, FORBIDDEN, UNAPPROVED = RefusalReason.UNSIGNED, RefusalReason.FORBIDDEN, RefusalReason.UNAPPROVED


async def test_a_small_payment_is_signed_and_paid() -> None:
    async with inside() as vault:
        await vault.fill(50 * NANO)
        request = await vault.filed()
        assert isinstance(await vault.decide(request), Written)
        assert await vault.said(request) == ["approved"]
        assert await vault.pay(request) is None
        again = await vault.decide(request)
        assert isinstance(again, Written) and again.again and await vault.said(request) == ["approved"]


async def test_nothing_is_signed_that_is_not_in_the_ledger_as_it_is() -> None:
    async with inside() as vault:
        await vault.fill(50 * NANO)
        request, other = await vault.filed(), await vault.filed(2 * NANO)
        changed = request.model_copy(update={"amount": 40 * NANO})
        for attempt, wanted in (
            (proposal(request.model_copy(update={"id": "nowhere"})), UNKNOWN),
            (proposal(changed), CONFLICT),
            (proposal(request.model_copy(update={"credit": "globex"})), CONFLICT),
            (proposal(request, request_digest=other.digest()), CONFLICT),
        ):
            assert reason((await vault.app.decide([attempt]))[0]) is wanted
        assert await vault.said(request) == await vault.said(other) == []
        vault.clock.at = request.expires_at
        assert reason(await vault.decide(request)) is EXPIRED and await vault.said(request) == []


async def test_above_the_limit_a_person_is_asked_whatever_is_proposed() -> None:
    async with inside() as vault:
        await vault.fill(40 * NANO)
        dear = await vault.filed(50 * NANO + 1)
        assert isinstance(await vault.decide(dear), Written)
        assert await vault.said(dear) == ["ask"] and await vault.pay(dear) is UNAPPROVED
        again = await vault.decide(dear)
        assert isinstance(again, Written) and again.again, "asking again changes nothing"
        assert reason(await vault.approve(dear, vault.ann)) is None
        await vault.decide(dear)
        assert await vault.said(dear) == ["ask", "approved"]
        assert await vault.pay(dear) is RefusalReason.FUNDS


async def test_an_approval_that_is_forged_or_anothers_gets_no_signature() -> None:
    async with inside() as vault:
        dear, other = await vault.filed(60 * NANO), await vault.filed(70 * NANO)
        for key, who in ((vault.eve, "ann"), (None, "ann"), (vault.ann, "bob"), (vault.eve, "eve")):
            assert reason(await vault.approve(dear, key, who)) is UNSIGNED, (key, who)
        assert reason(await vault.approve(other, vault.ann)) is None
        moved = (await vault.app.decisions(other.id))[0].model_copy(
            update={"request_id": dear.id, "request_digest": dear.digest()}
        )
        assert reason(*await vault.approver.write([moved])) is UNSIGNED, "her word about another request"
        own = await vault.filed(60 * NANO, requester="ann")
        assert reason(await vault.approve(own, vault.ann)) is FORBIDDEN
        for request in (dear, own):
            await vault.decide(request)
            assert await vault.said(request) == ["ask"]


async def test_an_approval_that_has_expired_or_was_a_refusal_is_none() -> None:
    async with inside() as vault:
        late, refused = await vault.filed(60 * NANO), await vault.filed(60 * NANO)
        await vault.approve(late, vault.ann)
        await vault.approve(refused, vault.ann, refuse=True)
        vault.clock.at += 60_000_000
        for request in (late, refused):
            await vault.decide(request)
        assert await vault.said(late) == ["ask"]
        assert await vault.said(refused) == ["refused"]
        await vault.decide(refused)
        assert await vault.said(refused) == ["refused"], "that is the last word"


async def test_people_without_a_key_approve_unless_the_house_wants_signatures() -> None:
    async with inside() as vault:
        dear = await vault.filed(60 * NANO)
        assert reason(await vault.approve(dear, None, "bob")) is None
    async with inside(SETTINGS + "unsigned_approvals: false\n") as vault:
        dear = await vault.filed(60 * NANO)
        assert reason(await vault.approve(dear, None, "bob")) is UNSIGNED
        assert reason(await vault.approve(dear, vault.ann)) is None


async def test_whoever_asks_makes_it_stricter_and_never_looser() -> None:
    async with inside() as vault:
        cheap = await vault.filed()
        because = Factor(name="desk", value=1.0, weight=1.0, why="the budget is gone")
        await vault.decide(cheap, "ask", risk=0.4, factors=(because,))
        await vault.decide(cheap, "refused")
        outcome = await vault.decide(cheap)
        assert isinstance(outcome, Written) and outcome.again, "what stands is what stands"
        assert await vault.said(cheap) == ["ask", "refused"]
        first = (await vault.app.decisions(cheap.id))[0]
        assert isinstance(first, CfoDecision) and because in first.factors and first.risk >= 0.4
        taken_back = await vault.filed()
        for verdict in ("approved", "ask", "approved"):
            vault.clock.at += 1
            await vault.decide(taken_back, verdict)
        assert await vault.said(taken_back) == ["approved", "ask", "approved"]


async def test_what_is_risky_is_asked_about_or_refused_whatever_is_proposed() -> None:
    async with inside(SETTINGS.replace("ask_at: 1.0", "ask_at: 0.0")) as vault:
        request = await vault.filed()
        await vault.decide(request)
        assert await vault.said(request) == ["ask"]
    async with inside(SETTINGS.replace("ask_at: 1.0, refuse_at: 1.0", "ask_at: 0.0, refuse_at: 0.0")) as vault:
        request = await vault.filed()
        await vault.approve(request, vault.ann)
        await vault.decide(request)
        assert await vault.said(request) == ["refused"], "an approval is no answer to that"


async def test_a_decision_is_good_for_its_own_request_and_once() -> None:
    async with inside() as vault:
        await vault.fill(50 * NANO)
        request, other = await vault.filed(), await vault.filed(2 * NANO)
        await vault.decide(request)
        (word,) = await vault.app.decisions(request.id)
        replayed = word.model_copy(update={"request_id": other.id, "request_digest": other.digest()})
        for socket in (vault.app, vault.approver, vault.owner):
            assert reason(*await socket.write([replayed])) is FORBIDDEN
        assert await vault.pay(other) is UNSIGNED
        assert await vault.pay(request) is None
        assert reason(*await vault.app.write([transfer(request, id="twice")])) is CONFLICT
        assert reason(await vault.decide(request, "refused")) is CONFLICT, "it has been carried out"


async def test_a_batch_is_decided_at_once_and_each_for_itself() -> None:
    async with inside() as vault:
        requests = [await vault.filed(NANO + i) for i in range(5)]
        asked = [proposal(each) for each in requests]
        unknown = proposal(requests[0].model_copy(update={"id": "nowhere"}))
        before = (await vault.app.head()).seq
        outcomes = await vault.app.decide([*asked, unknown, asked[0], proposal(requests[1], "refused")])
        assert [reason(each) for each in outcomes] == [None] * 5 + [UNKNOWN, None, CONFLICT]
        assert (await vault.app.head()).seq == before + 5
        with pytest.raises(InputError, match="too many"):
            await vault.app.decide([unknown] * (MAX_PROPOSALS + 1))
        assert await vault.app.decide([]) == []


async def test_nothing_is_decided_where_there_are_no_rules() -> None:
    async with inside(SETTINGS + "rules: {}\n") as vault:
        request = await vault.filed()
        assert reason(await vault.decide(request)) is FORBIDDEN and await vault.said(request) == []


async def test_the_sockets_give_what_their_role_has_and_no_more() -> None:
    async with inside() as vault:
        request = await vault.filed()
        for socket, rows in (
            (vault.app, [decision(request), approval(request, "bob")]),
            (vault.approver, [decision(request), request, transfer(request)]),
            (vault.owner, [decision(request), request, transfer(request), approval(request, "bob")]),
        ):
            outcomes = await socket.write(rows)
            assert [each.reason for each in outcomes if isinstance(each, Refused)] == [FORBIDDEN] * len(rows)
        for socket in (vault.approver, vault.owner):
            with pytest.raises(Forbidden):
                await socket.decide([proposal(request)])
        with pytest.raises(LedgerError, match="may not resume"):
            await vault.app.resume("worker-1")
        await vault.app.stop("too fast", "cfo")
        assert (await vault.owner.stopped()).why == "too fast"
        await vault.approver.resume("ann")
        assert await vault.app.stopped() is None


async def test_the_breaker_stops_spending_from_within() -> None:
    async with inside(SETTINGS + "breaker: {refused: 3}\n") as vault:
        await vault.fill(50 * NANO)
        agreed = await vault.filed()
        await vault.decide(agreed)
        for _ in range(3):
            await vault.decide(await vault.filed(), "refused")
        await vault.decider.watch()
        stop = await vault.app.stopped()
        assert stop is not None and "refused" in stop.why and stop.by == "breaker"
        assert await vault.pay(agreed) is RefusalReason.STOPPED
        await vault.approver.resume("ann")
        await vault.decider.watch()
        assert await vault.pay(agreed) is None


async def test_a_row_that_was_slipped_in_stops_the_signing() -> None:
    """Whoever can write the file can do anything but sign: and then nothing is signed any more."""
    import sqlite3

    async with inside() as vault:
        await vault.fill(50 * NANO)
        last = await vault.filed()
        await vault.app.write([Account(id="new", kind=AccountKind.OUTSIDE, title="one")])
        with sqlite3.connect(vault.place.ledger) as file:
            triggers = file.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            for (name,) in triggers:
                file.execute(f"DROP TRIGGER {name}")
            file.create_function("well_formed", -1, lambda *_: True)
            file.execute("UPDATE account_row SET title = 'another' WHERE id = 'new'")
        file.close()
        with pytest.raises(LedgerError, match=r"audit the ledger: row .* is not what it was"):
            await vault.decide(last)


def test_the_roles_that_have_a_socket_are_not_the_cfos() -> None:
    from chimera.treasury.vault.config import DOORS

    assert set(DOORS) == set(LedgerRole) - {LedgerRole.CFO}
