"""The `chimera` command. Commands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from chimera.cli.arena.main import app as arena
from chimera.cli.audit import audit
from chimera.cli.certs import certs
from chimera.cli.content.main import content
from chimera.cli.heal import heal
from chimera.cli.heart import heart
from chimera.cli.mcp.main import mcp
from chimera.cli.reload import reload
from chimera.cli.review.main import review
from chimera.cli.sandbox.main import sandbox
from chimera.cli.security import security
from chimera.cli.serve import serve
from chimera.cli.tools.main import tools
from chimera.cli.treasury.main import treasury
from chimera.cli.users import keys, users
from chimera.cli.watch.main import anomaly, watch
from chimera.core.types import Consensus

app = typer.Typer(
    name="chimera",
    help="A swarm of AI agents on Ray that governs itself.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


bench = typer.Typer(name="bench", help="Measure Chimera on this machine.", no_args_is_help=True)
missions = typer.Typer(name="missions", help="List, show, resume and cancel missions.", no_args_is_help=True)
app.add_typer(arena, name="arena")
app.add_typer(bench)
app.add_typer(missions)
app.add_typer(audit)
app.add_typer(certs)
app.add_typer(content)
app.add_typer(heal)
app.add_typer(heart)
app.add_typer(anomaly)
app.add_typer(mcp)
app.add_typer(review)
app.add_typer(sandbox)
app.add_typer(security)
app.add_typer(tools)
app.add_typer(treasury)
app.command()(watch)
app.command()(reload)
app.command()(serve)
app.add_typer(users)
app.add_typer(keys)

Address = Annotated[str | None, typer.Option(help="auto, local, HOST:PORT or ray://HOST:PORT (default auto).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
JournalUrl = Annotated[
    str | None,
    typer.Option("--journal", help="sqlite:///PATH, redis:// or postgresql:// (default CHIMERA_JOURNAL_URL)."),
]
SwarmName = Annotated[str | None, typer.Option("--name", help="The swarm's name, where more than one runs.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"chimera {installed_version('chimera')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A swarm of AI agents on Ray that governs itself."""


@app.command()
def run(
    question: Annotated[str | None, typer.Argument(help="The question, in plain words.")] = None,
    docs: Annotated[
        str | None,
        typer.Option(help="A folder of .txt, .md, .rst, .html and .pdf files, or package:NAME/FOLDER.", metavar="DIR"),
    ] = None,
    mission: Annotated[Path | None, typer.Option(help="A mission file, YAML or JSON.", metavar="FILE")] = None,
    questions: Annotated[
        Path | None, typer.Option(help='A batch: one {"question": ...} a line.', metavar="FILE.jsonl")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Agents of different method for each extraction (default 3).")
    ] = None,
    consensus: Annotated[
        Consensus | None, typer.Option(help="How replies become a decision (default weighted).")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="The share a quorum needs (default 0.51).")] = None,
    agents: Annotated[int | None, typer.Option(help="Agents in the swarm (default 9).")] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds for each question (default 60).")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="offline, openai:MODEL, anthropic:MODEL, local:MODEL or another; docs/models.md has all."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="auto, local, HOST:PORT or ray://HOST:PORT (default auto).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Questions of a batch that run at once.")] = 8,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an internal fault.")] = False,
) -> None:
    """Ask a swarm a question over documents, and get a cited answer that several agents agreed on.

    Exit codes: **0** answered, **1** the swarm could not agree or ran out of time (what there is is printed),
    **2** bad input, a journal file that cannot be opened too, **3** a fault, a journal's server out of reach too.

    Example: `chimera run "Who first used the Iris database?" --docs package:sklearn/datasets/descr`
    """
    from chimera.cli.run import Request, execute

    request = Request(
        question=question,
        docs=docs,
        mission=mission,
        questions=questions,
        changes={
            "replicas": replicas,
            "consensus": consensus,
            "threshold": threshold,
            "agents": agents,
            "model": model,
        },
        deadline_s=deadline,
        address=address,
        as_json=as_json,
        concurrency=concurrency,
        verbose=verbose,
    )
    raise typer.Exit(execute(request))


