"""What `chimera sandbox harden` does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.sandbox.data import Source, epsilon_of, needs_torch, new_folder, say_epsilon, warning_of
from chimera.core.errors import InputError
from chimera.sandbox.hardening import BatchDetector, MarginalDetector, MomentsDetector, Parts, harden
from chimera.sandbox.hardening.harden import STRENGTHS, Effort
from chimera.sandbox.hardening.plot import plot_hardening
from chimera.sandbox.schema import Table
from chimera.sandbox.threats import Reference, ThreatKind
from chimera.storage.whole_file import write_whole

QUICK = Effort(rounds=2, train_batches=20, measure_batches=60, clean_batches=4_000, queries=24)

DETECTOR_FILE, REPORT_FILE, PLOT_FILE, GENERATOR = "hardened.npz", "report.json", "hardening.png", "generator"

PAST_SHARE = 0.2
"""Of a metric: what the ensemble learns from before the first window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As they were given."""

    source: Source
    out: Path
    detector: Literal["marginal", "moments", "ensemble"]
    kinds: tuple[str, ...]
    strengths: tuple[float, ...]
    batch: int
    alarms_per_1000: float
    epsilon: str
    delta: float
    steps: int | None
    seed: int
    quick: bool
    as_json: bool


def execute(options: Options) -> int:
    return command.run(_harden(options), as_json=options.as_json)


async def _harden(options: Options) -> int:
    needs_torch()
    from chimera.actors.trainer import TrainPlan
    from chimera.cli.sandbox.progress import shown
    from chimera.sandbox.model import Model
    from chimera.sandbox.settings import GanSettings
    from chimera.system.sandbox import train

    if not 0.0 < options.alarms_per_1000 < 1_000.0:
        raise InputError(f"--alarms takes 0 to 1,000, both excluded, not {options.alarms_per_1000:g}")
    kinds = tuple(_kind(each) for each in options.kinds) or tuple(ThreatKind)
    given: dict[str, Any] = {"steps": options.steps, "delta": options.delta, "seed": options.seed}
    with command.options():
        settings = GanSettings(
            epsilon=epsilon_of(options.epsilon), **{name: value for name, value in given.items() if value is not None}
        )
    table = await asyncio.to_thread(options.source.read)
    detector, parts = await asyncio.to_thread(_parted, table, options)
    if warning := warning_of(settings.delta, len(parts.fit)):
        render.note(warning)
    folder = new_folder(options.out)
    render.note(f"training a generator on {len(parts.fit)} of {len(table)} records")
    plan = TrainPlan(table=parts.fit, settings=settings, folder=folder.absolute() / GENERATOR)
    with shown(settings.steps, settings.epsilon) as show:
        model = await asyncio.to_thread(Model.load, await train(plan, show))
    hardened, report = await asyncio.to_thread(
        harden,
        detector,
        parts,
        model.sample,
        batch=options.batch,
        alarms_per_1000=options.alarms_per_1000,
        kinds=kinds,
        strengths=options.strengths or STRENGTHS,
        seed=options.seed,
        windows=options.source.windows is not None,
        effort=QUICK if options.quick else Effort(),
        progress=render.note,
    )
    hardened.save(folder / DETECTOR_FILE)
    write_whole(folder / REPORT_FILE, report.model_dump_json(indent=1).encode())
    plot_hardening(report, folder / PLOT_FILE)
    if options.as_json:
        render.line(report.model_dump_json())
        return 0
    render.say(report.as_table())
    render.say(f"threats learnt from a generator of {say_epsilon(model.privacy.epsilon, model.privacy.delta)}")
    render.say((f"{folder / DETECTOR_FILE}, {REPORT_FILE}, {PLOT_FILE}; they rest on the records: keep them", "dim"))
    return 0


def _kind(name: str) -> ThreatKind:
    try:
        return ThreatKind(name)
    except ValueError:
        raise InputError(f"--kind {name}: there is {', '.join(ThreatKind)}") from None


def _parted(table: Table, options: Options) -> tuple[BatchDetector, Parts]:
    """The detector, fitted to the part that may be learnt from, and the parts."""
    length, stride = options.source.windows, options.source.stride
    if length is None:
        if options.detector == "ensemble":
            raise InputError("the ensemble watches a metric: give one, with --windows")
        parts = Parts.by_chance(table, np.random.default_rng([options.seed, 1]))
        return _fitted(options.detector, parts), parts
    if options.detector == "ensemble":
        from chimera.system.hardening import LEAST_PAST, EnsembleDetector

        if stride not in (None, length):
            raise InputError("the ensemble needs the readings in a row: leave out --stride")
        past = max(-(-LEAST_PAST // length), round(PAST_SHARE * len(table)))
        rows = np.arange(len(table))
        parts = Parts.in_order(table.take(rows[past:]), gap=1)
        return EnsembleDetector(table.values[:past].ravel(), length=length), parts
    parts = Parts.in_order(table, gap=-(-length // (stride or length)))
    return _fitted(options.detector, parts), parts


def _fitted(name: str, parts: Parts) -> BatchDetector:
    if name == "moments":
        return MomentsDetector.of(parts.fit)
    return MarginalDetector(Reference.of(parts.fit))
