"""The commands `chimera certs`: certificates for mutual TLS between the nodes of a Ray cluster. They import when they
run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from chimera.security.certificates import Certificate

GOOD, ENDING = 0, 1

FOLDER = "certs"

certs = typer.Typer(name="certs", help="Certificates for TLS between the nodes of a Ray cluster.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
Home = Annotated[
    Path | None, typer.Option(help="They are in its folder `certs` (default CHIMERA_HOME).", metavar="DIR")
]


@certs.callback()
def all_certs() -> None:
    """Certificates for mutual TLS between the nodes of a Ray cluster. They are in CHIMERA_HOME/certs."""


@certs.command("make")
def certs_make(
    node: Annotated[str, typer.Option(help="What the node is called.", metavar="NAME")] = "node",
    addresses: Annotated[
        list[str] | None,
        typer.Option("--address", help="Where it is asked: an IP address, a network (10.0.1.0/24) or a DNS name."),
    ] = None,
    days: Annotated[float, typer.Option(min=0.001, max=3_650, help="How long it is good for.")] = 365.0,
    renew: Annotated[bool, typer.Option("--renew", help="A new key and certificate in place of the old.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a node's key and certificate, and the cluster's authority if there is none, and print what to set.

    127.0.0.1, ::1 and localhost are in every certificate. Nothing is overwritten without `--renew`.

    Exit codes: **0** done, **2** bad input, such as a node that has a certificate, **3** a fault.

    Example: `chimera certs make --node head --address 10.0.1.5`
    """

    async def make() -> int:
        from chimera.cli import render
        from chimera.core.clock import SystemClock
        from chimera.security import certificates

        made = certificates.make(_folder(home), node, addresses or (), clock=SystemClock(), days=days, renew=renew)
        if as_json:
            render.line(render.to_line({**_described(made), "environment": made.environment()}))
            return GOOD
        for name, value in made.environment().items():
            render.line(f"export {name}={shlex.quote(value)}")
        render.note(f"{made.addresses} addresses, good until {made.ends_at:%Y-%m-%d}; the key is for that node only")
        return GOOD

    _run(make, as_json=as_json)


@certs.command("check")
def certs_check(
    days: Annotated[float, typer.Option(min=0, max=3_650, help="Say which end within so many days.")] = 30.0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Say when the authority and the nodes' certificates end, the first to end first.

    Exit codes: **0** all are good, **1** one ends soon, has ended, or is not the authority's, **2** bad input.

    Example: `chimera certs check --days 60`
    """

    async def check() -> int:
        from chimera.cli import render
        from chimera.core.clock import SystemClock
        from chimera.security import certificates

        code, clock = GOOD, SystemClock()
        for one in certificates.check(_folder(home)):
            left = one.days_left(clock)
            says = "ended" if left <= 0 else "ends soon" if left <= days else "good"
            says = says if one.trusted else "not of this authority, or not of its key"
            code = code if says == "good" else ENDING
            if as_json:
                render.line(render.to_line({**_described(one), "days_left": round(left, 3), "says": says}))
            else:
                render.line(f"{one.node or 'authority'}  {one.ends_at:%Y-%m-%d}  {left:.0f} days  {says}")
        return code

    _run(check, as_json=as_json)


def _run(work: Callable[[], Coroutine[Any, Any, int]], *, as_json: bool) -> None:
    from chimera.cli.arena import command

    raise typer.Exit(command.run(work(), as_json=as_json))


def _folder(home: Path | None) -> Path:
    from chimera.cli.settings import read_settings

    return read_settings(home=home).home / FOLDER


def _described(one: Certificate) -> dict[str, object]:
    return {"node": one.node, "path": str(one.path), "ends_at": one.ends_at.isoformat(), "addresses": one.addresses}
