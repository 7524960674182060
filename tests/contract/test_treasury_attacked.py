"""What somebody tries who wants money moved that nobody agreed to: against the database of each kind."""

from __future__ import annotations

from chimera.treasury.ledger import LedgerRole
from chimera.treasury.types import NANO, RefusalReason
from tests.ledger_house import House, approval, reason
from tests.ledgers import PostgresBench

UNAPPROVED = RefusalReason.UNAPPROVED


async def test_income_that_a_person_has_to_see_is_not_booked_before(house: House) -> None:
    """Nothing of ours goes out, and still an answer counts: it is asked for because the claim is odd."""
    asked = await house.asked(debit="bank", credit="cash", verdict="ask")
    assert await house.move(asked) is UNAPPROVED, "nobody has answered"
    assert reason(*await house.approver.write([approval(asked, "ann")])) is None
    assert await house.move(asked) is None

    refused = await house.asked(debit="bank", credit="cash")
    assert reason(*await house.approver.write([approval(refused, "ann", verdict="refused")])) is None
    assert await house.move(refused) is UNAPPROVED, "she has said no"
    await house.audit()


async def test_income_that_somebody_invents_does_not_block_what_goes_out(house: House) -> None:
    """Sums have an end; whoever claims that much came in must not bring a fund to it."""
    for digits in reversed(range(7, 19)):
        for who in ("bank", "globex"):
            while await house.pay(10**digits, debit=who, credit="cash") is None:
                pass
    assert await house.pay(NANO) is None
    await house.audit()


SHADOWS = """
CREATE FUNCTION public.same(chimera_treasury.id, chimera_treasury.id) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF pg_has_role(current_user, 'chimera_treasury_owner', 'MEMBER') THEN
        ALTER TABLE chimera_treasury.cap DISABLE TRIGGER keep;
    END IF;
    RETURN $1::text = $2::text;
END $$;
CREATE OPERATOR public.= (LEFTARG = chimera_treasury.id, RIGHTARG = chimera_treasury.id, FUNCTION = public.same);
CREATE FUNCTION public.to_jsonb(chimera_treasury.account) RETURNS jsonb LANGUAGE sql AS
    $$ SELECT jsonb_build_object('id', $1.id, 'kind', 'metered', 'currency', $1.currency, 'title', '', 'at', $1.at) $$
"""
"""They fit the ledger's types better than what PostgreSQL has of these names."""


async def test_who_may_make_functions_does_not_have_others_call_them(house: House) -> None:
    """Until PostgreSQL 15 everybody may, in the schema public, which sessions search unless they are told not to."""
    if not isinstance(house.bench, PostgresBench):
        return
    superuser = house.bench.raw(LedgerRole.OWNER)
    superuser.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    house.bench.raw(LedgerRole.APP).execute(SHADOWS)
    assert (await house.owner.account("cash")) == await house.app.account("cash")
    assert superuser.execute("SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgname = 'keep'") == [("A",)]
    kinds = {told["id"]: told["kind"] for _, table, told, _ in await house.app.rows() if table == "account"}
    assert [name for name, kind in kinds.items() if kind == "metered"] == ["model"]
