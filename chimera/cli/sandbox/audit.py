"""What `chimera sandbox audit` does."""

from __future__ import annotations

import asyncio
import math
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.sandbox.data import Source, epsilon_of, needs_torch, warning_of

HELD, LEAKS = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As they were given. `model` is one whose settings are audited; `settings` are fields of GanSettings."""

    source: Source
    model: Path | None
    epsilon: str | None
    settings: dict[str, Any]
    canaries: int
    seed: int | None
    as_json: bool


def execute(options: Options) -> int:
    return command.run(_audit(options), as_json=options.as_json)


async def _audit(options: Options) -> int:
    needs_torch()
    from chimera.sandbox.model import Model
    from chimera.sandbox.privacy.audit import attack
    from chimera.sandbox.settings import GanSettings

    table = await asyncio.to_thread(options.source.read)
    begin = GanSettings(steps=AUDITED_STEPS)
    if options.model is not None:
        begin = (await asyncio.to_thread(Model.load, options.model)).settings
    changes = dict(options.settings)
    if options.epsilon is not None:
        changes["epsilon"] = epsilon_of(options.epsilon)
    with command.options():
        settings = GanSettings.model_validate({**begin.model_dump(), **changes})
    if warning := warning_of(settings.delta, len(table)):
        render.note(warning)
    render.note(f"training for {settings.steps} steps on records and {options.canaries} canaries")
    seed = secrets.randbits(32) if options.seed is None else options.seed
    found = await asyncio.to_thread(attack, table, settings, canaries=options.canaries, seed=seed)
    if options.as_json:
        told = found.model_dump() | {"passed": found.passed, "conclusive": found.conclusive}
        finite = {
            name: "infinite" if isinstance(value, float) and math.isinf(value) else value
            for name, value in told.items()
        }
        render.line(render.to_line(finite))
    else:
        render.say((found.said, "green" if found.passed else "red"))
    return HELD if found.passed else LEAKS


AUDITED_STEPS = 40
"""Where no model says how many: the noise is made for as many as there are, so few show as much."""
