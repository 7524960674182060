"""A NodeProvider whose cloud is this machine: a node is a `ray start --block` and its children.

Ray's autoscaler imports it in the head's monitor process, which hands its environment on: the marker that the processes
are found by, and the token.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

from tests.autoscaling.head import HEAD, NODE, SMALL_NODE

HANDED_ON = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED")

END_S = 20.0

Tags = dict[str, str]


class LocalProcesses(NodeProvider):
    """`provider_config` has `gcs_address` (HOST:PORT), `folder` (for logs and temp dirs) and `head_type`."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._lock = threading.RLock()
        self._folder = Path(provider_config["folder"])
        self._started = 0
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._tags: dict[str, Tags] = {
            HEAD: {
                TAG_RAY_NODE_KIND: NODE_KIND_HEAD,
                TAG_RAY_USER_NODE_TYPE: provider_config["head_type"],
                TAG_RAY_NODE_NAME: HEAD,
                TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
            }
        }

    # These are asked in every round of the autoscaler and must not block.

    def non_terminated_nodes(self, tag_filters: Tags) -> list[str]:
        with self._lock:
            for node, process in list(self._processes.items()):
                if process.poll() is not None:  # the cloud has lost a machine
                    del self._processes[node], self._tags[node]
            return [node for node, tags in self._tags.items() if tag_filters.items() <= tags.items()]

    def is_running(self, node_id: str) -> bool:
        with self._lock:
            return node_id in self._tags

    def is_terminated(self, node_id: str) -> bool:
        return not self.is_running(node_id)

    def node_tags(self, node_id: str) -> Tags:
        with self._lock:
            return dict(self._tags.get(node_id, {}))

    def set_node_tags(self, node_id: str, tags: Tags) -> None:
        with self._lock:
            self._tags[node_id].update(tags)

    def internal_ip(self, node_id: str) -> str:
        return "127.0.0.1"

    def external_ip(self, node_id: str) -> str:
        return "127.0.0.1"

    def safe_to_scale(self) -> bool:
        return True

    def create_node_with_resources_and_labels(
        self, node_config: dict[str, Any], tags: Tags, count: int, resources: dict[str, float], labels: Tags
    ) -> None:
        with self._lock:
            for _ in range(count):
                self._started += 1
                node = f"n{self._started}"
                self._processes[node] = self._start(node, tags[TAG_RAY_USER_NODE_TYPE], resources)
                self._tags[node] = dict(tags)

    def terminate_node(self, node_id: str) -> None:
        with self._lock:
            process = self._processes.pop(node_id, None)
            self._tags.pop(node_id, None)
        if process is not None:
            process.terminate()  # `ray start --block` takes its children along
            threading.Thread(target=_finish, args=(process,), daemon=True).start()

    @staticmethod
    def bootstrap_config(cluster_config: dict[str, Any]) -> dict[str, Any]:
        return cluster_config

    def _start(self, node: str, node_type: str, resources: dict[str, float]) -> subprocess.Popen[bytes]:
        custom = {name: count for name, count in resources.items() if name not in ("CPU", "memory")}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") or k in HANDED_ON}
        environment |= {"RAY_CLOUD_INSTANCE_ID": node, "RAY_NODE_TYPE_NAME": node_type, NODE: node}
        command = [
            *(sys.executable, "-m", "tests.autoscaling.join", "start", "--block"),
            f"--address={self.provider_config['gcs_address']}",
            "--node-ip-address=127.0.0.1",
            f"--num-cpus={resources.get('CPU', 1):g}",
            f"--resources={json.dumps(custom)}",
            # One temp dir a node: raylets that start together in one session's directory race for socket names.
            f"--temp-dir={self._folder / node}",
            *SMALL_NODE,
        ]
        with open(self._folder / f"{node}.log", "ab") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )


def _finish(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
