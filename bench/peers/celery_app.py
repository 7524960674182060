"""What a Celery worker imports. Values that differ from Celery's own are here for a reason, and named in README.md."""

from __future__ import annotations

import os
import time

from celery import Celery  # type: ignore[import-untyped]

app = Celery("peers", broker=os.environ.get("PEERS_BROKER", ""), backend=os.environ.get("PEERS_BACKEND", ""))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
)


@app.task(name="agent")  # type: ignore[untyped-decorator]
def agent(id_: int, n: int, think_s: float) -> list[int]:
    if think_s:
        time.sleep(think_s)
    return [id_, n + 1]
