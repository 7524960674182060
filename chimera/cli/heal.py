"""`chimera heal`: patches, judged."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from chimera.healing.judge import Verdict

MAX_PATCH_BYTES = 16_000_000

ACCEPTED, REJECTED, BAD_INPUT, FAULT = 0, 1, 2, 3


class Walls(StrEnum):
    """The sandboxes that there are."""

    BWRAP = "bwrap"
    LANDLOCK = "landlock"


heal = typer.Typer(name="heal", help="Judge patches, where they can do no harm.", no_args_is_help=True)


@heal.callback()
def options() -> None:
    """Judge patches, where they can do no harm."""


@heal.command("judge")
def heal_judge(
    workspace: Annotated[
        Path, typer.Option(help="The folder with the code and its `test_*.py`. It is only read.", metavar="DIR")
    ],
    hidden_tests: Annotated[Path, typer.Option(help="Tests that whoever made the patch has not seen.", metavar="DIR")],
    patch: Annotated[Path, typer.Option(help="The patch, as JSON.", metavar="FILE")],
    allow: Annotated[
        list[str] | None, typer.Option(help="A capability that the patch may bring in: import:NAME or a kind.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=3_600, help="Seconds for each suite of tests.")] = 10.0,
    sandbox: Annotated[Walls | None, typer.Option(help="Which one to use (default: the first that works).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")] = False,
) -> None:
    """Judge a patch: read it first, then try it in a sandbox against the tests it knows and those it does not.

    Exit codes: **0** accepted, **1** rejected (the reason is printed), **2** bad input, **3** no sandbox works here, so
    nothing was run, or another fault.

    Example: `chimera heal judge --workspace app --hidden-tests hidden --patch patch.json --json`
    """
    from chimera.cli import render
    from chimera.core.errors import InputError

    with render.results_only():
        try:
            verdict = asyncio.run(_judge(workspace, hidden_tests, patch, allow or [], timeout, sandbox))
        except InputError as error:
            render.error(error, as_json=as_json)
            raise typer.Exit(BAD_INPUT) from None
        except Exception as error:
            render.error(error, as_json=as_json)
            raise typer.Exit(FAULT) from None
        if as_json:
            render.line(render.to_line(verdict.model_dump(mode="json")))
        else:
            colour = "green" if verdict.accepted else "red"
            render.say((verdict.verdict, colour), f"  {verdict.reason}", (f"  ({verdict.wall_s:.1f} s)", "dim"))
    raise typer.Exit(ACCEPTED if verdict.accepted else REJECTED)


async def _judge(
    workspace: Path, hidden_tests: Path, patch: Path, allow: list[str], timeout_s: float, prefer: Walls | None
) -> Verdict:
    from chimera.core.errors import InputError
    from chimera.healing.judge import judge
    from chimera.healing.sandbox import open_sandbox

    try:
        with patch.open("rb") as file:
            given = file.read(MAX_PATCH_BYTES + 1)
    except OSError as error:
        raise InputError(f"{patch} cannot be read: {error.strerror}") from None
    walls = open_sandbox(prefer.value if prefer else None)
    return await judge(workspace, hidden_tests, given, walls, allowed=allow, wall_s=timeout_s)
