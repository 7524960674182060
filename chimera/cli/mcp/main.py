"""The commands `chimera mcp`. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

mcp = typer.Typer(name="mcp", help="Chimera as a server of the Model Context Protocol.", no_args_is_help=True)


@mcp.callback()
def servers() -> None:
    """Chimera as a server of the Model Context Protocol."""


@mcp.command("serve")
def mcp_serve(
    http: Annotated[
        bool, typer.Option("--http", help="Over streamable HTTP, and not standard input and output.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="With --http; 0 takes a free one.")] = 0,
    token_file: Annotated[
        Path | None,
        typer.Option(help="With --http: the file with the token (default CHIMERA_HOME/security/mcp.token, made anew)."),
    ] = None,
    documents: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Missions may read below this folder, and nowhere else.")
    ] = None,
    miners: Annotated[
        list[str] | None, typer.Option("--miner", help="May duel, besides random, minimax and oracle:p=P.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The missions' model (default CHIMERA_MODEL).")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Use this running swarm, and start none.")] = None,
    address: Annotated[str | None, typer.Option(help="Of Ray: auto, local, HOST:PORT or ray://HOST:PORT.")] = None,
) -> None:
    """Let any MCP client run missions, ask duels and watch metrics. It serves until its client, or Ctrl-C, ends it.

    The swarm starts with the first mission. Over HTTP it listens on 127.0.0.1, and each request needs the token.

    Exit codes: **0** ended, **2** bad input, **3** a fault.

    Example: `chimera mcp serve --documents docs`
    """
    from chimera.cli.arena import command
    from chimera.cli.mcp import run

    request = run.Request(
        http=http,
        port=port,
        token_file=token_file,
        documents=documents,
        miners=tuple(miners or ()),
        model=model,
        name=name,
        address=address,
    )
    raise typer.Exit(command.run(run.serve(request), as_json=False))
