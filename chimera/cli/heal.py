"""`chimera heal`: a failure mended, and patches judged."""

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


Allow = Annotated[
    list[str] | None, typer.Option(help="A capability that the patch may bring in: import:NAME or a kind.")
]
Timeout = Annotated[float, typer.Option(min=0.1, max=3_600, help="Seconds for each suite of tests.")]
WhichWalls = Annotated[Walls | None, typer.Option(help="Which one to use (default: the first that works).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
FailureFile = Annotated[
    Path | None,
    typer.Option(
        help="A traceback, pytest's output, an alert of chimera watch --json, or words; - is standard input.",
        metavar="FILE",
    ),
]
PricesFile = Annotated[
    Path | None, typer.Option(help="USD per million tokens by model, YAML or JSON (docs/models.md).", metavar="FILE")
]
Home = Annotated[
    Path | None,
    typer.Option(help="For the memory and the log of changes (default CHIMERA_HOME/heart).", metavar="DIR"),
]

heal = typer.Typer(name="heal", help="Mend a module, and judge patches, where they can do no harm.")


@heal.callback(invoke_without_command=True, no_args_is_help=True)
def mend(
    context: typer.Context,
    module: Annotated[str | None, typer.Option(help="What to mend, such as shop.till.", metavar="NAME")] = None,
    failure: FailureFile = None,
    workspace: Annotated[
        Path, typer.Option(help="The folder with the code and its test_*.py.", metavar="DIR")
    ] = Path(),
    hidden_tests: Annotated[
        Path | None, typer.Option(help="Tests that the model does not see (default WORKSPACE/hidden).", metavar="DIR")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="openai:MODEL, anthropic:MODEL, local:MODEL ... (default CHIMERA_MODEL).")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, max=16, help="Patches that the model is asked for.")] = 3,
    repairs: Annotated[int, typer.Option(min=0, max=5, help="How often a rejected one goes back to it.")] = 1,
    allow: Allow = None,
    timeout: Timeout = 10.0,
    sandbox: WhichWalls = None,
    apply: Annotated[bool, typer.Option("--apply", help="Change the files, all or none.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="A new file for the patch, which heal judge reads.", metavar="FILE.json")
    ] = None,
    max_usd: Annotated[float | None, typer.Option(min=0, help="At most so much money; needs the price.")] = None,
    prices: PricesFile = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Mend a module, and judge patches, where they can do no harm.

    A model writes patches for the failure; the first that is accepted is shown as a diff, and applied with **--apply**.
    Exit codes: **0** accepted (and applied), **1** none was, **2** bad input, **3** no sandbox works here, or another
    fault. What goes on is told on standard error.

    Example: `chimera heal --module till --failure traceback.txt --workspace app --model anthropic:NAME`
    """
    if context.invoked_subcommand is not None:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        if given := [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]:
            raise typer.BadParameter(f"put it after {context.invoked_subcommand}", param_hint=_option(given[0]))
        return
    if module is None and failure is None:
        typer.echo(context.get_help())
        raise typer.Exit(BAD_INPUT)
    if module is None or failure is None:
        raise typer.BadParameter("is missing", param_hint="--module" if module is None else "--failure")
    from chimera.cli.heal_run import Request, execute

    request = Request(
        module=module,
        failure=failure,
        workspace=workspace,
        hidden_tests=hidden_tests,
        model=model,
        candidates=candidates,
        repairs=repairs,
        allow=tuple(allow or ()),
        timeout_s=timeout,
        sandbox=sandbox.value if sandbox else None,
        apply=apply,
        output=output,
        prices=prices,
        max_usd=max_usd,
        home=home,
        as_json=as_json,
    )
    raise typer.Exit(execute(request))


def _option(name: str) -> str:
    return "--json" if name == "as_json" else "--" + name.replace("_", "-")


@heal.command("judge")
def heal_judge(
    workspace: Annotated[
        Path, typer.Option(help="The folder with the code and its `test_*.py`. It is only read.", metavar="DIR")
    ],
    hidden_tests: Annotated[Path, typer.Option(help="Tests that whoever made the patch has not seen.", metavar="DIR")],
    patch: Annotated[Path, typer.Option(help="The patch, as JSON.", metavar="FILE")],
    allow: Allow = None,
    timeout: Timeout = 10.0,
    sandbox: WhichWalls = None,
    as_json: AsJson = False,
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