@app.command()
def top(
    address: Address = None,
    name: SwarmName = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and exit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch a running swarm: nodes, managers, cells, agents, queue, rates, latencies, decisions, budget.

    Example: `chimera top --once`
    """
    from chimera.cli.top import execute
    from chimera.client import SwarmCoordinator

    raise typer.Exit(execute(SwarmCoordinator.attach, name=name, address=address, once=once, as_json=as_json))


@bench.command("swarm")
def bench_swarm(
    agents: Annotated[int, typer.Option(min=1, max=1_000_000, help="Agents in the swarm.")] = 1_000,
    tasks: Annotated[int, typer.Option(min=1, max=10_000_000, help="Tasks to run.")] = 10_000,
    think: Annotated[float, typer.Option(min=0, help="Milliseconds that an agent takes.", metavar="MS")] = 0.0,
    consensus: Annotated[int, typer.Option(min=1, max=64, help="Voters on each task.", metavar="K")] = 1,
    rate: Annotated[float, typer.Option(min=0, help="Tasks a second; 0 is as many as it takes.", metavar="R")] = 0.0,
    journal: JournalUrl = None,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="kill -9 cells, managers and the coordinator meanwhile.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the chaos.")] = 0,
    hang: Annotated[float, typer.Option(min=0, max=1, help="Share of voters that hang.")] = 0.0,
    dissent: Annotated[float, typer.Option(min=0, max=1, help="Share of voters that disagree.")] = 0.0,
    certainty: Annotated[float, typer.Option(min=0.5, max=1, help="See Task.certainty; 1 stops only when sure.")] = 1.0,
    frugal: Annotated[bool, typer.Option("--frugal", help="Ask no more voters at a time than are needed.")] = False,
    attempt_timeout: Annotated[float | None, typer.Option(help="Seconds for one attempt.")] = None,
    window: Annotated[int, typer.Option(min=1, max=100_000, help="Tasks in progress at once.")] = 2_000,
    cells: Annotated[int | None, typer.Option(help="Cell processes; 0 is one per CPU (default CHIMERA_CELLS).")] = None,
    address: Annotated[str, typer.Option(help="local, auto, HOST:PORT or ray://HOST:PORT.")] = "local",
    as_json: AsJson = False,
) -> None:
    """Run a swarm of many agents through the whole path, and print what it did and what it cost.

    Exit codes: **0** all is well, **1** something was lost, doubled or wrong, **2** bad input, **3** a fault.

    Example: `chimera bench swarm --agents 200 --tasks 500 --json`
    """
    from chimera.cli.bench import execute

    plan = {
        "agents": agents,
        "tasks": tasks,
        "think_s": think / 1_000,
        "voters": consensus,
        "rate_per_s": rate,
        "journal": journal,
        "chaos": chaos,
        "seed": seed,
        "hang": hang,
        "dissent": dissent,
        "certainty": certainty,
        "frugal": frugal,
        "attempt_timeout_s": attempt_timeout,
        "window": window,
        "address": address,
        "cells": cells,
    }
    raise typer.Exit(execute(plan, as_json=as_json))


@missions.command("list")
def missions_list(
    running: Annotated[bool, typer.Option("--running", help="Only those that have not ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the newest first.")] = 20,
    journal: JournalUrl = None,
    as_json: AsJson = False,
) -> None:
    """The missions in a journal, the newest first.

    Example: `chimera missions list --running`
    """
    from chimera.cli.missions import execute_list

    raise typer.Exit(execute_list(journal, running=running, limit=limit, as_json=as_json))


@missions.command("show")
def missions_show(
    mission_id: Annotated[str, typer.Argument(help="The mission's id.")],
    journal: JournalUrl = None,
    as_json: AsJson = False,
) -> None:
    """What happened to a mission, event by event, and what came of it.

    Example: `chimera missions show mission-0123456789ab`
    """
    from chimera.cli.missions import execute_show

    raise typer.Exit(execute_show(mission_id, journal, as_json=as_json))


@missions.command("resume")
def missions_resume(
    mission_id: Annotated[str, typer.Argument(help="The mission's id.")],
    address: Address = None,
    journal: JournalUrl = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a mission that was left unfinished, in a new swarm with the agents it had, and print its result.

    Exit codes are those of `chimera run`.

    Example: `chimera missions resume mission-0123456789ab`
    """
    from chimera.cli.missions import execute_resume

    raise typer.Exit(execute_resume(mission_id, address, journal, as_json=as_json))


@missions.command("cancel")
def missions_cancel(
    mission_id: Annotated[str, typer.Argument(help="The mission's id.")],
    address: Address = None,
    name: SwarmName = None,
    as_json: AsJson = False,
) -> None:
    """End a mission of a running swarm, and print what there is of its result.

    Example: `chimera missions cancel mission-0123456789ab`
    """
    from chimera.cli.missions import execute_cancel

    raise typer.Exit(execute_cancel(mission_id, address, name, as_json=as_json))


def main(arguments: list[str] | None = None) -> None:
    """The entry point of the console script; `arguments` default to the process's own."""
    app(args=arguments, prog_name="chimera")
