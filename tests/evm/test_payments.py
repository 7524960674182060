"""A payment from the ledger to the chain and back, and all that can happen to it on its way."""

from __future__ import annotations

from chimera.treasury.evm import payments
from chimera.treasury.evm.fate import Fate
from chimera.treasury.evm.fees import in_ledger
from chimera.treasury.types import TransferKind
from tests.evm.house import ETH, PAYEE, WEI, EvmHouse


async def test_a_payment_that_both_keys_sign_is_mined_confirmed_posted_and_reconciled(house: EvmHouse) -> None:
    request = await house.reserved(2 * ETH)
    sent = await house.payer.pay(request.id)
    assert sent.signed and len(sent.sent) == 1 and sent.fate is None, sent
    [waiting] = house.anvil.waiting()
    assert waiting["type"] == "0x2" and int(waiting["maxFeePerGas"], 16) > int(waiting["maxPriorityFeePerGas"], 16)

    await house.mined()
    assert house.anvil.balance(PAYEE) == 2 * WEI
    assert await house.end(request) is None  # it is in a block, and not deep enough
    await house.mined(2)
    assert await house.end(request) is TransferKind.POST

    done = house.outbox.find(request.id)
    assert done is not None and done.closed is not None and done.fate is Fate.PAID
    cost = WEI - house.anvil.balance(house.network.relayer)
    assert done.closed.cost == cost
    fees = await house.balance(payments.gas_fees(house.network))
    assert (fees.posted, fees.pending_in) == (in_ledger(cost), 0)
    fund = await house.balance(payments.fund_account(house.network))
    assert (fund.posted, fund.pending_out) == (8 * ETH, 0)
    assert (await house.payer.reconcile()).paid == 1
