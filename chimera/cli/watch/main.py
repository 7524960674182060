"""The commands `chimera watch` and `chimera anomaly`. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

anomaly = typer.Typer(name="anomaly", help="Judge a detector of anomalies, forecast a metric.", no_args_is_help=True)

SourceText = Annotated[
    str | None,
    typer.Argument(
        help="FILE.csv, - (standard input), prometheus:http://HOST:9090, scrape:http://HOST:PORT/metrics[,URL...], "
        "statsd:HOST:PORT, otlp:HOST:PORT or http:HOST:PORT."
    ),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="LIMIT", help="METRIC=90 or METRIC<10: warn before it gets there; may be repeated."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]


def watch(
    source: SourceText = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="GLOB", help="Only metrics like this; may be repeated.")
    ] = None,
    limits: Limits = None,
    queries: Annotated[
        list[str] | None, typer.Option("--query", metavar="PROMQL", help="What to ask Prometheus; may be repeated.")
    ] = None,
    interval: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Between two polls or flushes (default 10).")
    ] = None,
    history: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Of Prometheus' past to begin with (default 3600).")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", help="End after this long (default: with the source).")
    ] = None,
    detectors: Annotated[
        list[str] | None, typer.Option("--detector", metavar="NAME", help="A detector that votes; may be repeated.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw what was seen into this new file at the end.")
    ] = None,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable with the source's bearer token.")
    ] = None,
    on_ray: Annotated[
        bool, typer.Option("--ray", help="Watch the Ray cluster itself and Chimera's swarm on it; no SOURCE.")
    ] = False,
    shards: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="Detect in N actors on Ray instead of here.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of Ray: auto, local, HOST:PORT or ray://HOST:PORT (default auto).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch metrics: say what is unusual as it happens, and warn of limits before they are reached.

    A live table in a terminal, a line for each alert in a pipe or a file, an object for each with **--json**. It goes
    on until the source ends, --for is over, Ctrl-C or SIGTERM; then it sums up on standard error.

    Exit codes: **0** ended, whatever was found, **2** bad input, **3** a fault, such as a server out of reach.

    Example: `chimera watch examples/watching/server.csv --limit memory_percent=90`
    """
    from chimera.cli.watch.options import Options
    from chimera.cli.watch.run import execute

    options = Options(
        source=source,
        metrics=tuple(metrics or ()),
        limits=tuple(limits or ()),
        queries=tuple(queries or ()),
        interval_s=interval,
        history_s=history,
        for_s=duration,
        detectors=tuple(detectors or ()),
        plot=plot,
        token_env=token_env,
        on_ray=on_ray,
        shards=shards,
        address=address,
        as_json=as_json,
    )
    raise typer.Exit(execute(options))


@anomaly.callback()
def anomalies() -> None:
    """Judge a detector of anomalies, forecast a metric."""


@anomaly.command()
def evaluate(
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Labelled series in the layout of NAB, besides synthetic ones.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=0, max=1_000, help="Of synthetic series, 30 each; 0 for none.")] = 3,
    seed0: Annotated[int, typer.Option(min=0, max=2**31, help="The first of them.")] = 100,
    detector: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="A generator of results (default ours).")
    ] = None,
    forecaster: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="A function of history and horizon (default ours, if no --detector)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a detector over labelled series: events at its own threshold, false alarms, delays, kinds, CPU time.

    Exit codes: **0** scored, **2** bad input, **3** a fault.

    Example: `chimera anomaly evaluate --data tests/data/nab --seeds 1`
    """
    from chimera.cli.watch.evaluate import Options, execute

    options = Options(data=data, seeds=seeds, seed0=seed0, detector=detector, forecaster=forecaster, as_json=as_json)
    raise typer.Exit(execute(options))


@anomaly.command()
def forecast(
    source: Annotated[str, typer.Argument(metavar="FILE.csv", help="As for chimera watch; - is standard input.")],
    metric: Annotated[str, typer.Option(metavar="NAME", help="The metric to forecast.")],
    horizon: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="How many readings ahead.")] = 10,
    method: Annotated[
        Literal["ridge", "arima"], typer.Option(help="In a millisecond, or by an ARIMA whose order is sought: seconds.")
    ] = "ridge",
    as_json: AsJson = False,
) -> None:
    """Forecast a metric of a file: its next readings, each with a band that 90 % of them are in.

    Exit codes: **0** forecast, **2** bad input, **3** a fault.

    Example: `chimera anomaly forecast examples/watching/server.csv --metric memory_percent --method arima`
    """
    from chimera.cli.watch.forecast import Options, execute

    options = Options(source=source, metric=metric, horizon=horizon, method=method, as_json=as_json)
    raise typer.Exit(execute(options))
