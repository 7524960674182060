"""Runs inside the sandbox, beside the code under trial and never in its process: starts pytest, times it, reports.

Given to Python as text with the child's text as its argument, so no file of either lies in the sandbox. Standard input
brings one line of JSON: `{"key", "job": {"root", "paths", "files", "options"}, "wall_s", "output_bytes"}`;
standard output takes one line: the HMAC-SHA256 of a JSON report under that key, and the report. The child gets a key
of its own, so code that finds that one still cannot write this report: the memory of this process is out of its reach,
as no sandbox shows /proc or lets one process trace another. Its output goes through a pipe that is counted.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

TAIL_BYTES = 4_000
TOLD_BYTES = 32_000_000


def read(
    sources: dict[int, bytearray],
    counts: dict[int, int],
    limits: dict[int, int],
    until: float,
    alive: Callable[[], bool],
) -> str | None:
    """Read both pipes to their ends. Returns why it stopped early: "time", "output", "report"; else None."""
    selector = selectors.DefaultSelector()
    for fd in sources:
        selector.register(fd, selectors.EVENT_READ)
    ended_at = None
    while selector.get_map():
        now = time.monotonic()
        if now > until:
            return "time"
        if ended_at is None and not alive():
            ended_at = now
        if ended_at is not None and now > ended_at + 0.2:
            return None  # what it left behind holds the pipes open, and has no more to say
        for key, _ in selector.select(0.05 if ended_at is None else 0.02):
            data = os.read(key.fd, 65_536)
            if not data:
                selector.unregister(key.fd)
                continue
            sources[key.fd] += data
            counts[key.fd] += len(data)
            if counts[key.fd] > limits[key.fd]:
                return "output" if limits[key.fd] != TOLD_BYTES else "report"
            if limits[key.fd] != TOLD_BYTES:
                del sources[key.fd][:-TAIL_BYTES]
    return None


def verified(told: bytes, key: bytes) -> list[dict[str, Any]]:
    """The messages in order. Raises ValueError at the first that is not the child's."""
    messages: list[dict[str, Any]] = []
    for line in told.splitlines():
        mac, _, body = line.decode().partition(" ")
        number, _, message = body.partition(" ")
        good = hmac.new(key, body.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(mac, good) or number != str(len(messages)):
            raise ValueError("a message that is not the trial's own")
        messages.append(json.loads(message))
    return messages


def run(job: dict[str, Any], child: str, wall_s: float, output_bytes: int) -> dict[str, Any]:
    """One pytest process, from its start to its end."""
    key = os.urandom(32)
    told_r, told_w = os.pipe()
    out_r, out_w = os.pipe()
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-I", "-B", "-X", "utf8", "-c", child],
        stdin=subprocess.PIPE,
        stdout=out_w,
        stderr=out_w,
        pass_fds=[told_w],
        start_new_session=True,
        cwd=job["root"],
    )
    os.close(told_w)
    os.close(out_w)
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(json.dumps({**job, "key": key.hex(), "to": told_w}).encode() + b"\n")
    sources = {told_r: bytearray(), out_r: bytearray()}
    limits = {told_r: TOLD_BYTES, out_r: output_bytes}
    counts = dict.fromkeys(sources, 0)
    stopped = read(sources, counts, limits, started + wall_s, lambda: process.poll() is None)
    if stopped is None:
        try:  # both pipes closed is not the end
            process.wait(max(0.0, started + wall_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            stopped = "time"
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    exit_code = process.wait()
    try:
        messages = verified(bytes(sources[told_r]), key)
    except ValueError:
        messages, stopped = [], stopped or "forged"
    return {
        "stopped": stopped,
        "exit": exit_code,
        "messages": messages,
        "output": bytes(sources[out_r]).decode(errors="replace"),
        "output_bytes": counts[out_r],
        "wall_s": time.monotonic() - started,
    }


def main() -> None:
    task = json.loads(sys.stdin.buffer.readline())
    report = json.dumps(run(task["job"], sys.argv[1], task["wall_s"], task["output_bytes"]))
    mac = hmac.new(bytes.fromhex(task["key"]), report.encode(), hashlib.sha256).hexdigest()
    sys.stdout.write(mac + " " + report + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
