"""A Safe's transactions: hashes that are known elsewhere, signatures in their order, payments to and fro."""

from __future__ import annotations

from decimal import Decimal

import pytest
from eth_keys.datatypes import Signature
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.core.errors import InputError
from chimera.treasury.evm import payments, safe
from chimera.treasury.evm.keys import EvmKey
from chimera.treasury.evm.types import GWEI, Envelope, Network, SafeTx, Sealed, Token
from chimera.treasury.types import PaymentRequest

SAFE = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
PAYEE = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
USDC = "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB"
NETWORK = Network(chain_id=1, safe=SAFE, relayer=PAYEE, tokens={"USDC": Token(address=USDC, decimals=6)})


def request(amount: int, currency: str = "ETH") -> PaymentRequest:
    return PaymentRequest(
        id="r1",
        debit=payments.fund_account(NETWORK, currency),
        credit=payments.payee_account(NETWORK, PAYEE, currency),
        amount=amount,
        currency=currency,
        category="any",
        requester="worker-1",
        expires_at=payments.NEVER,
    )


def test_the_types_that_are_signed_are_those_of_the_safes_contracts() -> None:
    assert safe.DOMAIN_TYPE.hex() == "47e79534a245952e8b16893a336b85a3d9ea9fa8c573f3d803afb92a79469218"
    assert safe.TX_TYPE.hex() == "bb8310d486368db6bd6f849402fdd73ad53d316b5a4b2644ad6efe0f941286d8"
    assert safe.EXEC.hex() == "6a761202"


@given(st.integers(1, 10**18))
def test_a_payment_of_the_coin_is_so_many_gwei(amount: int) -> None:
    tx = payments.safe_tx(NETWORK, request(amount), 3)
    assert (tx.to, tx.value, tx.data, tx.operation, tx.nonce) == (PAYEE, amount * GWEI, "0x", 0, 3)


@given(st.text("abc", min_size=1, max_size=8), st.text("abc", min_size=1, max_size=8))
def test_no_two_requests_have_the_same_transaction(first: str, second: str) -> None:
    one, other = (payments.safe_tx(NETWORK, request(5).model_copy(update={"id": name}), 3) for name in (first, second))
    assert (one == other) == (first == second) and one.gas_price == 0


@given(st.integers(1, 10**15))
def test_a_payment_in_a_token_is_whole_in_its_units_or_refused(amount: int) -> None:
    exact = Decimal(amount) / 1_000
    if exact != int(exact):
        with pytest.raises(InputError, match="6 digits"):
            payments.safe_tx(NETWORK, request(amount, "USDC"), 0)
    else:
        tx = payments.safe_tx(NETWORK, request(amount, "USDC"), 0)
        assert (tx.to, tx.value) == (USDC, 0) and safe.transferred(tx.data) == exact


@given(st.lists(st.binary(min_size=32, max_size=32).filter(any), min_size=2, max_size=4, unique=True))
def test_signatures_are_packed_by_owner_and_recover_to_them(secrets: list[bytes]) -> None:
    keys = [EvmKey(b"\x01" + secret[1:]) for secret in secrets]
    if len({key.address for key in keys}) < len(keys):
        return
    digest = safe.hash_of(SafeTx(to=PAYEE, value=1, nonce=0), safe=SAFE, chain_id=1)
    packed = safe.packed([key.sign(digest) for key in keys])
    owners = []
    for at in range(0, len(packed), 65):
        signature = Signature(packed[at : at + 64] + bytes([packed[at + 64] - 27]))
        owners.append(signature.recover_public_key_from_msg_hash(digest).to_checksum_address())
    assert owners == sorted((key.address for key in keys), key=str.lower)


def test_one_owner_does_not_sign_twice() -> None:
    signature = EvmKey(b"\1" * 32).sign(b"\2" * 32)
    with pytest.raises(InputError, match="each owner"):
        safe.packed([signature, signature])


def test_a_hash_is_of_one_chain_and_one_safe() -> None:
    tx = SafeTx(to=PAYEE, value=1, nonce=0)
    found = {safe.hash_of(tx, safe=where, chain_id=chain) for where in (SAFE, USDC) for chain in (1, 137)}
    assert len(found) == 4


def test_a_transaction_has_the_hash_that_the_chain_gives_it() -> None:
    from eth_account import Account

    envelope = Envelope(chain_id=137, nonce=7, to=SAFE, data="0x6a761202", gas=100_000, max_fee=30 * GWEI, tip=GWEI)
    told = {"type": 2, "chainId": 137, "nonce": 7, "to": SAFE, "value": 0, "data": "0x6a761202", "gas": 100_000}
    told |= {"maxFeePerGas": 30 * GWEI, "maxPriorityFeePerGas": GWEI}
    wanted = Account.sign_transaction(told, b"\7" * 32)
    sealed = EvmKey(b"\7" * 32).seal(envelope)
    assert sealed == Sealed(raw=wanted.raw_transaction.to_0x_hex())
    assert sealed.hash == wanted.hash.to_0x_hex()


@pytest.mark.parametrize("owners", [[], [SAFE], [SAFE, SAFE], [SAFE, "0x" + "0" * 40]])
def test_a_safe_that_nobody_could_use_is_not_set_up(owners: list[str]) -> None:
    with pytest.raises(InputError, match="different owners"):
        safe.setup(owners, 2)


def test_an_address_with_a_wrong_digit_is_refused() -> None:
    with pytest.raises(ValidationError, match="checksum"):
        SafeTx(to=PAYEE[:-1] + "8", value=1, nonce=0)
    assert SafeTx(to=PAYEE.lower(), value=1, nonce=0).to == PAYEE
