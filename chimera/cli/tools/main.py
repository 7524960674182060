"""The commands `chimera tools`. They import what they need when they run."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

tools = typer.Typer(
    name="tools",
    help="Tools of other programs (Model Context Protocol): find, approve and call them.",
    no_args_is_help=True,
)

ServersFile = Annotated[
    Path | None,
    typer.Option("--servers", metavar="FILE", help='Servers: `{"mcpServers": {...}}` (default CHIMERA_HOME/mcp.json).'),
]
MeaningOption = Annotated[
    Literal["none", "minilm", "model"],
    typer.Option(
        "--meaning", help="Compare by meaning too: MiniLM on this machine, or the embeddings of CHIMERA_MODEL."
    ),
]
Wait = Annotated[float, typer.Option("--wait", min=0.1, max=600.0, help="Seconds for servers to answer.")]
OnRay = Annotated[bool, typer.Option("--ray", help="Hold the servers in actors on Ray, and not in this process.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
Server = Annotated[str, typer.Argument(help="A server's name in the file.", metavar="SERVER")]
Names = Annotated[list[str] | None, typer.Argument(help="Only these of its tools.", metavar="[TOOL]...")]
By = Annotated[str | None, typer.Option("--as", help="Who you are, for the record (default: the system's user).")]


@tools.callback()
def all_tools() -> None:
    """Tools of other programs (Model Context Protocol): find, approve and call them."""


@tools.command("servers")
def tools_servers(
    servers: ServersFile = None, wait: Wait = 15.0, on_ray: OnRay = False, as_json: AsJson = False
) -> None:
    """Connect all servers, and say how each of them is.

    Exit codes: **0** all answer, **1** some do not, **2** bad input, **3** a fault.

    Example: `chimera tools servers --servers mcp.json`
    """
    from chimera.cli.tools import run

    _run(run.servers(run.Options(servers=servers, wait_s=wait, on_ray=on_ray, as_json=as_json)), as_json)


@tools.command("list")
def tools_list(
    server: Annotated[str | None, typer.Argument(help="Only this server's.", metavar="[SERVER]")] = None,
    servers: ServersFile = None,
    wait: Wait = 15.0,
    as_json: AsJson = False,
) -> None:
    """List tools, and how each stands: new, approved, changed since it was approved, or gone.

    Exit codes: **0** listed, **1** a server did not answer, **2** bad input, **3** a fault.

    Example: `chimera tools list time --servers mcp.json`
    """
    from chimera.cli.tools import run

    _run(run.listed(run.Options(servers=servers, wait_s=wait, as_json=as_json), server), as_json)


@tools.command("approve")
def tools_approve(
    server: Server,
    names: Names = None,
    servers: ServersFile = None,
    wait: Wait = 15.0,
    by: By = None,
    despite: Annotated[bool, typer.Option("--despite", help="Also what looks poisoned.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: you have seen them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a server offers, and approve it as it is now.

    A tool that changes later is refused until it is approved again.

    Exit codes: **0** approved, **1** some or all were not, **2** bad input, **3** a fault.

    Example: `chimera tools approve time get_current_time --servers mcp.json`
    """
    from chimera.cli.tools import run

    options = run.Options(servers=servers, wait_s=wait, as_json=as_json)
    _run(run.approve(options, server, names, by=by, despite=despite, yes=yes), as_json)


@tools.command("revoke")
def tools_revoke(server: Server, names: Names = None, servers: ServersFile = None, as_json: AsJson = False) -> None:
    """Take approvals back: of all of a server's tools, or of those named. It needs no connection to the server.

    Exit codes: **0** taken back, **1** there was none, **2** bad input, **3** a fault.

    Example: `chimera tools revoke time --servers mcp.json`
    """
    from chimera.cli.tools import run

    _run(run.revoke(run.Options(servers=servers, wait_s=0.0, as_json=as_json), server, names), as_json)


