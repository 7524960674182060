"""A request of the ledger as a transaction of the Safe (pure): the one that pays exactly it, and no other does.

Accounts are `safe:CHAIN:0x…` (the fund), `evm:CHAIN:0x…` (a payee), `gas:CHAIN` and `gasfees:CHAIN`; those of a token
have its currency behind them, as an account has one: `safe:1:0x…:USDC`.
"""

from __future__ import annotations

from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.treasury.evm import safe
from chimera.treasury.evm.types import GWEI, Address, Network, SafeTx
from chimera.treasury.types import NANO, Id, PaymentRequest, shown

NEVER = 2**53 - 1
"""What must not expire before the chain has spoken: a signature that is out is good for ever."""

COIN_GAS = 60_000
TOKEN_GAS = 150_000
"""`safeTxGas`: what the payment itself gets at least. Not zero: so one that fails uses its nonce up, and is over."""


class Payee(Frozen):
    """Whom a request pays, out of which fund."""

    fund: Id
    address: Address
    currency: str


def fund_account(network: Network, currency: str = "") -> str:
    """The account of what the Safe holds of a currency (the chain's coin, or a token)."""
    return f"safe:{network.chain_id}:{network.safe}{_suffix(network, currency)}"


def payee_account(network: Network, address: str, currency: str = "") -> str:
    """The account of an address outside."""
    return f"evm:{network.chain_id}:{address}{_suffix(network, currency)}"


def gas_fund(network: Network) -> str:
    """What the relayer has for gas."""
    return f"gas:{network.chain_id}"


def gas_fees(network: Network) -> str:
    """Whom gas is paid to: metered."""
    return f"gasfees:{network.chain_id}"


def carries(network: Network, request: PaymentRequest) -> bool:
    """Whether this request is a payment out of this Safe."""
    return request.debit in {fund_account(network, currency) for currency in (network.coin, *network.tokens)}


def payee(network: Network, request: PaymentRequest) -> Payee:
    """Raises InputError for a request that is no payment out of this Safe, or to no address."""
    if not carries(network, request) or request.debit != fund_account(network, request.currency):
        raise InputError(f"{request.id} is not paid out of {fund_account(network, request.currency)}")
    prefix = f"evm:{network.chain_id}:"
    address = request.credit.removeprefix(prefix)[:42]
    try:
        found = Payee(fund=request.debit, address=address, currency=request.currency)
    except ValueError:
        found = None
    if found is None or request.credit != payee_account(network, found.address, request.currency):
        raise InputError(f"{request.credit} is no address: write {prefix}0x… with its checksum (EIP-55)")
    if found.address == network.safe or found.address in {token.address for token in network.tokens.values()}:
        raise InputError(f"{request.credit} is the Safe or a token's contract: money sent there is lost or pays nobody")
    return found


def safe_tx(network: Network, request: PaymentRequest, nonce: int) -> SafeTx:
    """What the Safe has to do for this request, at this nonce of its own. Raises InputError.

    `base_gas` is the first 60 bits of the request's digest. A Safe that refunds nothing does not look at it, but it is
    signed: so no two requests have the same transaction, though they pay the same to the same.
    """
    to = payee(network, request).address
    mark = int(request.digest()[:15], 16)
    token = network.tokens.get(request.currency) if request.currency != network.coin else None
    if token is None:
        return SafeTx(to=to, value=request.amount * GWEI, safe_tx_gas=COIN_GAS, base_gas=mark, nonce=nonce)
    units, rest = divmod(request.amount * 10**token.decimals, NANO)
    if rest:
        raise InputError(
            f"{shown(request.amount, request.currency)} cannot be paid: {request.currency} has {token.decimals} digits"
            " after the point"
        )
    data = safe.transfer(to, units)
    return SafeTx(to=token.address, value=0, data=data, safe_tx_gas=TOKEN_GAS, base_gas=mark, nonce=nonce)


def gas_request(network: Network, request: PaymentRequest, number: int, amount: int) -> PaymentRequest:
    """The request for the gas of a payment; `number` tells several of one payment apart. `amount` in billionths."""
    return PaymentRequest(
        id=gas_id(request, number),
        debit=gas_fund(network),
        credit=gas_fees(network),
        amount=amount,
        currency=network.coin,
        category="gas",
        requester="evm",
        mission=request.mission,
        reason=f"gas for {request.id}",
        expires_at=NEVER,
    )


def gas_id(request: PaymentRequest, number: int) -> str:
    return f"gas-{request.digest()[:40]}-{number}"


def _suffix(network: Network, currency: str) -> str:
    return f":{currency}" if currency not in ("", network.coin) else ""
