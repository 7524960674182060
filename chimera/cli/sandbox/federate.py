"""What `chimera sandbox federate` does."""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.sandbox.data import Source, epsilon_of, needs_torch, new_folder, say_epsilon, warning_of
from chimera.cli.settings import read_settings
from chimera.core.config import Settings
from chimera.core.errors import InputError, MissingExtra
from chimera.sandbox.schema import Table
from chimera.storage.whole_file import write_whole

if TYPE_CHECKING:
    from chimera.sandbox.federation.host import NodePlan
    from chimera.sandbox.federation.plan import FederationPlan
    from chimera.sandbox.federation.report import FederationReport, RoundReport
    from chimera.sandbox.federation.server import Federated
    from chimera.sandbox.settings import GanSettings

REPORT_FILE, MODEL_FILE = "report.json", "model.pt"

TRAINING = "training"
"""In a sandbox's folder, that of its engine."""

MOST_COMPARED = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As they were given."""

    source: Source
    out: Path
    nodes: int
    strategy: str
    rounds: int
    steps: int
    poison: int
    malicious: int | None
    epsilon: str
    delta: float
    seed: int
    on_ray: bool
    address: str | None
    as_json: bool


def execute(options: Options) -> int:
    return command.run(_federate(options), as_json=options.as_json)


async def _federate(options: Options) -> int:
    needs_torch()
    if find_spec("flwr") is None:
        raise MissingExtra("flwr", "federation")
    from chimera.sandbox.federation.gan import first_generator
    from chimera.system.federating import federate
    from chimera.system.sandbox_parts import part_of

    plan, settings = _planned(options)
    table = await asyncio.to_thread(options.source.read)
    smallest = min(len(part_of(table, at, options.nodes, options.seed)) for at in range(options.nodes))
    if warning := warning_of(settings.delta, smallest):
        render.note(warning)
    nodes = _nodes(options, settings, new_folder(options.out))
    initial = await asyncio.to_thread(first_generator, table.schema, settings)

    def watch(report: RoundReport) -> None:
        states = ", ".join(
            f"node {row.node_id} {row.state}" for row in sorted(report.nodes, key=lambda row: row.node_id)
        )
        render.note(f"round {report.round} of {plan.rounds}, {report.wall_s:.0f} s: {states}")

    ray = read_settings(address=options.address) if options.on_ray else None
    with _joined(ray):
        done = await federate(nodes, plan, initial, settings=ray, watch=watch)
    write_whole(options.out / REPORT_FILE, done.report.model_dump_json(indent=1).encode())
    found: dict[str, Any] = {"report": str(options.out / REPORT_FILE), "strategy": options.strategy}
    if (nodes[0].folder / TRAINING).is_dir():
        distance = await asyncio.to_thread(_released, done, nodes[0], table, options.out / MODEL_FILE)
        found |= {"model": str(options.out / MODEL_FILE), "distance": distance}
    _say(found, done.report, options)
    return 0


def _joined(ray: Settings | None) -> AbstractContextManager[None]:
    if ray is None:
        return nullcontext()
    from chimera.cli.arena.on_ray import on_ray

    return on_ray(ray, shown=True)


def _planned(options: Options) -> tuple[FederationPlan, GanSettings]:
    """Raises InputError for what cannot be run."""
    from chimera.sandbox.engine import RESERVED
    from chimera.sandbox.federation.plan import FederationPlan
    from chimera.sandbox.settings import GanSettings

    if options.poison >= options.nodes:
        raise InputError(f"{options.poison} of {options.nodes} sandboxes poisoned leave no honest one")
    averages = options.strategy in ("fedavg", "fedprox")
    malicious = options.malicious if options.malicious is not None else 0 if averages else options.poison
    with command.options():
        plan = FederationPlan(
            strategy=options.strategy,  # type: ignore[arg-type]
            rounds=options.rounds,
            steps=options.steps,
            malicious=malicious,
            beta=min(0.49, max(0.2, (malicious + 0.5) / options.nodes)),
        )
        settings = GanSettings(
            epsilon=epsilon_of(options.epsilon),
            delta=options.delta,
            seed=options.seed,
            device="cpu",
            steps=options.rounds * -(-options.steps // RESERVED) * RESERVED,  # what a message leaves over is lost
        )
    plan.check(options.nodes)
    return plan, settings


def _nodes(options: Options, settings: GanSettings, folder: Path) -> list[NodePlan]:
    """A sandbox for each part; the last ones are poisoned."""
    from chimera.sandbox.federation.host import NodePlan

    source = options.source
    told: dict[str, bool | int | float | str] = {"parts": options.nodes, "seed": options.seed}
    told |= {"settings": settings.model_dump_json(), "data": source.data}
    if source.schema is not None:
        told |= {"schema": str(source.schema.absolute()), "data": str(Path(source.data).absolute())}
    return [
        NodePlan(
            node_id=at + 1,
            app="chimera.system.sandbox_parts:app",
            folder=folder.absolute() / f"node-{at + 1}",
            config={**told, "part": at, "poisoned": at >= options.nodes - options.poison},
        )
        for at in range(options.nodes)
    ]


def _released(done: Federated, node: NodePlan, table: Table, path: Path) -> float:
    """Write the federation's generator with the moments of one sandbox, and say how far its records are from all.

    Every sandbox's records are in the generator: what the model says it has cost is the most that any of them spent.
    """
    from chimera.sandbox.model import Privacy
    from chimera.sandbox.utility import marginal_distance
    from chimera.system.sandbox_parts import open_engine

    engine = open_engine(dict(node.config), node.folder / TRAINING)
    try:
        engine.load_generator(done.arrays)
        model = engine.model()
    finally:
        engine.close()
    told = done.report.record_privacy
    epsilon = math.inf if told.epsilon is None else max(told.epsilon, model.privacy.epsilon)
    model.privacy = Privacy(epsilon=epsilon, delta=model.privacy.delta, releases=model.privacy.releases)
    model.save(path)
    return marginal_distance(model.sample(min(len(table), MOST_COMPARED), np.random.default_rng(0)), table)


def _say(found: dict[str, Any], report: FederationReport, options: Options) -> None:
    record, client = report.record_privacy, report.client_privacy
    if options.as_json:
        epsilons = {
            name: value if value is None or math.isfinite(value) else "infinite"
            for name, value in (("record_epsilon", record.epsilon), ("client_epsilon", client.epsilon))
        }
        render.line(render.to_line(found | epsilons | {"rounds": len(report.rounds), "stopped": report.stopped}))
        return
    rows = [
        (str(row.node_id), row.state, str(row.records), row.reason[:80])
        for row in sorted(report.rounds[-1].nodes if report.rounds else (), key=lambda row: row.node_id)
    ]
    command.table(("node", "last round", "records", "why not"), rows)
    if record.epsilon is not None:
        render.say(f"a record: {say_epsilon(record.epsilon, record.delta or 0.0)}, by what the sandboxes say")
    render.say(f"a whole sandbox: {say_epsilon(client.epsilon, client.delta)}")
    if "distance" in found:
        render.say(f"columns are {found['distance']:.3f} of their ranges from the data, with the moments of sandbox 1")
        render.say((found["model"], "bold"))
    if report.stopped:
        render.say(("ended early: ", "yellow"), report.stopped)
