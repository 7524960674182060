"""What `chimera sandbox train` does."""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.sandbox.data import Source, epsilon_of, needs_torch, overlap_of, say_epsilon, warning_of
from chimera.cli.settings import read_settings
from chimera.sandbox.schema import Table

MOST_DRAWN = 5_000
"""Records that are made for the picture."""

MARGINALS, EPSILON = "marginals.png", "epsilon.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As they were given. `settings` are fields of GanSettings."""

    source: Source
    out: Path
    epsilon: str
    settings: dict[str, Any]
    save_every: int
    on_ray: bool
    address: str | None
    as_json: bool


def execute(options: Options) -> int:
    return command.run(_train(options), as_json=options.as_json)


async def _train(options: Options) -> int:
    needs_torch()
    from chimera.actors.trainer import Progress, TrainPlan
    from chimera.cli.sandbox.progress import shown
    from chimera.sandbox.settings import GanSettings
    from chimera.system.sandbox import train

    if options.on_ray:
        from chimera.cli.arena.on_ray import on_ray
    with command.options():
        settings = GanSettings(epsilon=epsilon_of(options.epsilon), **options.settings)
    table = await asyncio.to_thread(options.source.read)
    for warning in filter(None, (warning_of(settings.delta, len(table)), overlap_of(options.source))):
        render.note(warning)
    if not settings.private:
        render.note("epsilon: infinite. This training protects nobody's records")
    plan = TrainPlan(table=table, settings=settings, folder=options.out.absolute(), save_every=options.save_every)
    ray = read_settings(address=options.address) if options.on_ray else None
    last: Progress | None = None
    joined = on_ray(ray, shown=True) if ray else nullcontext()
    with joined, shown(settings.steps, settings.epsilon) as show:

        def watch(progress: Progress) -> None:
            nonlocal last
            last = progress
            show(progress)

        model = await train(plan, watch, settings=ray)
    found: dict[str, Any] = {"model": str(model), "records": len(table), "steps": settings.steps}
    if last is not None:
        found |= {"step": last.step, "spent": last.spent, "epsilon": last.epsilon, "private": {"losses": last.losses}}
    if model.is_file():
        found |= await asyncio.to_thread(_pictured, table, plan)
    else:
        render.note(f"{model} is on the machine of the Ray cluster's head node")
    _say(found | {"delta": settings.delta}, options)
    return 0


def _pictured(table: Table, plan: Any) -> dict[str, Any]:
    """What the model has cost, and pictures beside it."""
    from chimera.actors.trainer import MODEL_FILE, read_history
    from chimera.sandbox.model import Model
    from chimera.sandbox.plots import plot_epsilon, plot_marginals

    model = Model.load(plan.folder / MODEL_FILE)
    made = model.sample(max(1, min(len(table), MOST_DRAWN)), np.random.default_rng(0))
    plot_marginals(table, made, plan.folder / MARGINALS)
    history = read_history(plan.folder)
    plot_epsilon(
        [each.spent for each in history],
        [each.epsilon for each in history],
        plan.folder / EPSILON,
        budget=plan.settings.epsilon,
        delta=plan.settings.delta,
    )
    return {
        "epsilon": model.privacy.epsilon,
        "releases": [each.model_dump(mode="json") for each in model.privacy.releases],
        "plots": [str(plan.folder / name) for name in (MARGINALS, EPSILON)],
    }


def _say(found: dict[str, Any], options: Options) -> None:
    epsilon = float(found.get("epsilon", math.nan))
    if options.as_json:
        render.line(render.to_line(found | {"epsilon": epsilon if math.isfinite(epsilon) else "infinite"}))
        return
    render.say((found["model"], "bold"))
    lost = found.get("spent", 0) - found.get("step", 0)
    render.say(
        f"  {found.get('step', 0)} steps over {found['records']} records"
        + (f", and {lost} that were spent and lost with a process" if lost else "")
    )
    render.say("  ", (say_epsilon(epsilon, found["delta"]), "green" if math.isfinite(epsilon) else "yellow"))
    for release in found.get("releases", ()):
        render.say((f"    {release['what']}: noise {release['noise_multiplier']:.3g}, {release['steps']} x", "dim"))
    for plot in found.get("plots", ()):
        private = " (private: it shows real records)" if plot.endswith(MARGINALS) else ""
        render.say((f"  {plot}{private}", "dim"))
    render.say(("  Only model.pt is made to be given away: the rest of the folder stays with the data.", "dim"))
