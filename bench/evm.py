"""What the chain's side of the treasury costs: signatures a second, and payments a second through a local node.

    python -m bench.evm [--signatures 2000] [--payments 40] [--json]

`coincurve` and `python` sign the same 32 bytes with the same key, in turns; `ratio` is of medians. A payment is read
from the ledger (SQLite), signed by both owners of a Safe and by the relayer, each having read and remembered, recorded
(with an fsync each), sent, mined, confirmed three blocks deep and posted, its gas too; the node (anvil, on loopback)
makes a block when it is told to. Payments need npm; without it only signatures are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from chimera.treasury.evm.keys import EvmKey
from chimera.treasury.types import TransferKind

SECRET = b"\x07" * 32
BATCH = 20


def signing(count: int) -> dict[str, float]:
    """Microseconds for a signature, by each."""
    from eth_keys.backends.native.main import NativeECCBackend
    from eth_keys.datatypes import PrivateKey

    key, native, slow = EvmKey(SECRET), NativeECCBackend(), PrivateKey(SECRET)
    fast_us, slow_us = [], []
    for number in range(count):
        digest = number.to_bytes(32)
        started = time.perf_counter()
        key.sign(digest)
        between = time.perf_counter()
        fast_us.append(1e6 * (between - started))
        if number % BATCH == 0:
            native.ecdsa_sign(digest, slow)
            slow_us.append(1e6 * (time.perf_counter() - between))
    fast, pure = statistics.median(fast_us), statistics.median(slow_us)
    return {"coincurve_us": round(fast, 1), "python_us": round(pure, 1), "ratio": round(pure / fast, 1)}


async def paying(count: int) -> dict[str, float]:
    """Payments a second, several on their way at once."""
    from tests.evm.anvil import ANVIL, Anvil
    from tests.evm.house import ETH, EvmHouse

    if not ANVIL.exists() and shutil.which("npm") is None:
        return {}
    anvil = Anvil()
    anvil.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            house = await EvmHouse(anvil, Path(folder)).begin()
            requests = [await house.reserved(ETH // 100) for _ in range(count)]
            started = time.perf_counter()
            for at in range(0, count, BATCH):
                for request in requests[at : at + BATCH]:
                    await house.payer.pay(request.id)
                await house.mined(3)
            took_s = time.perf_counter() - started
            posted = [await house.end(request) for request in requests].count(TransferKind.POST)
            await house.close()
    finally:
        anvil.stop()
    return {"payments": posted, "seconds": round(took_s, 2), "payments_per_s": round(posted / took_s, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signatures", type=int, default=2_000)
    parser.add_argument("--payments", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    told = parser.parse_args()
    found = signing(told.signatures)
    if told.payments:
        found |= asyncio.run(paying(told.payments))
    print(json.dumps(found) if told.json else "\n".join(f"{name:>16} {value:>10}" for name, value in found.items()))


if __name__ == "__main__":
    main()
