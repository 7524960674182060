"""Public randomness: a number a round that nobody could know before, the same for every validator.

The beacon is drand's quicknet (https://docs.drand.love, chain 52db9ba7...): every 3 s a threshold of independent
parties makes one BLS signature of the round's number, and the round's randomness is the signature's SHA-256.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import http.client
import json
import re
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Protocol

import bittensor_core
from blake3 import blake3

from chimera.arena.canonical import MAX_INT
from chimera.core.errors import ChainError, InputError

QUICKNET = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
"""The hash of quicknet's parameters, its public key among them: the chain's name in the HTTP API."""

GENESIS_S = 1_692_803_367
"""When quicknet's round 1 was published, in seconds since the epoch."""

PERIOD_S = 3

ENDPOINTS = (
    "https://api.drand.sh",
    "https://api2.drand.sh",
    "https://api3.drand.sh",
    "https://drand.cloudflare.com",
)
"""Relays of the League of Entropy. None is trusted: what they say is verified."""

MAX_ENDPOINTS = 16

MAX_PULSE_BYTES = 4_096

MAX_CACHED = 4_096

_SEEDED = "chimera.arena 2026-11 seeded beacon"

_SIGNATURE = re.compile(r"[0-9a-f]{96}")


class Beacon(Protocol):
    """A source of public randomness, one value a round."""

    async def randomness(self, round: int) -> str:
        """The 64 hexadecimal digits of `round`, 1 or more. Raises ChainError if they cannot be had, or not yet."""
        ...


def current_round(now_s: float) -> int:
    """The last round of quicknet that was due at `now_s`, in seconds since the epoch; 0 before the first."""
    return max(0, int((now_s - GENESIS_S) // PERIOD_S) + 1)


def verified(round: int, signature: str) -> str:
    """The randomness that `signature`, 96 hexadecimal digits, proves `round` of quicknet to have.

    Raises ChainError if it is not quicknet's. A BLS signature of a round is the very key that opens what was sealed to
    that round (identity-based encryption: Boneh and Franklin, 2001, section 4), and `bittensor_core` seals to
    quicknet's public key: so a fresh secret is sealed, and who can open it has the signature. Points outside the
    group, of which a valid one has many for the same pairing, are refused by `bittensor_core` as it reads them.
    """
    if not 1 <= round <= MAX_INT:
        raise ChainError(f"there is no round {round}: rounds count from 1")
    if not _SIGNATURE.fullmatch(signature):
        raise ChainError(f"the signature of round {round} is not 96 lower-case hexadecimal digits")
    secret = b"sealed to a round"
    sealed, _ = bittensor_core.encrypt_at_round(secret, round)
    try:
        opened: bytes | None = bittensor_core.decrypt_with_signature(sealed, signature)
    except ValueError:
        opened = None
    if opened != secret:
        raise ChainError(f"that is not quicknet's signature of round {round}")
    return hashlib.sha256(bytes.fromhex(signature)).hexdigest()


class DrandBeacon:
    """drand's quicknet over HTTP. Relays are asked in turn until one gives what can be verified.

    Raises InputError for addresses that are not http:// or https://; http:// does no harm, since nothing is secret and
    all is verified.
    """

    def __init__(self, endpoints: Sequence[str] = ENDPOINTS, *, timeout_s: float = 10.0) -> None:
        if not 0 < len(endpoints) <= MAX_ENDPOINTS:
            raise InputError(f"give from 1 to {MAX_ENDPOINTS} relays of drand")
        for endpoint in endpoints:
            if not endpoint.startswith(("https://", "http://")):
                raise InputError(f"{endpoint!r} is not a relay of drand: use https://HOST")
        self._endpoints = tuple(endpoint.rstrip("/") for endpoint in endpoints)
        self._timeout_s = timeout_s
        self._cache: OrderedDict[int, str] = OrderedDict()

    async def randomness(self, round: int) -> str:
        if round in self._cache:
            self._cache.move_to_end(round)
            return self._cache[round]
        if not 1 <= round <= MAX_INT:
            raise ChainError(f"there is no round {round}: rounds count from 1")
        faults = []
        for endpoint in self._endpoints:
            try:
                async with asyncio.timeout(self._timeout_s + 1.0):  # the thread has its own limit, for each step
                    found = await asyncio.to_thread(_pulse, endpoint, round, self._timeout_s)
            except TimeoutError:
                faults.append(f"{endpoint}: no answer within {self._timeout_s:g} s")
            except ChainError as error:
                faults.append(f"{endpoint}: {error}")
            else:
                self._cache[round] = found
                while len(self._cache) > MAX_CACHED:
                    self._cache.popitem(last=False)
                return found
        raise ChainError(f"no relay of drand gave round {round}: {'; '.join(faults)}")


class SeededBeacon:
    """A beacon for demos and tests: BLAKE3 of a seed and the round. Whoever knows the seed PREDICTS every round, and
    can prepare its answers: never decide by it what is worth anything."""

    def __init__(self, seed: str) -> None:
        self._seed = seed

    async def randomness(self, round: int) -> str:
        if not 1 <= round <= MAX_INT:
            raise ChainError(f"there is no round {round}: rounds count from 1")
        return blake3(f"{round}\n{self._seed}".encode(), derive_key_context=_SEEDED).hexdigest()


def _pulse(endpoint: str, round: int, timeout_s: float) -> str:
    """Ask one relay for one round. Raises ChainError."""
    try:
        said = json.loads(_get(f"{endpoint}/{QUICKNET}/public/{round}", timeout_s))
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise ChainError(str(error) or type(error).__name__) from error
    if not isinstance(said, dict) or not isinstance(said.get("signature"), str):
        raise ChainError("it gave no signature")
    found = verified(round, said["signature"])
    if said.get("randomness") != found:
        raise ChainError("the randomness that it gave is not the hash of the signature")
    return found


def _get(url: str, timeout_s: float) -> bytes:
    deadline = time.monotonic() + timeout_s
    body = b""
    with _opener().open(url, timeout=timeout_s) as response:
        while chunk := response.read1(MAX_PULSE_BYTES):  # read() would wait on a relay that sends a byte now and then
            body += chunk
            if len(body) > MAX_PULSE_BYTES:
                raise ValueError(f"it said more than {MAX_PULSE_BYTES} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {timeout_s:g} s")
    return body


@functools.cache
def _opener() -> Any:
    """Speaks HTTP and HTTPS alone: a relay cannot redirect to a file."""
    opener = urllib.request.OpenerDirector()
    opener.addheaders = [("User-Agent", "chimera")]  # some relays turn away the default
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
