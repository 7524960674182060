"""What the keys sign and what they do not, in one process; what the Safe on the chain makes of it."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from chimera.core.errors import ChimeraError, InputError, SecurityError
from chimera.treasury.evm import payments, safe
from chimera.treasury.evm.holder import KeyHolder
from chimera.treasury.evm.keys import EvmKey
from chimera.treasury.evm.memory import Memory
from chimera.treasury.evm.rules import MAX_NONCES, KeyRole
from chimera.treasury.evm.types import GWEI, ZERO, Declined, Envelope, SafeSignature, SafeTx, Sealed, Token
from chimera.treasury.keys import approve
from chimera.treasury.types import PaymentRequest, Transfer, TransferKind
from tests.evm.house import ETH, PAYEE, WEI, EvmHouse, moved, written

OTHER = "0x000000000000000000000000000000000000bEEF"


def tx_of(house: EvmHouse, request: PaymentRequest, nonce: int = 0, **fields: Any) -> SafeTx:
    return payments.safe_tx(house.network, request, nonce).model_copy(update=fields)


async def why(house: EvmHouse, request: PaymentRequest, tx: SafeTx, role: KeyRole = KeyRole.CFO) -> str:
    """Why this key declines; empty if it signs."""
    told = await house.holders[role].sign(request.id, tx)
    return told.why if isinstance(told, Declined) else ""


async def test_a_payment_that_nobody_has_decided_is_not_signed(house: EvmHouse) -> None:
    request = await house.filed()
    for role in (KeyRole.CFO, KeyRole.APPROVER):
        assert "CFO has not agreed" in await why(house, request, tx_of(house, request), role)
    unknown = house.ask()
    assert "no such request" in await why(house, unknown, tx_of(house, unknown))


async def test_a_refused_payment_is_not_signed_after_all(house: EvmHouse) -> None:
    request = await house.asked()
    written(await house.cfo.write([house.decision(request, "refused")]))
    assert "CFO has not agreed" in await why(house, request, tx_of(house, request))


async def test_a_payment_that_is_not_set_aside_is_not_signed(house: EvmHouse) -> None:
    request = await house.asked()
    assert "nothing is set aside" in await why(house, request, tx_of(house, request))
    written(await house.app.write([moved(request)]))
    await house.let_go(request)
    assert "nothing is set aside" in await why(house, request, tx_of(house, request))


async def test_a_reservation_that_ends_by_itself_is_not_signed(house: EvmHouse) -> None:
    request = await house.asked()
    expiring = moved(request).model_copy(update={"expires_at": house.bench.at + 10**9})
    written(await house.app.write([expiring]))
    assert "expires" in await why(house, request, tx_of(house, request))


@pytest.mark.parametrize(
    "change",
    [
        {"value": 2 * WEI},
        {"value": WEI - 1},
        {"to": OTHER},
        {"data": "0xdeadbeef"},
        {"operation": 1},
        {"safe_tx_gas": 0},
        {"base_gas": 1},
        {"gas_price": 1},
        {"gas_token": OTHER},
        {"refund_receiver": OTHER},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_what_is_not_exactly_the_payment_is_not_signed(house: EvmHouse, change: dict[str, Any]) -> None:
    request = await house.reserved()
    for role in (KeyRole.CFO, KeyRole.APPROVER):
        told = await why(house, request, tx_of(house, request, **change), role)
        assert f"{next(iter(change))} would differ" in told
    assert not await why(house, request, tx_of(house, request))


async def test_the_approvers_key_wants_a_persons_own_signature(house: EvmHouse) -> None:
    request = await house.asked(ETH // 200, approved=False)
    written(await house.app.write([moved(request)]))
    assert "no person" in await why(house, request, tx_of(house, request), KeyRole.APPROVER)
    word = approve(request, approver="ann", at=house.bench.at, expires_at=payments.NEVER)
    second = await house.asked(ETH // 200, approved=False)
    unsigned = word.model_copy(update={"request_id": second.id, "request_digest": second.digest()})
    written(await house.approver.write([unsigned]))
    written(await house.app.write([moved(second)]))
    assert "and signed" in await why(house, second, tx_of(house, second), KeyRole.APPROVER)
    assert not await why(house, second, tx_of(house, second))  # the CFO's does not ask for one


async def test_an_approval_that_has_expired_does_not_count(house: EvmHouse) -> None:
    request = await house.asked(approved=False)
    soon = house.bench.at + 1_000
    written(
        await house.approver.write(
            [approve(request, approver="ann", key=house.ann_key, at=house.bench.at, expires_at=soon)]
        )
    )
    written(await house.app.write([moved(request)]))
    house.bench.advance(2_000)
    assert "no person" in await why(house, request, tx_of(house, request), KeyRole.APPROVER)


async def test_one_request_is_signed_once_and_the_same_again_is_the_same(house: EvmHouse) -> None:
    request = await house.reserved()
    first = await house.holders[KeyRole.CFO].sign(request.id, tx_of(house, request))
    assert isinstance(first, SafeSignature)
    assert await house.holders[KeyRole.CFO].sign(request.id, tx_of(house, request)) == first
    assert "another transaction" in await why(house, request, tx_of(house, request, nonce=1))


async def test_what_was_signed_is_remembered_by_the_next_process(house: EvmHouse) -> None:
    request = await house.reserved()
    assert not await why(house, request, tx_of(house, request))
    memory = Memory(house.folder / "cfo.db")
    fields: dict[str, Any] = {"network": house.network, "ledger": house.app, "chain": house.chain}
    again = KeyHolder(
        role=KeyRole.CFO,
        key=house.keys[KeyRole.CFO],
        memory=memory,
        verify=house.keyring.verify,
        clock=house.bench.clock,
        **fields,
    )
    told = await again.sign(request.id, tx_of(house, request, nonce=1))
    assert isinstance(told, Declined) and "another transaction" in told.why
    memory.close()


async def test_two_payments_do_not_get_the_same_nonce_of_the_safe(house: EvmHouse) -> None:
    first, second = await house.reserved(), await house.reserved()
    assert not await why(house, first, tx_of(house, first))
    assert "the Safe's nonce 0" in await why(house, second, tx_of(house, second))
    assert not await why(house, second, tx_of(house, second, nonce=1))


async def test_whoever_lets_go_of_a_signed_payment_gets_no_second_one(house: EvmHouse) -> None:
    """The ledger's caps would be free again, and both could be executed."""
    first, second = await house.reserved(), await house.reserved()
    assert not await why(house, first, tx_of(house, first))
    await house.let_go(first)
    assert "can still be paid" in await why(house, second, tx_of(house, second, nonce=1))
    assert not await why(house, second, tx_of(house, second))  # of these two the Safe takes one


