"""Runs pytest over the code under trial, and tells what becomes of each test. Given to Python as text, so it is alone.

Started by `trial_runner`: file descriptor 0 brings one line of JSON (key, root, paths, files, options), the one that it
names takes messages: a line each, a number and JSON and the HMAC-SHA256 of both. The key is read before any code under
trial is imported and is held in a closure only; neither the environment, the command line nor a file has it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
from collections.abc import Callable
from typing import Any

STACK_BYTES = 4 << 20
"""Of a thread: a test may start a hundred within the limit on memory, of which the kernel's own 8 MiB take too much."""

Send = Callable[[dict[str, Any]], None]


def sender(key: bytes, to: int) -> Send:
    """What sends a message. Nobody else has the key."""
    sent = 0

    def send(message: dict[str, Any]) -> None:
        nonlocal sent
        body = f"{sent} {json.dumps(message)}"
        sent += 1
        line = (hmac.new(key, body.encode(), hashlib.sha256).hexdigest() + " " + body + "\n").encode()
        while line:
            line = line[os.write(to, line) :]

    return send


def is_excused(item: Any) -> bool:
    """Whether a mark says that this test is skipped here or expected to fail. A call within it says that too late."""
    from _pytest.skipping import evaluate_skip_marks, evaluate_xfail_marks

    try:
        if evaluate_skip_marks(item) or evaluate_xfail_marks(item):
            return True
    except BaseException:  # a mark that cannot be read excuses nothing, and fails when the test is run
        return False
    marked = (getattr(item, "obj", None), getattr(item, "cls", None))
    return any(
        getattr(each, f"__unittest_{what}__", False) for each in marked for what in ("skip", "expecting_failure")
    )


def teller(send: Send) -> object:
    """The plugin that tells of collection, of every phase of every test, and of the end."""

    class Teller:
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            excused = [item.nodeid for item in items if is_excused(item)]
            send({"collected": [item.nodeid for item in items], "excused": excused})

        def pytest_collectreport(self, report: Any) -> None:
            if not report.passed:
                why = str(report.longrepr)[-2000:]
                send({"uncollected": report.nodeid, "why": why, "skipped": report.skipped})

        def pytest_runtest_logreport(self, report: Any) -> None:
            outcome = "xfailed" if hasattr(report, "wasxfail") else report.outcome
            when = "subtest" if hasattr(report, "context") else report.when
            why = "" if report.passed else str(report.longrepr)[-2000:]
            send({"test": report.nodeid, "when": when, "outcome": outcome, "why": why})

    return Teller()


def main() -> None:
    job = json.loads(sys.stdin.buffer.readline())
    send = sender(bytes.fromhex(job.pop("key")), job["to"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    import threading

    import pytest

    threading.stack_size(STACK_BYTES)
    sys.path[:0] = job["paths"]
    options = [
        "-q",
        "-c",
        os.devnull,
        "--rootdir",
        job["root"],
        "--confcutdir",
        job["root"],
        "-p",
        "no:cacheprovider",
        "-s",
        "--tb=short",
    ]
    options += ["--import-mode=importlib", "-W", "ignore::pytest.PytestConfigWarning", *job["options"]]
    status = pytest.main([*options, "--", *job["files"]], plugins=[teller(send)])
    send({"end": int(status)})
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
