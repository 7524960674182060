"""`chimera security`: how good the gateway for what comes in is, on texts of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chimera.cli.security_review import review

DONE, BAD_INPUT, FAULT = 0, 2, 3

security = typer.Typer(name="security", help="Measure what guards against hostile text.", no_args_is_help=True)
security.command()(review)


@security.callback()
def guards() -> None:
    """Measure what guards against hostile text."""


@security.command()
def evaluate(
    texts: Annotated[
        Path, typer.Argument(metavar="FILE.jsonl", help='Labelled texts: one {"text": ..., "label": 0|1} a line.')
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")] = False,
) -> None:
    """Measure the prompt-injection detector on labelled texts: recall, false positives, AUC, and the time it takes.

    Each figure has its 95 % interval. Label 1 is an attack, 0 is not. The detector warns; it is not the defence.

    Exit codes: **0** measured, **2** bad input, **3** a fault.

    Example: `chimera security evaluate texts.jsonl --json`
    """
    from chimera.cli import render
    from chimera.core.clock import SystemClock
    from chimera.core.errors import InputError
    from chimera.security.gateway.evaluate import evaluate as measure
    from chimera.security.gateway.evaluate import read
    from chimera.security.gateway.gateway import SecurityGateway

    with render.results_only():
        try:
            found = measure(SecurityGateway(), read(texts), SystemClock())
        except InputError as error:
            render.error(error, as_json=as_json)
            raise typer.Exit(BAD_INPUT) from None
        except Exception as error:
            render.error(error, as_json=as_json)
            raise typer.Exit(FAULT) from None
        if as_json:
            render.line(render.to_line(found.model_dump(mode="json")))
            raise typer.Exit(DONE)
        for name, share, interval in (
            ("recall", found.recall, found.recall_interval),
            ("false positives", found.false_positive_rate, found.false_positive_rate_interval),
            ("AUC", found.auc, found.auc_interval),
        ):
            told = f"{share:.3f}  ({interval[0]:.3f} to {interval[1]:.3f})" if share is not None and interval else "-"
            render.say((f"{name:16}", "bold"), told)
        render.say((f"{'time':16}", "bold"), f"median {found.p50_ms:.1f} ms, p95 {found.p95_ms:.1f} ms")
        told = f"{found.attacks} attacks, {found.benign} others, {found.refused} over a limit"
        render.say((f"{'texts':16}", "bold"), told)