async def test_whoever_lets_go_of_a_payment_that_was_made_gets_nothing_more(house: EvmHouse) -> None:
    first = await house.reserved()
    await house.payer.pay(first.id)
    house.anvil.mine(4)
    await house.let_go(first)
    second = await house.reserved()
    for nonce in (0, 1):
        assert "not in the ledger what it is" in await why(house, second, tx_of(house, second, nonce=nonce))
    house.sound = False


async def test_whoever_posts_less_than_was_paid_gets_nothing_more(house: EvmHouse) -> None:
    first, second = await house.reserved(), await house.reserved()
    assert not await why(house, first, tx_of(house, first))
    written(await house.app.write([Transfer(id="less", kind=TransferKind.POST, request_id=first.id, amount=1)]))
    assert "not in the ledger what it is" in await why(house, second, tx_of(house, second, nonce=1))
    house.sound = False


async def test_a_payment_that_was_let_go_is_not_taken_for_its_twin(house: EvmHouse) -> None:
    """The same to the same payee, at the same nonce of the Safe: one of two was paid, and the keys know which."""
    first, second = await house.reserved(), await house.reserved()
    assert not await why(house, first, tx_of(house, first), KeyRole.APPROVER)
    await house.let_go(first)
    await house.payer.pay(second.id)
    await house.mined(3)
    third = await house.reserved()
    for role in (KeyRole.APPROVER, KeyRole.CFO):
        assert not await why(house, third, tx_of(house, third, nonce=1), role)
    await house.payer.pay(third.id)
    await house.mined(3)