@tools.command("search")
def tools_search(
    query: Annotated[str, typer.Argument(help="What has to be done, in plain words.", metavar="QUERY")],
    most: Annotated[int, typer.Option("-k", "--most", min=1, max=100, help="So many tools.")] = 5,
    servers: ServersFile = None,
    meaning: MeaningOption = "none",
    wait: Wait = 15.0,
    on_ray: OnRay = False,
    as_json: AsJson = False,
) -> None:
    """Find the few approved tools that fit a task.

    Exit codes: **0** found, **1** none fits, **2** bad input, **3** a fault.

    Example: `chimera tools search "what time is it in Tokyo" --servers mcp.json`
    """
    from chimera.cli.tools import run

    options = run.Options(servers=servers, wait_s=wait, meaning=meaning, on_ray=on_ray, as_json=as_json)
    _run(run.search(options, query, most), as_json)


@tools.command("call")
def tools_call(
    tool: Annotated[str, typer.Argument(help="SERVER/TOOL.", metavar="SERVER/TOOL")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="name=value, the value JSON or plain text; or one JSON object.", metavar="[NAME=VALUE]..."),
    ] = None,
    servers: ServersFile = None,
    timeout: Annotated[float | None, typer.Option(min=0.1, max=3_600.0, help="Seconds.")] = None,
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a tool that writes or sends.")] = False,
    on_ray: OnRay = False,
    as_json: AsJson = False,
) -> None:
    """Call an approved tool, and print what it answers. The arguments are checked against its schema before.

    Exit codes: **0** answered, **1** refused, failed, or an error of the tool's, **2** bad input, **3** a fault.

    Example: `chimera tools call time/get_current_time timezone=Asia/Tokyo --servers mcp.json --yes`
    """
    from chimera.cli.tools import run

    options = run.Options(servers=servers, wait_s=timeout or 60.0, on_ray=on_ray, as_json=as_json)
    _run(run.call(options, tool, arguments or [], timeout_s=timeout, by=by, yes=yes), as_json)


@tools.command("ask")
def tools_ask(
    question: Annotated[str, typer.Argument(help="The question, in plain words.", metavar="QUESTION")],
    model: Annotated[str | None, typer.Option(help="The model (default CHIMERA_MODEL); it must know tools.")] = None,
    servers: ServersFile = None,
    meaning: MeaningOption = "none",
    wait: Wait = 15.0,
    most: Annotated[int, typer.Option("-k", "--most", min=1, max=128, help="Tools that the model is shown.")] = 5,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Permit all calls of the tools that are shown.")] = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Let a model answer a question with the tools that fit. You are asked before each call that writes or sends, and
    before each one that follows from what a tool has answered.

    Exit codes: **0** answered, **1** a call failed or was refused on the way, **2** bad input, **3** a fault.

    Example: `chimera tools ask "What time is it in Tokyo?" --model openai:gpt-5-mini --servers mcp.json`
    """
    from chimera.cli.tools import run

    options = run.Options(servers=servers, wait_s=wait, meaning=meaning, as_json=as_json, model=model)
    _run(run.ask(options, question, most, by=by, yes=yes), as_json)


@tools.command("evaluate")
def tools_evaluate(
    file: Annotated[Path, typer.Argument(help="A set of tools and queries (docs/tools.md says how).", metavar="FILE")],
    meaning: MeaningOption = "none",
    as_json: AsJson = False,
) -> None:
    """Measure how often the right tool is found: by words, by meaning, by both, and with example queries.

    Exit codes: **0** measured, **2** bad input, **3** a fault.

    Example: `chimera tools evaluate tests/data/tools/metatool.jsonl --meaning minilm`
    """
    from chimera.cli.tools import run

    _run(run.evaluated(run.Options(servers=None, wait_s=0.0, meaning=meaning, as_json=as_json), file), as_json)


def _run(work: Coroutine[Any, Any, int], as_json: bool) -> None:
    from chimera.cli.arena import command

    raise typer.Exit(command.run(work, as_json=as_json))
