"""`chimera heal --module M --failure FILE`: one failure, patches for it, and the one that is accepted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.heal_failure import read_failure
from chimera.cli.model import open_writer, read_prices
from chimera.cli.places import held_out, module_file, outside
from chimera.cli.settings import read_settings
from chimera.core.clock import SystemClock
from chimera.core.errors import BudgetExceeded, HealingError, InputError, SandboxUnavailable
from chimera.healing.apply import apply, recover
from chimera.healing.diff import diff_of
from chimera.healing.failure import Failure
from chimera.healing.generator import CodeGenerator, GeneratorOptions
from chimera.healing.healer import Healer, HealerOptions, PatchResult
from chimera.healing.memory import PatchMemory
from chimera.healing.sandbox import open_sandbox
from chimera.healing.workspace import snapshot
from chimera.llm.meter import Cap, Caps, Meter

ACCEPTED, NONE_ACCEPTED = 0, 1

HIDDEN = "hidden"
"""Where the held-out tests are looked for in a workspace, if nobody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of one `chimera heal`, as they were given."""

    module: str
    failure: Path
    workspace: Path
    hidden_tests: Path | None
    model: str | None
    candidates: int
    repairs: int
    allow: tuple[str, ...]
    timeout_s: float
    sandbox: Literal["bwrap", "landlock"] | None
    apply: bool
    output: Path | None
    prices: Path | None
    max_usd: float | None
    home: Path | None
    as_json: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of it; `result` is None where there was no patch at all, and then `why` says why not."""

    result: PatchResult | None
    why: str = ""


def execute(request: Request) -> int:
    """Heal, print, and return the exit code."""
    return command.run(_execute(request), as_json=request.as_json)


async def _execute(request: Request) -> int:
    """Whatever is wrong with what was given is said before a model is asked, which costs money."""
    settings, clock = read_settings(model=request.model), SystemClock()
    file = module_file(request.workspace, request.module)
    hidden = _hidden_tests(request)
    home = outside(request.workspace, request.home or settings.home / "heart")
    if request.output is not None:
        _check_output(request.output)
    failure = read_failure(request.failure, request.module)
    with command.options():
        caps = Caps(mission=Cap(usd=request.max_usd))
        options = HealerOptions(repairs=request.repairs, wall_s=request.timeout_s, allowed=request.allow)
    model, meter = open_writer(settings.model, read_prices(request.prices), caps, clock)
    generator = CodeGenerator(model, options=GeneratorOptions(candidates=request.candidates))
    log = home / "changes.db"
    if request.apply and log.exists() and recover(request.workspace, log=log):
        render.note(f"a change of {request.workspace} was half done, and is undone")
    before = snapshot(request.workspace)
    async with model:
        walls = await asyncio.to_thread(open_sandbox, request.sandbox)
        with closing(PatchMemory(home / "patches.db", clock=clock)) as memory:
            healer = Healer(
                generator,
                workspace=request.workspace,
                hidden_tests=hidden,
                sandbox=walls,
                memory=memory,
                options=options,
                clock=clock,
            )
            render.note(f"{failure.kind} of {file}: up to {request.candidates} candidates, each tried in {walls.name}")
            with _progress():
                outcome = await _healed(healer, failure, file)
    return await _told(request, outcome, meter, before.files, log)


async def _healed(healer: Healer, failure: Failure, file: str) -> _Outcome:
    """A model that writes no patch, and money that has come to its end, are no faults: there is just no patch."""
    try:
        return _Outcome(await healer.heal(failure, [file]))
    except SandboxUnavailable:
        raise
    except (HealingError, BudgetExceeded) as error:
        return _Outcome(None, str(error))


async def _told(request: Request, outcome: _Outcome, meter: Meter, before: Mapping[str, bytes], log: Path) -> int:
    """Apply what is accepted if that is wanted, write it, and say so."""
    result = outcome.result
    chosen = result.chosen if result is not None else None
    changes = {path: text.encode() for path, text in result.changes.items()} if result is not None else {}
    if chosen is not None and request.output is not None:
        document = render.to_line(chosen.patch.model_dump(mode="json"), indent=2)
        try:
            request.output.write_text(document + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{request.output} cannot be written: {error.strerror}") from error
    if changes and request.apply:
        expected = {path: before.get(path) for path in changes}
        await asyncio.to_thread(apply, request.workspace, changes, log=log, before=expected)
    diff = "".join(diff_of(path, before.get(path), data) for path, data in sorted(changes.items()))
    if request.as_json:
        render.line(render.to_line(_document(request, outcome, meter, diff)))
    elif chosen is not None:
        _show(diff)
        done = "applied" if request.apply else "not applied: --apply does that"
        render.note(f"accepted: {chosen.patch.summary} ({chosen.verdict.reason}); {done}")
    else:
        render.note(f"no patch was accepted: {_why(outcome)}")
    return ACCEPTED if chosen is not None else NONE_ACCEPTED


def _document(request: Request, outcome: _Outcome, meter: Meter, diff: str) -> dict[str, Any]:
    """The one document of `--json`. `cost_usd` is null where what a call costs is not known."""
    result, totals = outcome.result, meter.totals(mission="")
    chosen = result.chosen if result is not None else None
    tried = [
        {"id": each.patch.id, "summary": each.patch.summary, **each.verdict.model_dump(mode="json")}
        for each in (result.tried if result is not None else ())
    ]
    return {
        "verdict": "reject" if chosen is None else "accept",
        "reason": _why(outcome) if chosen is None else chosen.verdict.reason,
        "module": request.module,
        "applied": chosen is not None and request.apply,
        "patch": None if chosen is None else chosen.patch.model_dump(mode="json"),
        "diff": diff,
        "tried": tried,
        "signature": "" if result is None else result.signature,
        "calls": totals.calls,
        "tokens": totals.tokens,
        "cost_usd": None if totals.unpriced else totals.usd,
    }


def _why(outcome: _Outcome) -> str:
    if outcome.result is None or not outcome.result.tried:
        return outcome.why
    tried = outcome.result.tried
    return f"{len(tried)} tried, the last: {tried[-1].verdict.reason}"


def _show(diff: str) -> None:
    """In colours for a person; as it is for a program, which may want to apply it."""
    if not render.is_terminal():
        render.line(diff.removesuffix("\n"))
        return
    for line in diff.splitlines():
        style = "green" if line.startswith("+") else "red" if line.startswith("-") else ""
        render.say((line.expandtabs(), style))


def _hidden_tests(request: Request) -> Path:
    """Raises InputError: a patch that only the tests accept which its author has seen proves nothing."""
    hidden = request.hidden_tests or request.workspace / HIDDEN
    if request.hidden_tests is not None or hidden.is_dir():
        return held_out(request.workspace, hidden)
    raise InputError(
        f"no patch is judged without tests that its author has not seen: name their folder with --hidden-tests DIR, or "
        f"make {hidden}"
    )


def _check_output(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} is there already, and is not overwritten: name another file for the patch")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent} for the patch")


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        render.note(record.getMessage())


@contextmanager
def _progress() -> Iterator[None]:
    """While this lasts, what healing logs (a verdict for each candidate) goes to standard error."""
    logger, notes = logging.getLogger("chimera.healing"), _Notes(logging.INFO)
    level, logger.propagate = logger.level, False
    logger.addHandler(notes)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        logger.setLevel(level)
        logger.propagate = True
