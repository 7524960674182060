"""Processes that end as soon as a store has answered: `af verify` of a few blocks is one."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from pathlib import Path

RUNS = 10

SHORT_RUN = """
import asyncio, sys
from chimera.storage.objects import open_objects

async def run(url):
    store = open_objects(url)
    try:
        await asyncio.gather(store.get("a/b"), store.exists("a/c"), store.exists("d"), return_exceptions=True)
    finally:
        await store.close()

asyncio.run(run(sys.argv[1]))
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_process_that_ends_at_once_ends_well(tmp_path: Path) -> None:
    """No thread of a store's touches an interpreter that is ending: that would be SIGABRT, once in a few runs."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x" * 100_000)
    loop = f'for i in $(seq {RUNS}); do "{sys.executable}" -c "$0" "$1" || echo ended with $?; done'
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for url in (f"http://127.0.0.1:{server.server_port}", tmp_path.as_uri()):
            command = ["sh", "-c", loop, SHORT_RUN, url]
            done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
            assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
        server.shutdown()
