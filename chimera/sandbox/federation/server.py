"""The federation's own end: runs a strategy for its rounds over any grid, and reports. Also as a ServerApp."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from chimera.core.errors import ChimeraError, InputError, SwarmError
from chimera.sandbox.federation.client import STEPS
from chimera.sandbox.federation.flower import (
    AppExitException,
    ArrayRecord,
    ConfigRecord,
    Context,
    Grid,
    MetricRecord,
    ServerApp,
    quiet,
)
from chimera.sandbox.federation.local import Floating
from chimera.sandbox.federation.plan import FederationPlan
from chimera.sandbox.federation.report import (
    ClientPrivacy,
    FederationReport,
    RoundReport,
    client_privacy,
    record_privacy,
)
from chimera.sandbox.federation.screen import ScreenedGrid
from chimera.sandbox.federation.wire import Blueprint
from chimera.storage.whole_file import write_whole

log = logging.getLogger(__name__)

Watch = Callable[[RoundReport], None]
"""Is told of each round when it has ended, in the thread that runs the strategy."""

MAX_NODES_WAIT_S = 86_400.0

REPORT_FILE, GENERATOR_FILE = "federation.json", "generator.npz"


@dataclass(frozen=True, slots=True)
class Federated:
    """What came of a federation: the report, and the arrays of the generator as the last round left it."""

    report: FederationReport
    arrays: tuple[Floating, ...]


class _Rounds:
    """What is noted while a strategy runs. Flower calls it between rounds, as its evaluation at the server."""

    def __init__(self, grid: ScreenedGrid, blueprint: Blueprint, watch: Watch | None) -> None:
        self._grid = grid
        self._blueprint = blueprint
        self._watch = watch
        self._began_s = time.monotonic()
        self.arrays: list[Floating] = []
        self.reports: list[RoundReport] = []

    def __call__(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        self.arrays = self._blueprint.conform(arrays)
        now_s = time.monotonic()
        if number:
            rows, self._grid.rows = self._grid.rows, ()
            report = RoundReport(
                round=number,
                nodes=rows,
                aggregated=any(row.state == "counted" for row in rows),
                drift=self._grid.drift,
                wall_s=now_s - self._began_s,
            )
            self.reports.append(report)
            if self._watch:
                self._watch(report)
        self._began_s = now_s
        return None


def run_rounds(
    plan: FederationPlan, grid: Grid, initial: Sequence[Floating], *, watch: Watch | None = None
) -> Federated:
    """Run Flower's strategy over `grid` from these arrays on. Blocks; `SwarmGrid` wants a thread of its own for it.

    Raises InputError before anything is sent where the plan does not fit the nodes, SwarmError where no round at all
    could be made into a generator. What goes wrong later ends it early: the report says so, and has what was reached.
    """
    blueprint = Blueprint.of(initial)
    nodes = len(list(grid.get_node_ids()))
    screened = ScreenedGrid(grid, plan=plan, blueprint=blueprint)
    rounds, stopped = _Rounds(screened, blueprint, watch), ""
    with quiet():
        strategy = plan.open(nodes)
        try:
            strategy.start(
                screened,
                blueprint.pack(initial),
                num_rounds=plan.rounds,
                timeout=plan.round_s,
                train_config=ConfigRecord({STEPS: plan.steps}),
                evaluate_fn=rounds,
            )
        except (ChimeraError, AppExitException) as error:
            stopped = f"after round {len(rounds.reports)}: {error}"
            log.warning("the federation ended %s", stopped)
    if not any(report.aggregated for report in rounds.reports):
        raise SwarmError(f"no round brought a generator: {stopped or _why(rounds.reports)}")
    report = FederationReport(
        strategy=plan.strategy,
        nodes=nodes,
        rounds=tuple(rounds.reports),
        record_privacy=record_privacy(rounds.reports),
        client_privacy=_client_privacy(plan, nodes, rounds.reports),
        stopped=stopped,
    )
    return Federated(report, tuple(rounds.arrays))


def _why(reports: Sequence[RoundReport]) -> str:
    rows = reports[-1].nodes if reports else ()
    return "; ".join(f"node {row.node_id} {row.state}: {row.reason}" for row in rows[:3]) or "nobody was asked"


def _client_privacy(plan: FederationPlan, nodes: int, reports: Sequence[RoundReport]) -> ClientPrivacy:
    sample_rate = min(1.0, plan.sampled(nodes) / nodes)
    if plan.noise_multiplier is None:
        infinite = float("inf")
        return ClientPrivacy(
            epsilon=infinite, epsilon_if_sampled=infinite, delta=plan.client_delta, sample_rate=sample_rate
        )
    counted = [sum(row.state == "counted" for row in report.nodes) for report in reports if report.aggregated]
    noise = [plan.noise_of_round(nodes, count) for count in counted]
    return client_privacy(noise, sample_rate=sample_rate, delta=plan.client_delta)


def server_app(initial: Callable[[Context], Sequence[Floating]]) -> ServerApp:
    """The app for a SuperLink: the plan is the run's configuration, and `initial` makes the first generator.

    The run's configuration also says for how many `nodes` to wait, for how long (`wait-s`), and the folder `out` on the
    server's machine where the report and the generator are put.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        plan = FederationPlan.from_config(context.run_config)
        out, nodes, wait_s = (context.run_config.get(key) for key in ("out", "nodes", "wait-s"))
        if not isinstance(out, str) or not out or type(nodes) is not int:
            raise InputError("the run's configuration says a folder `out`, and for how many `nodes` to wait")
        plan.check(nodes)
        wait_for_nodes(grid, nodes, wait_s=float(wait_s or 60.0))
        write(run_rounds(plan, grid, initial(context)), Path(out))

    return app


def wait_for_nodes(grid: Grid, nodes: int, *, wait_s: float) -> None:
    """Wait until so many are connected. Raises SwarmError when `wait_s` seconds have passed."""
    end = time.monotonic() + min(wait_s, MAX_NODES_WAIT_S)
    while (connected := len(list(grid.get_node_ids()))) < nodes:
        if time.monotonic() > end:
            raise SwarmError(f"{connected} of {nodes} nodes have connected within {wait_s:g} s")
        time.sleep(0.5)


def write(federated: Federated, folder: Path) -> None:
    """Put the report and the generator into `folder`: `federation.json` and `generator.npz`. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / GENERATOR_FILE).open("wb") as file:
        np.savez(file, *cast(Sequence[np.ndarray], federated.arrays))
    write_whole(folder / REPORT_FILE, federated.report.model_dump_json(indent=2).encode())
