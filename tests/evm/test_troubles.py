"""What can happen to a payment on its way: it is paid once or not at all, and the ledger knows which."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from eth_utils.address import to_checksum_address

from chimera.core.errors import ChainError, InputError, SecurityError, StorageError
from chimera.treasury.desk import Rail
from chimera.treasury.evm import payments, safe
from chimera.treasury.evm.fate import Fate
from chimera.treasury.evm.outbox import Outbox
from chimera.treasury.evm.remote import RemoteKey
from chimera.treasury.evm.rpc import RpcChain
from chimera.treasury.evm.rules import KeyRole
from chimera.treasury.evm.types import GWEI, Envelope, SafeTx
from chimera.treasury.types import Outcome, PaymentRequest, RefusalReason, Refused, Transfer, TransferKind
from tests.evm.anvil import Anvil
from tests.evm.house import ETH, PAYEE, REFUSES, WEI, EvmHouse, written


async def sent(house: EvmHouse, **fields: int) -> PaymentRequest:
    """A payment that waits in the node's pool."""
    request = await house.reserved(ETH, **fields)
    assert len((await house.payer.pay(request.id)).sent) == 1
    assert len(house.anvil.waiting()) == 1
    return request


async def sent_behind(house: EvmHouse) -> PaymentRequest:
    """Another one behind it."""
    request = await house.reserved(ETH)
    await house.payer.pay(request.id)
    return request


async def test_a_transaction_that_the_node_has_dropped_is_sent_again(house: EvmHouse) -> None:
    request = await sent(house)
    [waiting] = house.anvil.waiting()
    house.anvil.ask("anvil_dropTransaction", waiting["hash"])
    assert house.anvil.waiting() == []
    await house.mined()
    [again] = house.anvil.waiting()
    assert again["hash"] == waiting["hash"]
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST
    assert house.anvil.balance(PAYEE) == WEI


async def test_a_stuck_transaction_is_replaced_by_one_that_offers_more_for_the_same_nonce(house: EvmHouse) -> None:
    request = await sent(house)
    [first] = house.anvil.waiting()
    for _ in range(2):
        house.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(10 * GWEI))
        await house.mined()
    [second] = house.anvil.waiting()
    assert second["nonce"] == first["nonce"] and second["input"] == first["input"]
    for name in ("maxFeePerGas", "maxPriorityFeePerGas"):
        assert int(second[name], 16) * 8 >= int(first[name], 16) * 9
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST
    assert house.anvil.balance(PAYEE) == WEI
    found = house.outbox.find(request.id)
    assert found is not None and len(found.carriers) == 2 and found.closed is not None


