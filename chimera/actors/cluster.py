"""Ray itself: connect, make actors of plain classes, end them. The only place that decides how actors are run."""

from __future__ import annotations

import gc
import glob
import logging
import os
import sys
import time
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a call after the end must fail, and not start a Ray of its own
warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\..*")

import ray  # noqa: E402
import ray.exceptions  # noqa: E402
from ray._private import ray_constants, services  # noqa: E402

from chimera.actors.knock import ask, check_own_tls, keep_token_private, knock  # noqa: E402
from chimera.actors.line import Door, Switchboard  # noqa: E402
from chimera.core.config import Settings  # noqa: E402
from chimera.core.errors import ChimeraError, ClusterError, NoCluster, SwarmError  # noqa: E402

log = logging.getLogger(__name__)

CELL_RESOURCE = "chimera_cell"
"""The custom resource that cells hold where the cluster declares it. A node whose actors hold nothing looks idle to
the autoscaler and is ended under them."""

ACTOR_GONE: tuple[type[BaseException], ...] = (ray.exceptions.RayActorError,)
"""The callee's process is dead or restarting; whether the call was carried out is not known."""

CALL_FAILED: tuple[type[BaseException], ...] = (ray.exceptions.RayError, TimeoutError)
"""A call brought no answer: its actor is gone, it raised, or it took too long."""

NAMESPACE = "chimera"

Place = Literal["head", "cell"]

HEAD_RESOURCE = "node:__internal_head__"

KNOCK_S = 10.0

MAX_CELLS = 8

MAX_CALLS = 4_000
"""Calls that one actor has in progress at once: more than the long polls of all the missions it may run."""


CONTROL = "control_methods"
"""A class names its control methods so: they run in an event loop and slots of their own, beside its calls."""

MAX_CONTROL = 64


class _OwnRay:
    """The Ray that this process started, if it did, and how many connections use it: the last to leave ends it."""

    started = False
    users = 0


@dataclass(frozen=True, slots=True)
class Connection:
    """A Ray that this process is connected to. `started` means that it was started here and ends with us."""

    address: str
    dashboard: str
    started: bool
    cells: int


def connect(settings: Settings, *, start: bool = True) -> Connection:
    """Join or start Ray as `settings.address` says; see `Settings.address`. Without `start` none is started.

    A Ray started here listens on the loopback interface only. Raises ClusterError.
    """
    try:
        if not ray.is_initialized():
            _OwnRay.started, _OwnRay.users = _init(settings.address, start=start), 0
        context = ray.get_runtime_context()
        dashboard = _dashboard()
        cells = settings.cells or max(1, min(MAX_CELLS, int(ray.cluster_resources().get("CPU", 1))))
        _OwnRay.users += 1
        return Connection(str(context.gcs_address), dashboard, _OwnRay.started, cells)
    except ClusterError:
        raise
    except Exception as error:
        raise ClusterError(f"Ray at {settings.address!r}: {type(error).__name__}: {error}") from error


def _init(address: str, *, start: bool) -> bool:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": NAMESPACE}
    if address != "local":
        _knock(address)
        found = _found(address)
        if _on_loopback_only(found):
            _stay_on_loopback()
        try:
            if found:
                ask(found, nearest=address == "auto" and not os.environ.get("RAY_ADDRESS"))
            ray.init(address=address, **quiet)
            return False
        except (ConnectionError, ValueError, NoCluster) as error:
            if not start or address != "auto" or os.environ.get("RAY_ADDRESS"):
                if isinstance(error, NoCluster):
                    raise
                raise NoCluster(f"no Ray cluster answers at {address!r}: {error}") from error
    if not start:
        raise NoCluster("a local Ray would be a new one, with no swarm in it: name the address of one that runs")
    _stay_on_loopback()
    check_own_tls()
    keep_token_private()
    ray.init(address="local", include_dashboard=True, **quiet)
    return True


def _stay_on_loopback() -> None:
    """Ray has no public switch for "loopback only": it rewrites 127.0.0.1 to the host's address unless this is off."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False


def _found(address: str) -> str:
    """HOST:PORT of the Ray that `address` means; empty if there is none, or it is asked in another way."""
    if address.startswith("ray://"):
        return ""
    try:
        found = str(services.get_ray_address_from_environment(address, None))
    except ConnectionError:  # there is none; ray.init says so
        return ""
    host, _, port = found.rpartition(":")
    return found if host and "/" not in host and port.isdigit() else ""


def _on_loopback_only(found: str) -> bool:
    """Whether it is a Ray on this machine that does not answer at the machine's own address, such as one of ours."""
    host, _, port = found.rpartition(":")
    if host.strip("[]") not in ("127.0.0.1", "localhost", "::1"):
        return False
    try:
        knock(services.get_node_ip_address(), int(port))
    except OSError:
        return True
    return False


