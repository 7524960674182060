"""The commands `chimera heart`. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

heart = typer.Typer(name="heart", help="A node that mends itself: run it, and see what it did.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
Home = Annotated[Path | None, typer.Option(help="The node's folder (default CHIMERA_HOME/heart).", metavar="DIR")]
PatchId = Annotated[str, typer.Argument(metavar="PATCH", help="Its id, or the beginning of it.")]


@heart.callback()
def hearts() -> None:
    """A node that mends itself: run it, and see what it did."""


@heart.command("run")
def heart_run(
    config: Annotated[
        Path | None, typer.Option(help="The node's settings, TOML, YAML or JSON (docs/heart.md).", metavar="FILE")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Where readings come from, as for chimera watch; - is standard input.")
    ] = None,
    workspace: Annotated[
        Path | None, typer.Option(help="The folder that the modules are imported from.", metavar="DIR")
    ] = None,
    hidden_tests: Annotated[Path | None, typer.Option(help="Tests that the model does not see.", metavar="DIR")] = None,
    owners: Annotated[
        list[str] | None,
        typer.Option("--owner", help="Which module is to blame for a metric; may be repeated.", metavar="GLOB=MODULE"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="openai:MODEL, anthropic:MODEL, local:MODEL ... (default CHIMERA_MODEL).")
    ] = None,
    max_usd: Annotated[
        float | None, typer.Option(min=0, help="At most so much money a day; needs the price in the file.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Watch metrics, mend the modules that are to blame, reload them here, and undo what does not help.

    The settings are in a file; an option takes the place of what stands there, and a few of them suffice without one.
    It goes on until the source ends, Ctrl-C or SIGTERM; what was begun is ended first.

    Exit codes: **0** ended, **2** bad input, **3** no sandbox works here, or another fault.

    Example: `chimera heart run --config node.toml`
    """
    from chimera.cli.heart_run import Request, execute

    paths = {"workspace": workspace, "hidden_tests": hidden_tests, "home": home}
    given: dict[str, Any] = {name: str(path.absolute()) for name, path in paths.items() if path is not None}
    given |= {
        name: value
        for name, value in {"source": source, "model": model, "max_usd_a_day": max_usd}.items()
        if value is not None
    }
    if owners:
        given["owners"] = dict(map(_owner, owners))
    raise typer.Exit(execute(Request(config=config, given=given, as_json=as_json)))


@heart.command("log")
def heart_log(
    home: Home = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many steps, the last.")] = 20,
    as_json: AsJson = False,
) -> None:
    """The steps that a node took, the oldest first.

    Exit codes: **0** shown, **2** bad input.

    Example: `chimera heart log --home heart --limit 50`
    """
    from chimera.cli.heart_log import execute

    raise typer.Exit(execute(home, limit=limit, as_json=as_json))


@heart.command("reviews")
def heart_reviews(home: Home = None, as_json: AsJson = False) -> None:
    """The patches that wait for a person, each with its id, how far it is to be trusted, and its diff.

    Example: `chimera heart reviews --home heart`
    """
    from chimera.cli.heart_reviews import execute_list

    raise typer.Exit(execute_list(home, as_json=as_json))


@heart.command("agree")
def heart_agree(patch: PatchId, home: Home = None) -> None:
    """Let the node apply a patch that waits. It is watched as any other, and undone if it does not help.

    Example: `chimera heart agree 0123abcd --home heart`
    """
    from chimera.cli.heart_reviews import execute_answer

    raise typer.Exit(execute_answer(home, patch, "approve"))


@heart.command("refuse")
def heart_refuse(patch: PatchId, home: Home = None) -> None:
    """Forget a patch that waits, and remember that it was refused.

    Example: `chimera heart refuse 0123abcd --home heart`
    """
    from chimera.cli.heart_reviews import execute_answer

    raise typer.Exit(execute_answer(home, patch, "refuse"))


def _owner(text: str) -> tuple[str, str]:
    metric, equals, module = text.rpartition("=")
    if not equals or not metric or not module:
        raise typer.BadParameter(f"{text!r} is not GLOB=MODULE, such as 'till_*=shop.till'", param_hint="--owner")
    return metric, module