async def test_a_stuck_transaction_waits_where_the_limit_of_fees_is_reached(house: EvmHouse) -> None:
    limited = house.network.model_copy(update={"max_fee": 2 * GWEI, "max_tip": GWEI // 100})
    house.payer._carrying._network = limited
    request = await sent(house)
    for _ in range(6):
        house.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(10 * GWEI))
        await house.mined()
    [found] = await house.payer.watch()
    assert "limits" in found.why
    assert all(int(tx["maxFeePerGas"], 16) <= limited.max_fee for tx in house.anvil.waiting())
    house.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    await house.mined()
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST


async def test_another_transaction_of_the_relayer_at_our_nonce_does_not_pay_twice_or_lose_it(house: EvmHouse) -> None:
    request = await sent(house)
    [ours] = house.anvil.waiting()
    other = Envelope(
        chain_id=house.network.chain_id,
        nonce=int(ours["nonce"], 16),
        to="0x000000000000000000000000000000000000bEEF",
        data="0x",
        gas=50_000,
        max_fee=100 * GWEI,
        tip=50 * GWEI,
    )
    house.anvil.ask("eth_sendRawTransaction", house.keys[KeyRole.RELAYER].seal(other).raw)
    await house.mined()
    [again] = house.anvil.waiting()
    assert int(again["nonce"], 16) == other.nonce + 1
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST
    assert house.anvil.balance(PAYEE) == WEI


async def test_a_block_that_the_chain_takes_back_is_not_believed(house: EvmHouse) -> None:
    request = await sent(house)
    await house.mined(2)
    assert house.anvil.balance(PAYEE) == WEI
    house.anvil.ask("anvil_reorg", 2, [])
    assert house.anvil.balance(PAYEE) == 0
    await house.payer.watch()
    assert await house.end(request) is None
    await house.mined()
    await house.mined()
    assert await house.end(request) is None  # its blocks are counted anew
    await house.mined(2)
    assert await house.end(request) is TransferKind.POST
    assert house.anvil.balance(PAYEE) == WEI


async def test_a_payment_that_its_payee_refuses_is_void_and_its_gas_is_entered(house: EvmHouse) -> None:
    payee = to_checksum_address(house.anvil.deploy_code(REFUSES[2:]))
    request = await house.reserved(ETH, to=payee)
    await house.payer.pay(request.id)
    await house.mined(3)
    found = house.outbox.find(request.id)
    assert found is not None and found.fate is Fate.FAILED and found.closed is not None
    assert await house.end(request) is TransferKind.VOID
    assert house.anvil.balance(house.network.safe) == 10 * WEI
    assert (await house.balance(payments.gas_fees(house.network))).posted > 0
    following = await sent(house)  # the Safe's nonce was used up
    await house.mined(3)
    assert await house.end(following) is TransferKind.POST


async def test_a_payment_that_a_stranger_has_executed_is_posted_and_not_paid_again(house: EvmHouse) -> None:
    request = await sent(house)
    [ours] = house.anvil.waiting()
    house.anvil.ask("anvil_dropTransaction", ours["hash"])
    house.anvil.execute(ours["input"], house.network.safe, sender=house.anvil.accounts[1])
    await house.mined()
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST
    assert house.anvil.balance(PAYEE) == WEI
    await house.mined(3)
    found = house.outbox.find(request.id)
    assert found is not None and found.closed is not None and found.closed.cost > 0  # ours reverted


async def test_a_payment_whose_nonce_of_the_safe_another_took_is_void(house: EvmHouse) -> None:
    request = await sent(house)
    [ours] = house.anvil.waiting()
    house.anvil.ask("anvil_dropTransaction", ours["hash"])
    rejection = SafeTx(to=house.network.safe, value=0, nonce=0)
    digest = safe.hash_of(rejection, safe=house.network.safe, chain_id=house.network.chain_id)
    both = [house.keys[role].sign(digest) for role in (KeyRole.CFO, KeyRole.APPROVER)]
    house.anvil.execute(safe.execution(rejection, both), house.network.safe)
    await house.mined()
    await house.mined(4)
    await house.mined(4)
    found = house.outbox.find(request.id)
    assert found is not None and found.fate is Fate.TAKEN and found.closed is not None
    assert await house.end(request) is TransferKind.VOID
    assert house.anvil.balance(PAYEE) == 0
    house.sound = False  # the Safe did what the ledger does not know of


async def test_nothing_is_signed_while_the_safe_lacks_the_money(house: EvmHouse) -> None:
    request = await house.reserved(ETH)
    house.anvil.give(house.network.safe, WEI // 2)
    with pytest.raises(ChainError, match="fill it"):
        await house.payer.pay(request.id)
    assert house.outbox.find(request.id) is None
    assert await house.holders[KeyRole.APPROVER].signed(request.id) is None
    house.anvil.give(house.network.safe, 10 * WEI)
    await house.payer.recover()
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST


async def test_nothing_is_sent_to_a_node_of_another_chain(house: EvmHouse) -> None:
    other = Anvil("--no-mining", chain_id=1)
    other.start()
    try:
        chain = RpcChain(url=other.url, chain_id=house.network.chain_id)
        with pytest.raises(ChainError, match="node of chain 1, and not of 31337"):
            await chain.send("0x02")
        await chain.close()
        assert other.waiting() == []
    finally:
        other.stop()


async def test_a_node_that_does_not_answer_is_named_without_its_secrets() -> None:
    chain = RpcChain(url="http://user:hunter2@127.0.0.1:9/v3/s3cret?key=topsecret", chain_id=1)
    with pytest.raises(ChainError, match="does not answer") as caught:
        await chain.head()
    await chain.close()
    assert not any(secret in str(caught.value) for secret in ("hunter2", "s3cret", "topsecret"))


async def test_several_payments_are_on_their_way_at_once_without_a_gap(house: EvmHouse) -> None:
    requests = [await house.reserved(ETH // 4) for _ in range(5)]
    for request in requests:
        await house.payer.pay(request.id)
    assert sorted(int(tx["nonce"], 16) for tx in house.anvil.waiting()) == [0, 1, 2, 3, 4]
    await house.mined(3)
    assert [await house.end(request) for request in requests] == [TransferKind.POST] * 5
    assert house.anvil.balance(PAYEE) == 5 * WEI // 4


async def test_payments_behind_one_that_lost_its_nonce_are_paid_too(house: EvmHouse) -> None:
    requests = [await house.reserved(ETH // 4) for _ in range(3)]
    for request in requests:
        await house.payer.pay(request.id)
    other = Envelope(
        chain_id=31337, nonce=0, to="0x000000000000000000000000000000000000bEEF", data="0x", gas=50_000,
        max_fee=100 * GWEI, tip=50 * GWEI,
    )  # fmt: skip
    house.anvil.ask("eth_sendRawTransaction", house.keys[KeyRole.RELAYER].seal(other).raw)
    for _ in range(6):
        await house.mined()
    await house.mined(3)
    assert [await house.end(request) for request in requests] == [TransferKind.POST] * 3
    assert house.anvil.balance(PAYEE) == 3 * WEI // 4


async def test_nothing_is_sent_before_its_gas_is_set_aside(house: EvmHouse) -> None:
    refused: list[str] = []

    async def refuse(request: PaymentRequest) -> Outcome:
        refused.append(request.id)
        return Refused(id=request.id, reason=RefusalReason.CAP, detail="the cap")

    house.payer._carrying._authorise = refuse
    request = await house.reserved(ETH)
    found = await house.payer.pay(request.id)
    assert found.signed and not found.sent and "gas" in found.why
    await house.payer.watch()
    assert len(refused) == 1  # it is not asked again at each look
    house.payer._carrying._authorise = house.authorise
    await house.mined(2)
    assert len(house.anvil.waiting()) == 1
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST


async def test_a_payment_that_a_key_declines_is_void_and_the_next_takes_its_nonce(house: EvmHouse) -> None:
    declined = await house.reserved(ETH // 200, approved=False)
    found = await house.payer.pay(declined.id)
    assert found.closed and not found.signed and "no person has approved" in found.why
    assert await house.end(declined) is TransferKind.VOID
    request = await sent(house)
    following = house.outbox.find(request.id)
    assert following is not None and following.tx.nonce == 0
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST


async def test_a_payment_of_an_outbox_that_was_lost_is_made_once(house: EvmHouse) -> None:
    request = await sent(house)
    second = await sent_behind(house)
    for waiting in house.anvil.waiting():
        house.anvil.ask("anvil_dropTransaction", waiting["hash"])
    house.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(5 * GWEI))
    house.anvil.mine()
    house.outbox.close()
    for lost in house.folder.glob("outbox.db*"):
        lost.unlink()
    house.start()
    await house.payer.recover()
    for each, nonce in ((request, 0), (second, 1)):
        found = house.outbox.find(each.id)
        assert found is not None and found.tx.nonce == nonce and found.reserved > 0
    await house.mined(3)
    await house.mined(3)
    assert [await house.end(each) for each in (request, second)] == [TransferKind.POST] * 2
    assert house.anvil.balance(PAYEE) == 2 * WEI
    assert (await house.balance(payments.gas_fund(house.network))).pending_out == 0


async def test_there_is_one_payer_for_an_outbox(house: EvmHouse) -> None:
    with pytest.raises(StorageError, match="another payer"):
        Outbox(house.folder / "outbox.db")


async def test_what_was_done_stays_in_the_outbox(house: EvmHouse) -> None:
    await sent(house)
    raw = sqlite3.connect(house.folder / "outbox.db")
    for statement in ("DELETE FROM fact", "UPDATE fact SET told = '{}'"):
        with pytest.raises(sqlite3.IntegrityError, match="stays done"):
            raw.execute(statement)
    raw.close()


async def test_what_was_done_is_known_after_a_start(house: EvmHouse) -> None:
    request = await sent(house)
    before = house.outbox.find(request.id)
    house.outbox.close()
    house.start()
    assert house.outbox.find(request.id) == before and len(house.outbox.open()) == 1
    await house.mined(3)
    done = house.outbox.find(request.id)
    assert done is not None and done.closed and house.outbox.open() == []
    house.outbox.close()
    house.start()
    again = house.outbox.find(request.id)
    assert again is not None and (again.closed, again.carriers) == (done.closed, done.carriers)
    assert house.outbox.open() == []


async def test_asking_twice_pays_once(house: EvmHouse) -> None:
    request = await house.reserved(ETH)
    found = await asyncio.gather(*(house.payer.pay(request.id) for _ in range(5)))
    assert len({each.sent for each in found}) == 1 and len(house.anvil.waiting()) == 1
    await house.mined(3)
    assert (await house.payer.pay(request.id)).closed
    assert house.anvil.waiting() == [] and house.anvil.balance(PAYEE) == WEI


async def test_a_payment_waits_for_the_one_before_it_to_be_signed(house: EvmHouse) -> None:
    """Else the one before might be declined after all, and its nonce of the Safe would be missing for ever."""
    first, second = await house.reserved(ETH), await house.reserved(ETH)
    await house.cfo.stop("something is odd", "cfo")
    for request in (first, second):
        with pytest.raises(ChainError, match="stopped"):
            await house.payer.pay(request.id)
    assert [each.request.id for each in house.outbox.open()] == [first.id]
    await house.approver.resume("ann")
    await house.let_go(first)
    await house.payer.pay(second.id)
    found = house.outbox.find(second.id)
    assert found is not None and found.tx.nonce == 0
    await house.mined(3)
    assert await house.end(second) is TransferKind.POST


async def test_a_key_that_does_not_answer_is_named(house: EvmHouse) -> None:
    owners, house.payer._owners = house.payer._owners, (RemoteKey(house.folder / "nobody.sock"),)
    request = await house.reserved(ETH)
    with pytest.raises(SecurityError, match="no key answers"):
        await house.payer.pay(request.id)
    house.payer._owners = owners
    await house.payer.recover()
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST


async def test_nothing_is_signed_or_sent_while_spending_is_stopped(house: EvmHouse) -> None:
    request = await house.reserved(ETH)
    await house.cfo.stop("something is odd", "cfo")
    with pytest.raises(ChainError, match="stopped"):
        await house.payer.pay(request.id)
    assert await house.holders[KeyRole.APPROVER].signed(request.id) is None
    await house.approver.resume("ann")
    await house.payer.pay(request.id)
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST


async def test_a_payment_to_what_is_no_address_is_void_at_once(house: EvmHouse) -> None:
    request = await house.reserved(debit=payments.fund_account(house.network), credit="evm:31337:bob")
    with pytest.raises(InputError, match="no address"):
        await house.payer.carry(request)
    assert await house.end(request) is TransferKind.VOID


async def test_carrying_lasts_until_the_ledger_knows_how_it_ended(house: EvmHouse) -> None:
    requests = [await house.reserved(ETH // 4) for _ in range(2)]
    rail: Rail = house.payer
    assert all(map(rail.carries, requests))
    carried = [asyncio.create_task(rail.carry(request)) for request in requests]
    while not all(task.done() for task in carried):
        await asyncio.to_thread(house.anvil.mine)
        await asyncio.sleep(0.01)
    assert [await house.end(request) for request in requests] == [TransferKind.POST] * 2


async def test_reconciling_finds_what_is_posted_and_was_not_paid(house: EvmHouse) -> None:
    request = await house.reserved(ETH)
    forged = Transfer(id="forged", kind=TransferKind.POST, request_id=request.id, amount=ETH)
    written(await house.app.write([forged]))
    found = await house.payer.reconcile()
    assert any(request.id in each for each in found.findings)
    house.sound = False


async def test_reconciling_finds_what_is_posted_before_it_was_paid(house: EvmHouse) -> None:
    request = await sent(house)
    forged = Transfer(id="forged", kind=TransferKind.POST, request_id=request.id, amount=ETH)
    written(await house.app.write([forged]))
    found = await house.payer.reconcile()
    assert any("the chain has not paid it" in each for each in found.findings)
    house.sound = False


async def test_reconciling_finds_what_was_paid_and_is_not_in_the_ledger(house: EvmHouse) -> None:
    theft = SafeTx(to=PAYEE, value=WEI, nonce=0)
    digest = safe.hash_of(theft, safe=house.network.safe, chain_id=house.network.chain_id)
    both = [house.keys[role].sign(digest) for role in (KeyRole.CFO, KeyRole.APPROVER)]
    house.anvil.execute(safe.execution(theft, both), house.network.safe)
    house.anvil.mine(3)
    found = await house.payer.reconcile()
    assert any(digest.hex() in each for each in found.findings)
    assert any("billionths in the Safe" in each for each in found.findings)
    house.sound = False