async def envelope_of(house: EvmHouse, **fields: Any) -> tuple[PaymentRequest, list[str], Envelope]:
    """What a payment takes: a request, the gas that is set aside for it, and what would carry it."""
    request = await house.reserved()
    gas = payments.gas_request(house.network, request, 0, 100_000 * 10)
    await house.authorise(gas)
    told = {"chain_id": 31337, "nonce": 0, "to": house.network.safe, "data": "0x" + safe.EXEC.hex(), "gas": 100_000}
    return request, [gas.id], Envelope(**{**told, "max_fee": 10 * GWEI, "tip": 1, **fields})


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, ""),
        ({"to": OTHER}, "another contract"),
        ({"chain_id": 1}, "another contract or chain"),
        ({"data": "0x" + safe.selector("approveHash(bytes32)").hex()}, "does not carry"),
        ({"gas": 100_001}, "are set aside"),
        ({"max_fee": 11 * GWEI}, "are set aside"),
        ({"max_fee": 201 * GWEI}, "limits"),
        ({"gas": 600_000, "max_fee": GWEI}, "limits"),
    ],
)
async def test_the_relayers_key_pays_for_what_is_set_aside(house: EvmHouse, change: Any, wrong: str) -> None:
    request, gas, envelope = await envelope_of(house, **change)
    told = await house.holders[KeyRole.RELAYER].seal(request.id, gas, envelope)
    assert isinstance(told, Declined if wrong else Sealed)
    assert not wrong or (isinstance(told, Declined) and wrong in told.why)


async def test_the_relayers_key_pays_with_no_other_payments_gas_and_not_for_ever(house: EvmHouse) -> None:
    request, gas, envelope = await envelope_of(house)
    other, others, _ = await envelope_of(house)
    relayer = house.holders[KeyRole.RELAYER]
    for wrong in (others, gas * 2):
        told = await relayer.seal(request.id, wrong, envelope)
        assert isinstance(told, Declined) and "not for the gas of this payment" in told.why
    for nonce in range(MAX_NONCES):
        numbered = envelope.model_copy(update={"nonce": nonce})
        assert isinstance(await relayer.seal(request.id, gas, numbered), Sealed)
    told = await relayer.seal(request.id, gas, envelope.model_copy(update={"nonce": MAX_NONCES}))
    assert isinstance(told, Declined) and "look into it" in told.why
    assert isinstance(await house.holders[KeyRole.CFO].seal(request.id, gas, envelope), Declined)
    assert "signs no payments" in await why(house, other, tx_of(house, other), KeyRole.RELAYER)


@pytest.mark.parametrize("signers", [[KeyRole.CFO], [KeyRole.CFO, KeyRole.CFO], [KeyRole.CFO, KeyRole.RELAYER]])
async def test_the_safe_executes_nothing_without_both_keys(house: EvmHouse, signers: list[KeyRole]) -> None:
    tx = SafeTx(to=PAYEE, value=WEI, nonce=0)
    digest = safe.hash_of(tx, safe=house.network.safe, chain_id=31337)
    signatures = b"".join(bytes.fromhex(house.keys[role].sign(digest).signature[2:]) for role in signers)
    data = safe.call(
        safe.EXEC,
        ["address", "uint256", "bytes", "uint8", *["uint256"] * 3, "address", "address", "bytes"],
        [tx.to, tx.value, b"", 0, 0, 0, 0, ZERO, ZERO, signatures],
    )
    with pytest.raises(ChimeraError, match="GS020" if len(signers) == 1 else "GS026"):
        await house.chain.call(house.network.safe, data)


