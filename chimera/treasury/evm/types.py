"""What the chain's side of the treasury speaks of: addresses, a network, a Safe's transaction, what carries it.

Amounts on the chain are wei (or a token's smallest unit), in the ledger billionths: one billionth of an ETH is a gwei.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from chimera.core.errors import MissingExtra
from chimera.core.types import Frozen
from chimera.treasury.types import Currency, Id, Line

try:
    from eth_utils.address import to_checksum_address
    from eth_utils.crypto import keccak
except ImportError:
    raise MissingExtra("eth-utils", "evm") from None

GWEI = 10**9
"""Wei: what a billionth of the chain's coin is."""

NATIVE = {1: "ETH", 11155111: "ETH", 17000: "ETH", 560048: "ETH", 31337: "ETH", 137: "POL", 80002: "POL"}
"""The coins of the chains we know: Ethereum, Sepolia, Holesky, Hoodi, a local node; Polygon, Amoy."""

MAX_WEI = 2**128
MAX_GAS = 30_000_000


def _checksummed(text: str) -> str:
    found = str(to_checksum_address(text))
    if text not in (found, found.lower()):
        raise ValueError(f"{text} has a wrong checksum (EIP-55): one of its digits is not what it was")
    return found


Address = Annotated[str, Field(pattern=r"^0x[0-9a-fA-F]{40}$"), AfterValidator(_checksummed)]
"""20 bytes in hex, with the checksum of EIP-55; all in lower case it has none, and is given one."""
Hash = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Data = Annotated[str, Field(pattern=r"^0x([0-9a-f]{2})*$", max_length=20_002)]
Wei = Annotated[int, Field(strict=True, ge=0, lt=MAX_WEI)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]

ZERO = "0x" + "0" * 40


class Token(Frozen):
    """An ERC-20 contract. Only list one that moves what it is told to, and takes no share of it."""

    address: Address
    decimals: Annotated[int, Field(ge=0, le=18)]


class Network(Frozen):
    """A chain, the Safe that pays there, and how: what the payer and every holder of a key are told alike.

    `confirmations` is how deep a payment has to lie before the ledger is told; `max_fee` and `max_gas` bound what one
    transaction may cost; one that has waited for `stuck_blocks` is sent again for more. Ask whether nodes still know
    the state of `confirmations` blocks ago: most keep 128. `signed_approvals`: the approver's key asks for a person's
    own signature, and not only for their word.
    """

    chain_id: Annotated[int, Field(gt=0, lt=2**53)]
    safe: Address
    relayer: Address
    coin: Currency = "ETH"
    tokens: Mapping[Currency, Token] = Field(default_factory=dict, max_length=100)
    confirmations: Annotated[int, Field(ge=1, le=100)] = 64
    max_fee: Annotated[Wei, Field(gt=0)] = 200 * GWEI
    max_tip: Wei = 50 * GWEI
    max_gas: Annotated[int, Field(gt=21_000, le=MAX_GAS)] = 500_000
    stuck_blocks: Annotated[int, Field(ge=1, le=10_000)] = 10
    signed_approvals: bool = True

    @model_validator(mode="after")
    def _coin_of_the_chain(self) -> Network:
        if NATIVE.get(self.chain_id, self.coin) != self.coin:
            raise ValueError(f"the coin of chain {self.chain_id} is {NATIVE[self.chain_id]}, and not {self.coin}")
        if self.coin in self.tokens:
            raise ValueError(f"{self.coin} is the chain's coin, and no token")
        return self


class SafeTx(Frozen):
    """What a Safe is told to do, as its owners sign it (EIP-712). We use no refunds and no delegate calls."""

    to: Address
    value: Wei
    data: Data = "0x"
    operation: Annotated[int, Field(ge=0, le=1)] = 0
    safe_tx_gas: Count = 0
    base_gas: Count = 0
    gas_price: Wei = 0
    gas_token: Address = ZERO
    refund_receiver: Address = ZERO
    nonce: Count


class SafeSignature(Frozen):
    """What one owner of the Safe signed: r, s and v, 65 bytes in hex."""

    owner: Address
    signature: Annotated[str, Field(pattern=r"^0x[0-9a-f]{130}$")]


class Envelope(Frozen):
    """The relayer's transaction that carries a Safe's to the chain (EIP-1559), and pays the gas; fees in wei."""

    chain_id: Count
    nonce: Count
    to: Address
    data: Data
    gas: Annotated[Count, Field(gt=21_000, le=MAX_GAS)]
    max_fee: Wei
    tip: Wei

    @property
    def worst(self) -> int:
        """Wei that it costs at most."""
        return self.gas * self.max_fee


class Sealed(Frozen):
    """A signed envelope, as it is sent."""

    raw: Data

    @property
    def hash(self) -> str:
        return "0x" + keccak(bytes.fromhex(self.raw[2:])).hex()


class SignedTx(Frozen):
    """What a key has signed for a request, when the newest block was `since`."""

    tx: SafeTx
    since: Count


class Declined(Frozen):
    """A holder of a key does not sign this, and why. `final`: it never will; else other payments stand in the way."""

    request_id: Id
    why: Line
    final: bool = True
