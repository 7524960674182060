"""The `chimera` command. Commands import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from chimera.core.types import Consensus

app = typer.Typer(
    name="chimera",
    help="A swarm of AI agents on Ray that governs itself.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


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
        str | None, typer.Option(help="offline, openai:NAME, anthropic:NAME or local:NAME (default offline).")
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
    **2** bad input, **3** an internal fault.

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


def main(arguments: list[str] | None = None) -> None:
    """The entry point of the console script; `arguments` default to the process's own."""
    app(args=arguments, prog_name="chimera")
