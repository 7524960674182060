"""A Safe's transactions (1.3.0 and later): their hash, its signatures, what is sent; and a new Safe (pure).

The hash is EIP-712's over the SafeTx, with the chain and the Safe in its domain: a signature is good for one Safe on
one chain, once. https://github.com/safe-global/safe-smart-account
"""

from __future__ import annotations

from collections.abc import Sequence

from chimera.core.errors import ChainError, InputError, MissingExtra
from chimera.core.types import Frozen
from chimera.treasury.evm.port import Log
from chimera.treasury.evm.types import ZERO, Address, Hash, SafeSignature, SafeTx

try:
    from eth_abi.abi import decode, encode
    from eth_utils.address import to_checksum_address
    from eth_utils.crypto import keccak
except ImportError:
    raise MissingExtra("eth-abi", "evm") from None

DOMAIN_TYPE = keccak(text="EIP712Domain(uint256 chainId,address verifyingContract)")
TX_TYPE = keccak(
    text="SafeTx(address to,uint256 value,bytes data,uint8 operation,uint256 safeTxGas,uint256 baseGas,"
    "uint256 gasPrice,address gasToken,address refundReceiver,uint256 nonce)"
)
EXECUTED = "0x" + keccak(text="ExecutionSuccess(bytes32,uint256)").hex()
FAILED = "0x" + keccak(text="ExecutionFailure(bytes32,uint256)").hex()
CREATED = "0x" + keccak(text="ProxyCreation(address,address)").hex()


def selector(signature: str) -> bytes:
    return bytes(keccak(text=signature)[:4])


EXEC = selector("execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)")
NONCE_CALL = "0x" + selector("nonce()").hex()


class Deployment(Frozen):
    """Where the contracts of a version of Safe are, on every chain that has them: where follows from their code."""

    singleton: Address
    singleton_l2: Address
    """The same with more events; what Safe's own interfaces ask for on every chain but Ethereum."""
    factory: Address
    fallback_handler: Address


DEPLOYMENTS = {
    "1.4.1": Deployment(
        singleton="0x41675C099F32341bf84BFc5382aF534df5C7461a",
        singleton_l2="0x29fcB43b46531BcA003ddC8FCB67FFE91900C762",
        factory="0x4e1DCf7AD4e460CfD30791CCC4F9c8a4f820ec67",
        fallback_handler="0xfd0732Dc9E303f09fCEf3a7388Ad10A83459Ec99",
    ),
    "1.5.0": Deployment(
        singleton="0xFf51A5898e281Db6DfC7855790607438dF2ca44b",
        singleton_l2="0xEdd160fEBBD92E350D4D398fb636302fccd67C7e",
        factory="0x14F2982D601c9458F93bd70B218933A6f8165e7b",
        fallback_handler="0x3EfCBb83A4A7AfcB4F68D501E2c2203a38be77f4",
    ),
}
"""The canonical ones. Look whether the chain has them before money is sent there."""


class Execution(Frozen):
    """A Safe's transaction that was executed, in a block; `ok` unless what it was to do failed."""

    tx_hash: Hash
    ok: bool
    block: int
    carrier: Hash


def hash_of(tx: SafeTx, *, safe: str, chain_id: int) -> bytes:
    """What its owners sign: 32 bytes."""
    domain = keccak(encode(["bytes32", "uint256", "address"], [DOMAIN_TYPE, chain_id, safe]))
    told = encode(
        ["bytes32", "address", "uint256", "bytes32", "uint8", *["uint256"] * 3, "address", "address", "uint256"],
        [
            *(TX_TYPE, tx.to, tx.value, keccak(_bytes(tx.data)), tx.operation, tx.safe_tx_gas, tx.base_gas),
            *(tx.gas_price, tx.gas_token, tx.refund_receiver, tx.nonce),
        ],
    )
    return bytes(keccak(b"\x19\x01" + domain + keccak(told)))


