"""The command `chimera reload`: new code into a running swarm. It imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def reload(
    module: Annotated[
        str | None, typer.Argument(help="What to load anew, such as shop.till.", metavar="MODULE")
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Its new source (default: MODULE's file, seen from here).", metavar="FILE")
    ] = None,
    roll_back: Annotated[bool, typer.Option("--roll-back", help="Back to the version before.")] = False,
    lossy: Annotated[
        bool, typer.Option("--lossy", help="Agents go back to the state in which they left that version.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Print which versions run, and change nothing.")] = False,
    watch: Annotated[
        Path | None, typer.Option(help="Load each module below it whenever it is saved.", metavar="DIR")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="auto, local, HOST:PORT or ray://HOST:PORT (default auto).")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The swarm's name, where more than one runs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")] = False,
) -> None:
    """Load new code of a module into every cell of a running swarm, or into none, while its agents are at work.

    Exit codes: **0** done, also where that code was in use already and when a watch was ended by Ctrl-C or SIGTERM,
    **1** refused: a cell cannot take it, and nothing has changed, **2** bad input, **3** a fault.

    Example: `chimera reload shop.till`
    """
    from chimera.cli.reload_run import Request, execute

    request = Request(
        module=module,
        source=source,
        roll_back=roll_back,
        lossy=lossy,
        status=status,
        watch=watch,
        address=address,
        name=name,
        as_json=as_json,
    )
    raise typer.Exit(execute(request))