def _knock(address: str) -> None:
    """See whether anybody listens there at all: Ray itself takes minutes to give up."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        knock(host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        raise NoCluster(f"no Ray cluster answers at {address!r}: {error}") from error


def _dashboard() -> str:
    try:
        url = ray._private.worker.get_dashboard_url()
    except Exception:  # a ray:// client does not know it
        return ""
    return f"http://{url}" if url else ""


def disconnect(connection: Connection) -> None:
    """Leave Ray; end it when it was started here and nobody else in this process uses it."""
    _OwnRay.users -= 1
    if connection.started and _OwnRay.users == 0:
        _OwnRay.started = False
        ray.shutdown()


def spawn(cls: type, *, name: str, place: Place = "head", lasting: bool = True, **arguments: Any) -> Any:
    """Start an actor of the plain class `cls`, or find the one of that name. Ray starts it again whenever it dies.

    `lasting` outlives whoever started it, so that a coordinator which comes back finds its managers and they their
    cells; it must then end itself when it is not asked for any more (`chimera.actors.lease`). On the head node the
    autoscaler never ends it; in a cell it holds a cell's resource, and Ray spreads those over the nodes.
    """
    options: dict[str, Any] = {
        "name": name,
        "num_cpus": 0,
        "max_concurrency": MAX_CALLS,
        "max_restarts": -1,
        "get_if_exists": True,
        "namespace": NAMESPACE,
    }
    if lasting:
        options["lifetime"] = "detached"
    here = ray.cluster_resources()
    if place == "cell":
        options["scheduling_strategy"] = "SPREAD"
        if CELL_RESOURCE in here:
            options["resources"] = {CELL_RESOURCE: 1}
    elif HEAD_RESOURCE in here:
        options["resources"] = {HEAD_RESOURCE: 0.001}
    if hasattr(cls, CONTROL):
        options["concurrency_groups"] = {"control": MAX_CONTROL}
    made: Any = ray.remote(**options)
    return made(_awakened(cls)).remote(**arguments)


def _awakened(cls: type) -> type:
    """`cls` as an actor: its `awake` coroutine, if any, is awaited in every process that Ray starts for it, and it
    answers over lines (`chimera.actors.line`)."""

    async def __init__(self: Any, **arguments: Any) -> None:  # Ray awaits the constructor of an async actor
        # What is there by now stays, and what comes later is freed by reference counting: looking for cycles as often
        # as Python does by default takes a tenth of a busy actor's time.
        gc.freeze()
        gc.set_threshold(100_000, 20, 100)
        # A thread that comes back from the disk or the network waits no longer than this for a busy event loop.
        sys.setswitchinterval(0.0005)
        cls.__init__(self, **arguments)  # type: ignore[misc]
        self._switchboard = Switchboard(self, ray.util.get_node_ip_address())
        if hasattr(self, "awake"):
            await self.awake()

    async def door(self: Any) -> Door | None:
        found: Door | None = await self._switchboard.door()
        return found

    body = {"__init__": __init__, "door": door, "__module__": cls.__module__, "__doc__": cls.__doc__}
    for name in getattr(cls, CONTROL, ()):
        body[name] = ray.method(concurrency_group="control")(_copy(getattr(cls, name)))
    return type(cls.__name__, (cls,), body)


def _copy(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The same method, to be marked for Ray without marking the class's own."""

    async def call(self: Any, *arguments: Any, **named: Any) -> Any:
        return await method(self, *arguments, **named)

    call.__name__ = method.__name__
    return call


def spawn_cell(name: str, swarm: str, settings: Settings) -> Any:
    """Start a cell, or the cell of one dedicated agent; or find it."""
    from chimera.actors.cell import Cell

    return spawn(Cell, name=f"{swarm}/{name}", place="cell", swarm=swarm, settings=settings, named=name)


def find(name: str) -> Any:
    """The handle of a living actor, or None."""
    if not ray.is_initialized():
        return None
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


def names() -> list[str]:
    """Every named actor of Chimera's in this cluster."""
    return sorted(
        actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True) if actor["namespace"] == NAMESPACE
    )


def kill(handle: Any, *, restart: bool = False) -> None:
    """End an actor's process at once; with `restart` Ray starts it again. What has ended already is left alone."""
    try:
        ray.kill(handle, no_restart=not restart)
    except (ray.exceptions.RayError, ValueError) as error:
        log.info("nothing to end: %s", error)


def end_self() -> None:
    """End the actor that calls this, for good."""
    kill(ray.get_runtime_context().current_actor)


def was_restarted() -> bool:
    """Whether the calling actor's process follows another one that died."""
    if not ray.is_initialized():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray asks itself in a way that it deprecates
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def node_id() -> str:
    """The node that the calling process runs on."""
    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


def wanted_cpu_s() -> float:
    """CPU seconds that this process's threads have used or waited for: on a crowded node, more than they got."""
    total = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        try:
            with open(path, encoding="ascii") as counts:
                used, waited, _ = counts.read().split()
        except (OSError, ValueError):  # the thread has ended
            continue
        total += int(used) + int(waited)
    return max(total / 1e9, time.process_time())


def rss_bytes() -> int:
    """Memory of this process's own: resident, less what it shares with others."""
    with open("/proc/self/statm", encoding="ascii") as counts:
        _, resident, shared, *_ = map(int, counts.read().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _last_line(traceback: str) -> str:
    """What was raised, without its module: `InputError: no such store`."""
    lines = [line for line in traceback.splitlines() if line.strip()] or ["no reason given"]
    kind, colon, said = lines[-1].strip().partition(": ")
    return f"{kind.rpartition('.')[2]}{colon}{said}"


def unwrap(error: BaseException) -> ChimeraError:
    """What a failed call comes to: Chimera's own error as it was raised, or one that names the cause."""
    # Ray raises a class made of its own error and the cause's: it is a ChimeraError too, and prints Ray's traceback.
    cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
    if isinstance(cause, ChimeraError):
        return cause
    if isinstance(error, ChimeraError):
        return error
    if cause is not None and not isinstance(cause, ray.exceptions.RayError):
        return SwarmError(f"{type(cause).__name__}: {cause}")
    gone = cause or error
    if isinstance(gone, ray.exceptions.RayActorError):
        if gone.actor_init_failed:  # Ray has kept the traceback's text, and not the error
            return ClusterError(f"a process could not start its work: {_last_line(str(gone))}")
        return ClusterError("the processes that did the work are gone: they were killed, or their node was; start anew")
    return ClusterError(f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no reason given')}")
