"""`af duel`: from options to a duel, a bar for each environment while it goes on, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from sys import stderr
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from chimera.arena.canonical import encode
from chimera.arena.duel.match import Pair, RuleSpec
from chimera.arena.duel.plot import plot_duel
from chimera.arena.duel.types import RuleName, RuleRecord
from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.arena.on_ray import on_ray
from chimera.cli.settings import read_settings
from chimera.core.clock import SystemClock
from chimera.core.config import Settings
from chimera.core.errors import InputError, MissingExtra
from chimera.system.arena import DuelReport, DuelRequest, Standing, Watcher, check_request, hold_duel
from chimera.system.champions import champion_of, record_champion

DECIDED, INCONCLUSIVE = 0, 1

EPSILON = 0.01
"""How much better than even a contender has to be, where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one `af duel`."""

    champion: str
    contender: str
    env_ids: tuple[str, ...]
    rule: RuleName
    epsilon: float | None
    ratio: float | None
    budget: int
    alpha: float
    seed: str
    lead: int
    concurrency: int
    address: str | None
    plot: Path | None
    samples: Path | None
    crown: bool
    as_json: bool

    def request(self) -> DuelRequest:
        """The duel that is asked for. Raises InputError that names each option that is wrong."""
        if self.epsilon is not None and self.ratio is not None:
            raise InputError("give --epsilon or --ratio, not both: the ratio to beat is 0.5 + epsilon")
        epsilon = EPSILON if self.epsilon is None else self.epsilon
        p0 = round(0.5 + epsilon, 9) if self.ratio is None else self.ratio
        with command.options():
            rule = RuleSpec(name=self.rule, p0=p0, alpha=self.alpha, budget=self.budget)
            return DuelRequest(
                champion=self.champion,
                contender=self.contender,
                env_ids=self.env_ids,
                rule=rule,
                seed=self.seed,
                lead=self.lead,
                concurrency=self.concurrency,
            )


Hold = Callable[[DuelRequest, Settings, Watcher], Awaitable[DuelReport]]
"""Holds a duel, as `chimera.system.arena.hold_duel` does."""


async def hold_on_ray(request: DuelRequest, settings: Settings, watch: Watcher) -> DuelReport:
    """`hold_duel`, on a Ray that is joined or started, and ended by SIGTERM."""
    with on_ray(settings, shown=False):
        return await hold_duel(request, settings, watch)


def execute(options: Options, *, hold: Hold = hold_on_ray) -> int:
    """Hold the duel, print what came of it, and return the exit code."""
    return command.run(_execute(options, hold), as_json=options.as_json)


async def _execute(options: Options, hold: Hold) -> int:
    request = options.request()
    settings = read_settings(address=options.address)
    await check_request(request)
    pictures = _pictures(options.plot, request.env_ids, options.samples)
    with ExitStack() as stack:
        samples = stack.enter_context(_created(options.samples)) if options.samples else None
        bars = stack.enter_context(_bars(request, shown=not options.as_json and stderr.isatty()))

        def watch(env_id: str, standing: Standing, pairs: tuple[Pair, ...]) -> None:
            if samples:
                _write(samples, pairs)
            if bars:
                bars.move(env_id, standing)

        report = await hold(request, settings, watch)
    if not options.as_json:
        _print(report)
    crowned: dict[str, str] = {}
    failed = _attempt(lambda: _crown(report, settings, crowned)) if options.crown else None
    failed = _attempt(lambda: _draw(report, pictures)) or failed
    if options.as_json:
        render.line(render.to_line(_document(report, crowned, failed), indent=2))
    for env_id, miner_id in crowned.items():
        if not options.as_json:
            render.say(f"{command.one_line(miner_id)} is on record as the champion of {env_id}")
    if failed:
        return command.FAULT
    return DECIDED if is_decided(report) else INCONCLUSIVE


def _attempt(step: Callable[[], None]) -> Exception | None:
    """Take a step after the duel. What it raises is told, and takes nothing back: the duel has its result."""
    try:
        step()
    except Exception as error:
        render.error(error, as_json=False)
        return error
    return None


def is_decided(report: DuelReport) -> bool:
    """Whether the samples decided it, either way: a champion that stays only because budgets were spent did not win."""
    held = sum(duel.decision == "champion" for duel in report.duels)
    return report.total.decision == "contender" or held > len(report.request.env_ids) - report.total.needed


def crowns(report: DuelReport) -> dict[str, str]:
    """Who is champion of which environments after a duel: of an inconclusive one nobody.

    A contender that wins gets those that it won; a champion that holds keeps all but those that the contender won.
    """
    if not is_decided(report):
        return {}
    if report.total.decision == "contender":
        return dict.fromkeys(report.total.won, report.request.contender)
    return {env_id: report.request.champion for env_id in report.request.env_ids if env_id not in report.total.won}


def _crown(report: DuelReport, settings: Settings, crowned: dict[str, str]) -> None:
    """Put the new champions on record, and in `crowned`. One that was champion already stays so since when it was."""
    for env_id, miner_id in crowns(report).items():
        known = champion_of(env_id, settings)
        if known is None or known.miner_id != miner_id:
            record_champion(env_id, miner_id, settings, since_s=int(SystemClock().now()))
        crowned[env_id] = miner_id


def _draw(report: DuelReport, pictures: dict[str, Path]) -> None:
    for env_id, path in pictures.items():
        try:
            plot_duel(report.standings[env_id].outcomes, report.standings[env_id].duel.rule, path)
        except OSError as error:
            raise InputError(f"the plot cannot be written to {path}: {error.strerror}") from error


def _pictures(plot: Path | None, env_ids: tuple[str, ...], samples: Path | None) -> dict[str, Path]:
    """Where the picture of each environment goes. What would stop them from being drawn is said before the duel."""
    if plot is None:
        return {}
    if plot.suffix.lower() != ".png":
        raise InputError(f"a plot is a PNG file, and {plot} does not end in .png")
    if not plot.parent.is_dir():
        raise InputError(f"there is no folder {plot.parent} for the plot")
    if find_spec("matplotlib") is None:
        raise MissingExtra("matplotlib", "arena")
    names = {env_id: plot.with_name(f"{plot.stem}-{env_id}{plot.suffix}") for env_id in env_ids}
    pictures = {env_ids[0]: plot} if len(env_ids) == 1 else names
    for path in pictures.values():
        if path.exists() or path.is_symlink():
            raise InputError(f"{path} is there already, and is not overwritten: name another file for the plot")
        if samples and path.absolute() == samples.absolute():
            raise InputError(f"{path} is to hold the samples: name another file for the plot")
    if not os.access(plot.parent, os.W_OK):
        raise InputError(f"the plot cannot be written to {plot.parent}: you may not write there")
    return pictures


@contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    """A new file. Raises InputError for one that is there: evidence is never overwritten."""
    try:
        file = path.open("xb")
    except FileExistsError:
        raise InputError(f"{path} is there already, and samples are never overwritten: name another file") from None
    except OSError as error:
        raise InputError(f"the samples cannot be written to {path}: {error.strerror}") from error
    with file:
        yield file


def _write(file: BinaryIO, pairs: tuple[Pair, ...]) -> None:
    """Champion, contender, champion, contender: canonical JSON, a line each."""
    for pair in pairs:
        file.write(b"%b\n%b\n" % (encode(pair.champion.plain()), encode(pair.contender.plain())))
    file.flush()


class _Bars:
    """A bar for each environment: samples of the budget, wins-losses-ties, and the running interval."""

    def __init__(self, progress: Progress, request: DuelRequest) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {
            env_id: progress.add_task(env_id, total=request.rule.budget, standing="") for env_id in request.env_ids
        }

    def move(self, env_id: str, standing: Standing) -> None:
        said = f"{_counts(standing)}  {_interval(standing)}"
        self._progress.update(self._tasks[env_id], completed=standing.duel.samples, standing=said)


@contextmanager
def _bars(request: DuelRequest, *, shown: bool) -> Iterator[_Bars | None]:
    if not shown:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[standing]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress, request)


def _counts(standing: Standing) -> str:
    duel = standing.duel
    return f"{duel.wins}-{duel.losses}-{duel.ties}"


def _interval(standing: Standing) -> str:
    low, high = standing.duel.interval
    return f"{low:.3f} .. {high:.3f}"


def _decision(standing: Standing) -> str:
    result = standing.duel.result
    if result is None:
        return "given up: all is decided"
    return {"contender": "contender wins", "champion": "champion holds", "inconclusive": "inconclusive"}[
        result.decision
    ]


def _print(report: DuelReport) -> None:
    request = report.request
    render.say(("champion   ", "dim"), command.one_line(request.champion))
    render.say(("contender  ", "dim"), command.one_line(request.contender), "\n")
    heads = ("environment", "decision", "wins-losses-ties", "interval", "samples")
    command.table(
        heads,
        (
            (env_id, _decision(standing), _counts(standing), _interval(standing), str(standing.duel.samples))
            for env_id, standing in report.standings.items()
        ),
    )
    render.say("")
    style = "yellow" if not is_decided(report) else "green"
    render.say((verdict(report), style))
    render.say((honest(next(iter(report.standings.values())).duel.rule.record()), "dim"))


def verdict(report: DuelReport) -> str:
    """The whole duel in one sentence."""
    total, many = report.total, len(report.request.env_ids)
    won = f"{len(total.won)} of {many} environment{'s' * (many > 1)} won, {total.needed} needed"
    if total.decision == "contender":
        return f"the contender wins: {won}"
    if is_decided(report):
        return f"the champion holds: {won}"
    return f"inconclusive, so the champion stays: {won}; a greater --budget may tell"


def honest(rule: RuleRecord) -> str:
    """What a rule's decisions are worth: how often it is wrong, exactly, where both claims are as wrong as can be."""
    said = (
        f"{rule.name} looks after every sample, up to {rule.budget}: were the contender's true win rate the ratio to "
        f"beat, {rule.p0:g}, it would win {rule.error_contender:.1%} of such duels and lose {rule.error_champion:.1%}, "
        "all by chance"
    )
    if max(rule.error_contender, rule.error_champion) > rule.alpha / 2:
        return f"{said}; --rule calibrated keeps each at {rule.alpha / 2:.1%} or less"
    return f"{said}; at most {rule.alpha / 2:.1%} each was asked for"


def _document(report: DuelReport, crowned: dict[str, str], failed: Exception | None) -> dict[str, Any]:
    request, total = report.request, report.total
    error = {"error": {"kind": type(failed).__name__, "message": str(failed)}} if failed else {}
    return error | {
        "champion": request.champion,
        "contender": request.contender,
        "decision": total.decision if is_decided(report) else "inconclusive",
        "needed": total.needed,
        "won": total.won,
        "lost": total.lost,
        "open": total.open,
        "win_rates": total.win_rates,
        "environments": {
            env_id: {
                "decision": standing.duel.result.decision if standing.duel.result else "given_up",
                "wins": standing.duel.wins,
                "losses": standing.duel.losses,
                "ties": standing.duel.ties,
                "samples": standing.duel.samples,
                "interval": standing.duel.interval,
            }
            for env_id, standing in report.standings.items()
        },
        "rule": next(iter(report.standings.values())).duel.rule.record().model_dump(mode="json"),
        "seed": request.seed,
        "crowned": crowned,
    }