async def test_the_hash_that_is_signed_is_the_one_that_the_safe_computes(house: EvmHouse) -> None:
    name = "getTransactionHash(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,uint256)"
    kinds = ["address", "uint256", "bytes", "uint8", *["uint256"] * 3, "address", "address", "uint256"]
    odd: dict[str, Any] = {
        "safe_tx_gas": 5,
        "base_gas": 6,
        "gas_price": 7,
        "gas_token": PAYEE,
        "refund_receiver": OTHER,
    }
    plain = SafeTx(to=PAYEE, value=WEI, nonce=0)
    for tx in (plain, SafeTx(to=OTHER, value=3, data="0xdeadbeef", operation=1, nonce=2**40, **odd)):
        values = [*tx.model_dump().values()]
        values[2] = bytes.fromhex(tx.data[2:])
        found = await house.chain.call(house.network.safe, safe.call(safe.selector(name), kinds, values))
        assert found == safe.hash_of(tx, safe=house.network.safe, chain_id=31337)


async def test_a_token_is_paid_in_its_own_units(house: EvmHouse) -> None:
    token = house.anvil.deploy("test/ERC20Token.sol/ERC20Token")
    listed = {"USDC": Token(address=token.lower(), decimals=6)}
    house.network = house.network.model_copy(update={"tokens": listed})
    house.outbox.close()
    house.start()
    await house.furnish("USDC")
    house.anvil.execute(safe.transfer(house.network.safe, 10_000_000), token)
    request = await house.reserved(2_500_000_000, currency="USDC")
    await house.payer.pay(request.id)
    await house.mined(3)
    assert await house.end(request) is TransferKind.POST
    held = await house.chain.call(token.lower(), safe.balance_call(PAYEE))
    assert safe.number(held) == 2_500_000
    odd = await house.reserved(1, currency="USDC")
    with pytest.raises(InputError, match="6 digits"):
        await house.payer.pay(odd.id)
    await house.let_go(odd)


def test_a_key_lies_in_a_private_file_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = EvmKey.create(folder / "raw.key")
    assert EvmKey.open(folder / "raw.key").address == made.address
    assert Account.from_key((folder / "raw.key").read_text().strip()).address == made.address
    assert (folder / "raw.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="there already"):
        EvmKey.create(folder / "raw.key")
    (folder / "raw.key").chmod(0o640)
    with pytest.raises(SecurityError, match="others"):
        EvmKey.open(folder / "raw.key")
    for leak in (pickle.dumps, deepcopy):
        with pytest.raises(SecurityError, match="stays in its process"):
            leak(made)
    assert (folder / "raw.key").read_text().strip() not in repr(made)


def test_a_key_under_a_passphrase_is_a_keystore(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "stored.key"
    made = EvmKey.create(path, "open sesame")
    assert json.loads(path.read_text())["version"] == 3
    assert EvmKey.open(path, "open sesame").address == made.address
    with pytest.raises(SecurityError, match="passphrase"):
        EvmKey.open(path, "wrong")


@pytest.mark.parametrize(
    "credit",
    [f"evm:1:{PAYEE}", f"evm:31337:{PAYEE.lower()}", f"evm:31337:{PAYEE[:-1]}", f"evm:31337:{PAYEE}:USDC", "evm:safe"],
)
async def test_an_account_of_the_ledger_names_one_address_in_one_spelling(house: EvmHouse, credit: str) -> None:
    credit = credit.replace("evm:safe", f"evm:31337:{house.network.safe}")
    request = await house.reserved(debit=payments.fund_account(house.network), credit=credit)
    with pytest.raises(InputError):
        await house.payer.pay(request.id)
    assert await why(house, request, SafeTx(to=PAYEE, value=WEI, safe_tx_gas=payments.COIN_GAS, nonce=0))