def packed(signatures: Sequence[SafeSignature]) -> bytes:
    """Signatures as the Safe reads them: by owner, the lowest address first. Raises InputError for two of one owner."""
    if len({each.owner for each in signatures}) != len(signatures):
        raise InputError("a Safe takes one signature of each owner")
    return b"".join(_bytes(each.signature) for each in sorted(signatures, key=lambda each: int(each.owner, 16)))


def execution(tx: SafeTx, signatures: Sequence[SafeSignature]) -> str:
    """The call of `execTransaction`, in hex."""
    return call(
        EXEC,
        ["address", "uint256", "bytes", "uint8", *["uint256"] * 3, "address", "address", "bytes"],
        [
            *(tx.to, tx.value, _bytes(tx.data), tx.operation, tx.safe_tx_gas, tx.base_gas),
            *(tx.gas_price, tx.gas_token, tx.refund_receiver, packed(signatures)),
        ],
    )


def executed(log: Log) -> Execution | None:
    """What an event of a Safe says of a transaction; None where it speaks of something else.

    The hash is indexed since 1.4.0, and in the data before.
    """
    if not log.topics or log.topics[0] not in (EXECUTED, FAILED):
        return None
    tx_hash = log.topics[1] if len(log.topics) > 1 else log.data[:66]
    return Execution(tx_hash=tx_hash, ok=log.topics[0] == EXECUTED, block=log.block, carrier=log.tx_hash)


def transfer(to: str, amount: int) -> str:
    """The call of an ERC-20 token that moves `amount`, in hex."""
    return call(selector("transfer(address,uint256)"), ["address", "uint256"], [to, amount])


def transferred(data: str) -> int:
    """How much the call of a token moves; 0 for what is no transfer."""
    if not data.startswith("0x" + selector("transfer(address,uint256)").hex()):
        return 0
    return int(decode(["address", "uint256"], _bytes(data)[4:])[1])


def balance_call(owner: str) -> str:
    """The call that asks an ERC-20 token for a balance."""
    return call(selector("balanceOf(address)"), ["address"], [owner])


def setup(owners: Sequence[str], threshold: int, fallback_handler: str = ZERO) -> str:
    """How a new Safe is told who owns it, in hex. Raises InputError for what a Safe would refuse."""
    if not 1 <= threshold <= len(set(owners)) or len(set(owners)) != len(owners) or ZERO in owners:
        raise InputError("a Safe has different owners, and asks for the signatures of at least one and at most all")
    return call(
        selector("setup(address[],uint256,address,bytes,address,address,uint256,address)"),
        ["address[]", "uint256", "address", "bytes", "address", "address", "uint256", "address"],
        [list(owners), threshold, ZERO, b"", fallback_handler, ZERO, 0, ZERO],
    )


def creation(singleton: str, initializer: str, salt: int) -> str:
    """The call of the proxy factory that makes a new Safe."""
    return call(
        selector("createProxyWithNonce(address,bytes,uint256)"),
        ["address", "bytes", "uint256"],
        [singleton, _bytes(initializer), salt],
    )


def created(logs: Sequence[Log], factory: str) -> str | None:
    """The address of the Safe that a transaction of the factory made. It is indexed since 1.4.0."""
    for log in logs:
        if log.topics and log.topics[0] == CREATED and log.address == factory:
            word = log.topics[1] if len(log.topics) > 1 else log.data[:66]
            return str(to_checksum_address("0x" + word[-40:]))
    return None


def call(name: bytes, kinds: Sequence[str], values: Sequence[object]) -> str:
    return "0x" + (name + encode(list(kinds), list(values))).hex()


def number(answer: bytes) -> int:
    """The one number that a contract answered. Raises ChainError where there is none."""
    if len(answer) != 32:
        raise ChainError("the contract does not answer as it should: is its address right, and on this chain?")
    (found,) = decode(["uint256"], answer)
    return int(found)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text[2:])
