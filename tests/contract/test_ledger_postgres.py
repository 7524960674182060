"""The ledger in PostgreSQL against people with psql: what they may connect as, none of it gets past the rules."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator

import psycopg
import pytest

from chimera.core.errors import InputError, LedgerError, LedgerUnavailable
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.postgres import PostgresLedger
from chimera.treasury.types import DAY_US, NANO, RefusalReason, Signed
from tests.ledger_attacks import ATTACKS, CHECKED, DENIED, DERIVED, RULED, asked, move, switch
from tests.ledger_house import House, approval, decision, reason, transfer
from tests.ledgers import PostgresBench, sign, verify
from tests.servers import PASSWORD, PostgresServer, free_port

TABLES = ("account", "request", "decision", "approval", "transfer", "cap", "rule", "stop")


@pytest.fixture
async def bench(postgres_server: PostgresServer) -> AsyncIterator[PostgresBench]:
    bench = await PostgresBench(postgres_server).begin()
    yield bench
    await bench.close()


@pytest.fixture
async def house(bench: PostgresBench) -> AsyncIterator[House]:
    """$990 of $1,000 are spent today, and five requests wait: see ATTACKS."""
    house = await House(bench).begin()
    paid = await house.asked("ann", "bob", amount=990 * NANO, id="paid")
    assert await house.move(paid) is None
    await house.asked(amount=5 * NANO, id="good")
    await house.asked(amount=60 * NANO, id="big")
    await house.asked("ann", amount=40 * NANO, id="beyond")
    await house.app.write([house.ask(5 * NANO, id="silent")])
    yield house
    await house.audit()


def everything(bench: PostgresBench) -> list[list[tuple[object, ...]]]:
    raw = bench.raw(LedgerRole.OWNER)
    return [raw.execute(f"SELECT * FROM chimera_treasury.{name} ORDER BY 1") for name in (*TABLES, *DERIVED, "clock")]


async def test_no_statement_of_the_application_gets_past_the_rules(bench: PostgresBench, house: House) -> None:
    bench.raw(LedgerRole.OWNER).execute("CREATE SCHEMA mine AUTHORIZATION test_app")
    before = everything(bench)
    through = []
    for *statements, wanted in ATTACKS:
        *tricks, last = statements
        raw = bench.raw(LedgerRole.APP)
        for trick in tricks:
            raw.execute(trick)
        try:
            raw.execute(last)
        except psycopg.Error as error:
            if error.sqlstate != wanted:
                through.append((statements, wanted, error.sqlstate, str(error)))
        else:
            through.append((statements, wanted, "nothing", ""))
        raw.connection.close()
        if everything(bench) != before:
            through.append((statements, "changed something", "", ""))
            before = everything(bench)
    assert not through, through
    assert len(ATTACKS) >= 40
    bench.raw(LedgerRole.APP).execute(move("good", 5 * NANO))
    assert (await house.app.balance("acme")).posted == 995 * NANO, "what is agreed to still goes through"


async def test_a_request_cannot_be_forged(bench: PostgresBench, house: House) -> None:
    good, other = house.ask(reason='a "quoted" \\ reason, é'), house.ask()
    raw = bench.raw(LedgerRole.APP)
    for statement, wanted in (
        (asked(good, digest=other.digest()), RULED),
        (asked(good, amount=2), RULED),
        (asked(good, credit="globex"), RULED),
        (asked(good, expires_at=good.expires_at - 1), RULED),
        (asked(good, amount=0), RULED),
        (asked(good, amount=-1), CHECKED),
        (asked(good, amount=10**18 + 1), CHECKED),
        (asked(good, reason="two\nlines"), CHECKED),
        (asked(good, id="good"), RULED),
    ):
        with pytest.raises(psycopg.Error) as caught:
            raw.execute(statement)
        assert caught.value.sqlstate == wanted, statement
    raw.execute(asked(good))
    assert await house.app.request(good.id) == good


async def test_words_say_what_was_signed_and_come_from_whose_they_are(bench: PostgresBench, house: House) -> None:
    request = await house.app.request("silent")
    assert request is not None
    refused, approved = decision(request, "refused"), approval(request, "ann")

    def decide(verdict: str, payload: str, signature: str = refused.signature) -> str:
        return (
            "INSERT INTO chimera_treasury.decision (request_id, verdict, key_id, payload, signature)"
            f" VALUES ('silent', '{verdict}', 'cfo', '{payload}', '{signature}')"
        )

    def approve(payload: str, who: str = "ann", until: int = approved.expires_at) -> str:
        return (
            "INSERT INTO chimera_treasury.approval"
            " (request_id, approver, verdict, expires_at, key_id, payload, signature)"
            f" VALUES ('silent', '{who}', 'approved', {until}, 'none', '{payload}', '')"
        )

    told, other = refused.payload().decode(), (await house.app.decisions("good"))[0].payload().decode()
    word = approved.payload().decode()
    for role, statement, wanted in (
        (LedgerRole.CFO, decide("approved", told), RULED),
        (LedgerRole.CFO, decide("approved", other), RULED),
        (LedgerRole.CFO, decide("approved", word), RULED),
        (LedgerRole.CFO, decide("approved", "{}"), RULED),
        (LedgerRole.CFO, decide("approved", "[]"), CHECKED),
        (LedgerRole.CFO, decide("approved", "no json"), "22P02"),
        (LedgerRole.CFO, decide("refused", told, ""), RULED),
        (LedgerRole.CFO, approve(word), DENIED),
        (LedgerRole.CFO, move("good", 5 * NANO), DENIED),
        (LedgerRole.CFO, switch("resume"), DENIED),
        (LedgerRole.APPROVER, approve(word, "bob"), RULED),
        (LedgerRole.APPROVER, approve(word, until=5), RULED),
        (LedgerRole.APPROVER, approve(told), RULED),
        (LedgerRole.APPROVER, decide("refused", told), DENIED),
        (LedgerRole.APPROVER, switch("stop"), DENIED),
    ):
        with pytest.raises(psycopg.Error) as caught:
            bench.raw(role).execute(statement)
        assert caught.value.sqlstate == wanted, statement
    forged = decision(request).model_copy(update={"signature": sign(b"something else")})
    bench.raw(LedgerRole.CFO).execute(decide("approved", forged.payload().decode(), forged.signature))
    assert await house.move(request) is RefusalReason.UNSIGNED, "the database cannot tell, the adapter can"
    bench.raw(LedgerRole.APPROVER).execute(approve(word))


async def test_a_stored_word_that_nobody_can_have_signed_keeps_only_its_own_request_out(
    bench: PostgresBench,
) -> None:
    house = await House(bench).begin()
    silent, good = house.ask(id="silent"), await house.asked()
    await house.app.write([silent])
    word = decision(silent)
    bench.raw(LedgerRole.CFO).execute(
        "INSERT INTO chimera_treasury.decision (request_id, verdict, key_id, payload, signature)"
        f" VALUES ('silent', 'approved', 'cfo', '{word.payload().decode()} ', '{word.signature}')"
    )
    outcomes = await house.app.write([transfer(silent), transfer(good)])
    assert [reason(each) for each in outcomes] == [RefusalReason.UNSIGNED, None]
    with pytest.raises(LedgerError, match="not what anybody signed"):
        await house.app.decisions("silent")


async def test_not_even_the_owner_rewrites_the_ledger(bench: PostgresBench, house: House) -> None:
    before = everything(bench)
    owner = bench.raw(LedgerRole.OWNER)
    for prefix in ("", "SET session_replication_role = replica;", "SET ROLE chimera_treasury_owner;"):
        for name in TABLES:
            for statement in (f"DELETE FROM {{}}.{name}", f"UPDATE {{}}.{name} SET seq = 1", f"TRUNCATE {{}}.{name}"):
                with pytest.raises(psycopg.Error) as caught:
                    owner.execute(prefix + statement.format("chimera_treasury"))
                assert caught.value.sqlstate == RULED
        for name in DERIVED:
            with pytest.raises(psycopg.Error) as caught:
                owner.execute(f"{prefix} DELETE FROM chimera_treasury.{name}")
            assert caught.value.sqlstate == RULED
        owner.execute("RESET ROLE")
    owner.execute(
        "INSERT INTO chimera_treasury.account (id, kind, currency, title, seq, at, prev, hash)"
        f" VALUES ('forged', 'fund', 'USD', '', 1, 1, '{'0' * 64}', '{'0' * 64}')"
    )
    assert (await house.app.rows(after=sum(map(len, before[: len(TABLES)]))))[0][2]["at"] == bench.at
    owner.execute("SET ROLE chimera_treasury_owner")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        owner.execute(move("good", 5 * NANO))
    owner.execute("RESET ROLE")


async def test_two_who_see_the_same_room_below_a_cap_do_not_both_get_it(bench: PostgresBench, house: House) -> None:
    await house.asked(amount=9 * NANO, id="nine")
    urls = bench.url(LedgerRole.APP)
    with psycopg.connect(urls) as first, psycopg.connect(urls) as second, psycopg.connect(urls) as third:
        third.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        third.execute("SELECT * FROM chimera_treasury.used")
        first.execute(move("good", 5 * NANO).encode())
        outcome: list[str] = []

        def later() -> None:
            try:
                second.execute(move("nine", 9 * NANO, name="y").encode())
            except psycopg.Error as error:
                outcome.append(str(error))

        waiting = threading.Thread(target=later)
        waiting.start()
        watcher = bench.raw(LedgerRole.OWNER)
        while not watcher.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'") and not outcome:
            pass
        assert not outcome, "it waits for its turn"
        first.commit()
        waiting.join()
        assert outcome[0].startswith("cap: 995000000000 of 1000000000000 is used (*, last_day)")
        with pytest.raises(psycopg.errors.SerializationFailure):
            third.execute(move("nine", 9 * NANO, name="z").encode())


async def test_a_word_that_comes_while_a_transfer_is_written_is_checked_too(bench: PostgresBench, house: House) -> None:
    request = await house.app.request("good")
    assert request is not None
    seen: list[str] = []

    def late(word: Signed) -> bool:
        """Whoever checks, and is not done before a forged word is there."""
        if not seen:
            payload = decision(request, at=9).payload().decode()
            bench.raw(LedgerRole.CFO).execute(
                "INSERT INTO chimera_treasury.decision (request_id, verdict, key_id, payload, signature)"
                f" VALUES ('good', 'approved', 'cfo', '{payload}', '{'0' * 128}')"
            )
        seen.append(word.signature)
        return verify(word)

    careful = await bench.open(LedgerRole.APP, late)
    assert reason(*await careful.write([transfer(request)])) is RefusalReason.UNSIGNED
    assert len(set(seen)) == 2


async def test_whoever_cannot_come_in_is_told_and_not_the_password(bench: PostgresBench) -> None:
    secret = PASSWORD.split("/")[0]
    for url in (f"postgresql://chimera:{secret}@127.0.0.1:no/x", f"postgresql://chimera:{secret}/@@127.0.0.1/x"):
        with pytest.raises(InputError) as wrong:
            PostgresLedger(url=url, role=LedgerRole.APP, verify=verify)
        assert secret not in str(wrong.value)
    away = PostgresLedger(url=f"postgresql://c:{secret}@127.0.0.1:{free_port()}/x", role=LedgerRole.APP, verify=verify)
    with pytest.raises(LedgerUnavailable) as gone:
        await away.head()
    assert secret not in str(gone.value) and secret not in repr(away)
    app_as_cfo = PostgresLedger(url=bench.url(LedgerRole.APP), role=LedgerRole.CFO, verify=verify)
    with pytest.raises(LedgerError, match="permission denied to set role"):
        await app_as_cfo.head()
    empty = bench.url(LedgerRole.OWNER).rpartition("/")[0] + "/postgres"
    no_tables = PostgresLedger(url=empty, role=LedgerRole.APP, verify=verify)
    with pytest.raises(LedgerError, match="open it once as its owner"):
        await no_tables.head()
    bench.raw(LedgerRole.OWNER).execute("INSERT INTO chimera_treasury.version VALUES (99)")
    with pytest.raises(LedgerError, match="version 99"):
        await (await bench.open(LedgerRole.APP)).head()


async def test_without_a_clock_that_stands_the_time_is_the_servers(postgres_server: PostgresServer) -> None:
    bench = await PostgresBench(postgres_server, stands=False).begin()
    house = await House(bench).begin()
    rows = await house.app.rows()
    ((now,),) = bench.raw(LedgerRole.OWNER).execute("SELECT (extract(epoch FROM now()) * 1000000)::bigint")
    ats = [int(columns["at"]) for _, _, columns, _ in rows]
    assert ats == sorted(ats) and now - DAY_US // 24 < ats[0] <= ats[-1] <= now and ats[0] < ats[-1]
    await bench.close()
