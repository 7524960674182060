"""One peer, once: `python -m bench.peers.run ray-actors --tasks 5000` prints its figures as JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict

from bench.peers.catalog import PEERS
from bench.peers.measure import Work, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--think", type=float, default=0.0, help="milliseconds that an agent takes to reply")
    parser.add_argument("--consensus", type=int, default=1, help="agents asked for each task; their majority decides")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    try:
        start = PEERS[options.peer].load()
    except ImportError as error:
        raise SystemExit(f"{options.peer}: {error}; pip install 'chimera[bench]'") from error
    print(json.dumps(asdict(measure(start, Work(options.tasks, options.consensus, options.think / 1_000)))))


if __name__ == "__main__":
    main()
