"""What a capability costs: to verify, to issue, to narrow, beside bare biscuit; and how soon a revocation is seen.

    python -m bench.capabilities [--rounds 3000] [--heard 20] [--redis URL] [--json]

Microseconds a call, p50 and p99, our way and the bare one in turn. Bare is biscuit-python alone with the same blocks:
parse, check the signatures, run the Datalog of the same request with the same limits. Ours adds the closed language of
caveats, the look at revocations, the keys' ids and the grant. `lookup` is `is_revoked` among 50,000. `heard_ms` is from
the start of `revoke` in this process to its sight in another one that asks without pause.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import biscuit_auth
from biscuit_auth import Biscuit, BiscuitBuilder, BlockBuilder, PrivateKey

from chimera.core.clock import SystemClock
from chimera.security.biscuits import POLICIES
from chimera.security.capabilities import CapabilityAuthority, attenuate
from chimera.security.capability_keys import KeyFolder
from chimera.security.caveats import MaxUsd, OnResource
from chimera.security.revocation import open_revocations

REVOKED = 50_000

HEARS = """
import sys, time
from chimera.core.clock import SystemClock
from chimera.security.revocation import open_revocations
revocations = open_revocations(sys.argv[1], clock=SystemClock())
while not revocations.fresh: revocations.is_revoked("x"); time.sleep(0.01)
for n in range(int(sys.argv[2])):
    print("ready", flush=True)
    while not revocations.is_revoked(f"heard-{n}"): time.sleep(0.0005)
    print(time.time(), flush=True)
"""

Work = Callable[[], object]


def figures(ours: Work, bare: Work | None, rounds: int) -> dict[str, float]:
    """Both in turn, after a few that do not count."""
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for n in range(rounds + 50):
        for name, work in (("ours", ours), ("bare", bare)):
            if work is not None:
                started = time.perf_counter()
                work()
                if n >= 50:
                    times[name].append((time.perf_counter() - started) * 1e6)
    found = {"p50_us": statistics.median(times["ours"]), "p99_us": percentile(times["ours"], 0.99)}
    if bare is not None:
        found |= {"bare_p50_us": statistics.median(times["bare"]), "bare_p99_us": percentile(times["bare"], 0.99)}
        found["ratio"] = found["p50_us"] / found["bare_p50_us"]
    return found


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * len(values)))]


class Bare:
    """The same blocks by biscuit-python alone."""

    def __init__(self, private: bytes) -> None:
        secret: Any = PrivateKey.from_bytes
        self._private = secret(private, biscuit_auth.Algorithm.Ed25519)  # type: ignore[attr-defined]
        self._public = biscuit_auth.KeyPair.from_private_key(self._private).public_key

    def issue(self) -> str:
        end = datetime.now(UTC) + timedelta(hours=1)
        builder = BiscuitBuilder(
            'subject("a"); under("swarm:read", "missions/"); check if time($t), $t < {end};', {"end": end}
        )
        return builder.build(self._private).to_base64()

    def attenuate(self, text: str) -> str:
        block = BlockBuilder("check if micro_usd($a), $a <= 1000000;")
        return Biscuit.from_base64(text, self._public).append(block).to_base64()

    def verify(self, text: str) -> None:
        values = {"operation": "swarm:read", "resource": "missions/42", "micro_usd": 0, "time": datetime.now(UTC)}
        facts = " ".join(f"{name}({{{name}}});" for name in values)
        builder: Any = biscuit_auth.AuthorizerBuilder(facts + POLICIES, values)
        limits = builder.limits()
        limits.max_time = timedelta(seconds=1)
        builder.set_limits(limits)
        builder.build(Biscuit.from_base64(text, self._public)).authorize()


def costs(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    clock = SystemClock()
    keys = KeyFolder(folder / "keys", clock=clock)
    revocations = open_revocations(f"sqlite:///{folder / 'revoked.db'}", clock=clock)
    authority = CapabilityAuthority(keys, revocations=revocations)
    bare = Bare(keys.signing_key()[1])
    found = {}
    for narrowed in (0, 1, 3, 15):
        token = authority.issue("a", "swarm:read", "missions/*", ttl_s=3600)
        for n in range(narrowed):
            token = attenuate(token, MaxUsd(1.0) if n % 2 else OnResource("missions/42"))
        text = token.text.rpartition(".")[2]
        found[f"verify, narrowed {narrowed} times"] = figures(
            lambda token=token: authority.verify(token, "swarm:read", "missions/42"),  # type: ignore[misc]
            lambda text=text: bare.verify(text),  # type: ignore[misc]
            rounds if narrowed < 15 else rounds // 5,
        )
    token = authority.issue("a", "swarm:read", "missions/*", ttl_s=3600)
    text = token.text.rpartition(".")[2]
    found["issue"] = figures(lambda: authority.issue("a", "swarm:read", "missions/*", ttl_s=3600), bare.issue, rounds)
    found["narrow"] = figures(lambda: attenuate(token, MaxUsd(1.0)), lambda: bare.attenuate(text), rounds)
    for n in range(REVOKED):
        revocations._known.add(f"{n:032x}", clock.now() + 3600)
    found["lookup"] = figures(lambda: revocations.is_revoked("f" * 32), None, rounds * 10)
    return found


def heard(url: str, times: int) -> dict[str, float]:
    """Milliseconds until another process sees a revocation."""
    revocations = open_revocations(url, clock=SystemClock())
    with subprocess.Popen([sys.executable, "-c", HEARS, url, str(times)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        took = []
        for n in range(times):
            child.stdout.readline()
            time.sleep(0.037 * (n % 7))  # not in step with its polls
            started = time.time()
            revocations.revoke(f"heard-{n}", started + 60)
            took.append((float(child.stdout.readline()) - started) * 1000)
    return {"p50_ms": statistics.median(took), "max_ms": max(took)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3000)
    parser.add_argument("--heard", type=int, default=20)
    parser.add_argument("--redis", default="", help="a Redis to hear of revocations over, such as redis://127.0.0.1/9")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = costs(Path(name), options.rounds)
        found["heard over SQLite"] = heard(f"sqlite:///{Path(name) / 'heard.db'}", options.heard)
        if options.redis:
            found["heard over Redis"] = heard(options.redis, options.heard)
    if options.json:
        print(json.dumps(found))
        return
    for name, figure in found.items():
        print(f"{name:27} " + "  ".join(f"{key} {value:.1f}" for key, value in figure.items()))


if __name__ == "__main__":
    main()
