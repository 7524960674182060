"""How Ray itself is: which of Chimera's actors live, which nodes, and where their metrics are served.

Asked of the GCS, like Ray's own service discovery: it needs no dashboard, no shared file and no token of its own, for
this process is connected already. The ports that serve metrics know no authentication (Ray 2.60).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import state as ray_state
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined] # which has no stubs
from ray.experimental import internal_kv

from chimera.actors.cluster import NAMESPACE

MAX_ACTORS = 100_000

_CALLED_FOR = ("RAY_KILL", "OUT_OF_SCOPE", "REF_DELETED", "OWNER_DIED")
"""Why an actor's process may end without anything being wrong with it."""

_NODE_CALLED_FOR = (1, 4)
"""NodeDeathInfo: it was told to end, or the autoscaler found it idle."""


@dataclass(frozen=True, slots=True)
class Life:
    """An actor that lives, in its present process."""

    kind: str
    restarts: int


@dataclass(frozen=True, slots=True)
class Vitals:
    """Chimera's actors by id, those of them that are alive and those that Ray is starting again; and living nodes."""

    actors: dict[str, Life]
    restarting: dict[str, Life]
    nodes: frozenset[str]


def vitals() -> Vitals:
    """How the cluster is now. Blocks; raises what Ray raises when its GCS is out of reach."""
    nodes = frozenset(node["NodeID"] for node in ray.nodes() if node["Alive"])
    return Vitals(_lives("ALIVE"), _lives("RESTARTING"), nodes)


def called_for(actors: Collection[str], nodes: Collection[str]) -> bool:
    """Whether all of these ended because somebody wanted it: `ray.kill`, their owner's end, the autoscaler. Blocks."""
    ended = {node["NodeID"]: node.get("DeathReason") for node in ray.nodes() if not node["Alive"]} if nodes else {}
    return all(_reason(actor) in _CALLED_FOR for actor in actors) and all(
        ended.get(node) in _NODE_CALLED_FOR for node in nodes
    )


def metrics_urls() -> list[str]:
    """Where every living node serves its metrics, and the autoscaler and the dashboard theirs. Blocks."""
    found = [
        _address(node["NodeManagerAddress"], node["MetricsExportPort"])
        for node in ray.nodes()
        if node["Alive"] and node.get("MetricsExportPort")
    ]
    others = (internal_kv._internal_kv_get(b"%sMetricsAddress" % who) for who in (b"Autoscaler", b"Dashboard"))
    found += [address.decode() for address in others if address]
    return [f"http://{address}/metrics" for address in dict.fromkeys(found)]


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _lives(state: str) -> dict[str, Life]:
    found = {}
    for packed in _gcs().get_actor_table(None, state)[:MAX_ACTORS]:
        told = ActorTableData.FromString(packed)
        if told.ray_namespace == NAMESPACE:
            found[told.actor_id.hex()] = Life(told.class_name, told.num_restarts)
    return found


def _reason(actor: str) -> str:
    packed = _gcs().get_actor_info(ray.ActorID(bytes.fromhex(actor)))
    cause = ActorTableData.FromString(packed).death_cause if packed else None
    if cause is None or cause.WhichOneof("context") != "actor_died_error_context":
        return ""
    context = cause.actor_died_error_context
    return str(type(context).Reason.Name(context.reason))


def _gcs() -> Any:
    """Ray's own `ray.util.state` asks the dashboard, which need not be there."""
    return ray_state.state._connect_and_get_accessor()
