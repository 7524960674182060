"""The command `chimera serve`: a node with its API. It imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    host: Annotated[str, typer.Option(help="Where to listen. Others than this machine need TLS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 is any that is free.")] = 8700,
    agents: Annotated[
        int | None, typer.Option(min=0, max=100_000, help="Workers to begin with (default 6; with --name none).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="openai:MODEL, anthropic:MODEL, local:MODEL ... (default CHIMERA_MODEL).")
    ] = None,
    reload_keys: Annotated[
        list[str] | None,
        typer.Option("--reload-key", help="Whose signed code is taken: an Ed25519 public key, base64.", metavar="KEY"),
    ] = None,
    origins: Annotated[
        list[str] | None, typer.Option("--origin", help="A web page's origin that may use the API.", metavar="URL")
    ] = None,
    hostnames: Annotated[
        list[str] | None,
        typer.Option("--hostname", help="What it is called by, if others may ask it (default: any).", metavar="NAME"),
    ] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option("--policy", help="Beginning of policies that may be spawned, besides ours.", metavar="PREFIX"),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.1, max=1_000_000, help="Requests a second of each client.")] = 100.0,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Look for anomalies in the swarm.")] = True,
    tls_cert: Annotated[Path | None, typer.Option(help="The certificate, PEM.", metavar="FILE")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.", metavar="FILE")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Others may reach it without TLS.")] = False,
    name: Annotated[str | None, typer.Option(help="A swarm that runs already, to serve instead of a new one.")] = None,
    address: Annotated[
        str | None, typer.Option(help="auto, local, HOST:PORT or ray://HOST:PORT (default auto).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")] = False,
) -> None:
    """Start a node: Ray, a swarm, and its API, until Ctrl-C or SIGTERM. SIGHUP has a new process serve, with no gap.

    The first time it makes the user admin, and prints a one-time password.

    Exit codes: **0** ended, **2** bad input, such as a port that is taken, **3** a fault.

    Example: `chimera serve --port 8700`
    """
    from chimera.cli.serve_run import Request, execute

    request = Request(
        host=host,
        port=port,
        agents=agents,
        model=model,
        reload_keys=tuple(reload_keys or ()),
        origins=tuple(origins or ()),
        hostnames=tuple(hostnames or ()),
        policies=tuple(policies or ()),
        rate_per_s=rate,
        watch=watch,
        certificate=tls_cert.absolute() if tls_cert else None,
        key=tls_key.absolute() if tls_key else None,
        plain=plain,
        name=name,
        address=address,
        as_json=as_json,
    )
    raise typer.Exit(execute(request))
