"""What a screening costs: milliseconds of CPU for texts of growing size, and hostile ones that try to make it slow.

    python -m bench.gateway [--rounds 15] [--json]

The texts are made, so that nothing has to be there: an e-mail repeated to a size, and runs of characters on which a
pattern that looks back would take quadratic time.
"""

from __future__ import annotations

import argparse
import json
import random
import time

from bench.injection.documents import document
from chimera.security.gateway.gateway import SecurityGateway

SIZES = (500, 2_000, 8_000, 32_000, 100_000)
RUNS = (
    "@1",
    "a ",
    "A",
    "<",
    "![",
    "<!--",
    "ignore ",
    "%41",
    "i g n o r e ",
    "||",
    "<a hidden>",
    "1",
    "&#65;",
    "\n",
    "e\u0301",
)


def texts() -> dict[str, str]:
    """By name; the hostile ones are of the largest size that is taken."""
    rng = random.Random(1)
    mail = "\n".join(document(family, rng) for family in ("mail", "notice", "news", "forum") for _ in range(80))
    made = {f"{size} characters": (mail * (size // len(mail) + 1))[:size] for size in SIZES}
    return made | {f"hostile {run!r}": (run * SIZES[-1])[: SIZES[-1]] for run in RUNS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    gateway, found = SecurityGateway(), {}
    for name, text in texts().items():
        times = []
        for _ in range(options.rounds if name[0].isdigit() else 1):
            started = time.process_time()
            gateway.screen(text, "bench")
            times.append((time.process_time() - started) * 1000)
        found[name] = sorted(times)[round(0.95 * (len(times) - 1))]
    if options.json:
        print(json.dumps(found))
        return
    for name, milliseconds in found.items():
        print(f"{name:24} p95 {milliseconds:8.1f} ms")


if __name__ == "__main__":
    main()
