"""Celery with a durable Redis: a server of our own, late acknowledgement, results by Redis' own notifications."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.peers.measure import BLOCK, PROCESSES, Call, Exchange, Reply, Work

STOP_S = 20.0


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with the block: asked first, killed if it does not listen."""
    with log.open("ab") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def _redis(folder: Path, fsync: str) -> Iterator[str]:
    """A Redis on loopback that appends every write to a file and syncs it `everysec` or `always`; its URL."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("celery needs redis-server: on Debian and Ubuntu, apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": "yes", "appendfsync": fsync}
    command = [program, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
    with _process(command, folder / "redis.log"):
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def _workers(work: Work, folder: Path) -> Iterator[None]:
    """PROCESSES processes: one node that forks where agents compute, one node of threads each where they wait."""
    nodes = PROCESSES if work.think_s else 1
    pool = ["--pool=threads", f"--concurrency={work.slots}"] if work.think_s else [f"--concurrency={PROCESSES}"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=ERROR"]
    command = [sys.executable, "-m", "celery", "--app=bench.peers.celery_app", "worker", *pool, *quiet]
    with contextlib.ExitStack() as stack:
        for number in range(nodes):
            stack.enter_context(_process([*command, f"--hostname=peer{number}@%h"], folder / f"worker{number}.log"))
        yield


@contextmanager
def _celery(work: Work, fsync: str) -> Iterator[Exchange]:
    with tempfile.TemporaryDirectory(prefix="peers") as name, _redis(Path(name), fsync) as url:
        os.environ.update(PEERS_BROKER=f"{url}/0", PEERS_BACKEND=f"{url}/1")
        from celery.result import ResultSet  # type: ignore[import-untyped]

        from bench.peers.celery_app import agent, app

        def submit(calls: Iterator[Call]) -> Any:
            with app.producer_pool.acquire(block=True) as producer:
                return ResultSet(
                    [
                        agent.apply_async((call.id, call.n, work.think_s), producer=producer)
                        for call in itertools.islice(calls, BLOCK)
                    ]
                )

        def exchange(calls: Iterator[Call]) -> Iterator[Reply]:
            blocks = deque([submit(calls), submit(calls)])
            while (block := blocks.popleft()).results:
                for _, meta in block.iter_native():
                    id_, value = meta["result"]
                    yield id_, value
                blocks.append(submit(calls))

        with _workers(work, Path(name)):
            yield exchange


celery = partial(_celery, fsync="everysec")
celery_always = partial(_celery, fsync="always")
