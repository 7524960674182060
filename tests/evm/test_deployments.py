"""The addresses of the Safe's contracts follow from their code: what is listed is what npm's package compiles to."""

from __future__ import annotations

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from chimera.treasury.evm.safe import DEPLOYMENTS
from tests.evm.anvil import artifact

DEPLOYER = bytes.fromhex("914d7Fec6aaC8cd542e72Bca78B30650d45643d7")
"""The Safe's singleton factory, which deploys by CREATE2 (EIP-1014), here with salt zero."""


def address_of(name: str) -> str:
    code = bytes.fromhex(artifact(name)["bytecode"][2:])
    return str(to_checksum_address(keccak(b"\xff" + DEPLOYER + bytes(32) + keccak(code))[12:]))


def test_the_listed_addresses_are_those_of_the_code() -> None:
    listed = DEPLOYMENTS["1.5.0"]
    assert listed.singleton == address_of("Safe.sol/Safe")
    assert listed.singleton_l2 == address_of("SafeL2.sol/SafeL2")
    assert listed.factory == address_of("proxies/SafeProxyFactory.sol/SafeProxyFactory")
    handler = "handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler"
    assert listed.fallback_handler == address_of(handler)
