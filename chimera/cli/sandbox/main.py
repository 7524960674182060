"""The commands `chimera sandbox`. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

sandbox = typer.Typer(
    name="sandbox",
    help="An adversary of your own: private generators, threats that they make, proofs about the threats.",
    no_args_is_help=True,
)

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="digits, breast_cancer, wine, diabetes or synthetic; a CSV or Parquet file (with --schema); or the CSV "
        "of a metric (with --windows, --low and --high).",
    ),
]
SchemaOption = Annotated[
    Path | None, typer.Option("--schema", metavar="FILE.yaml", help="What the columns may hold: a public statement.")
]
Windows = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Cut a metric into windows of N readings; each is a record.")
]
Stride = Annotated[int | None, typer.Option(min=1, help="Readings from one window to the next (default N).")]
Low = Annotated[float | None, typer.Option(help="The least that the metric can be: public, not read off the data.")]
High = Annotated[float | None, typer.Option(help="The most that the metric can be.")]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where results go.")]
Epsilon = Annotated[str, typer.Option(metavar="NUMBER", help="The budget of privacy, or `infinite` for none.")]
Delta = Annotated[float, typer.Option(help="The chance with which epsilon may not hold: well below 1 / records.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Steps of the discriminator (default 1000).")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="Where it trains; auto takes a GPU if there is one.")
]
OnRay = Annotated[bool, typer.Option("--ray", help="In actors on Ray, and not in this process.")]
Address = Annotated[str | None, typer.Option(help="Of Ray: auto, local, HOST:PORT or ray://HOST:PORT; implies --ray.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
Kind = Literal["biased", "poisoned", "drifted", "evasive"]


@sandbox.callback()
def sandboxes() -> None:
    """An adversary of your own: private generators, threats that they make, proofs about the threats."""


@sandbox.command("train")
def train(
    data: Data,
    out: Out,
    epsilon: Epsilon = "1",
    delta: Delta = 1e-5,
    steps: Steps = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Records of a batch, on average (default 128).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the networks' first weights; not of the noise.")] = 0,
    save_every: Annotated[int, typer.Option(min=1, help="Steps from one checkpoint to the next.")] = 100,
    device: Device = "auto",
    schema: SchemaOption = None,
    windows: Windows = None,
    stride: Stride = None,
    low: Low = None,
    high: High = None,
    on_ray: OnRay = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Train a generator of records under differential privacy, and say what it cost.

    The same command on the same folder goes on where it ended, with all that was spent. Ctrl-C saves first.

    Exit codes: **0** trained, **2** bad input, **3** a fault, a budget that is spent too.

    Example: `chimera sandbox train breast_cancer --out trained --steps 300`
    """
    from chimera.cli.sandbox.data import Source
    from chimera.cli.sandbox.train import Options, execute

    source = Source(data=data, schema=schema, windows=windows, stride=stride, low=low, high=high)
    given = {"steps": steps, "batch": batch, "delta": delta, "seed": seed, "device": device}
    options = Options(
        source=source,
        out=out,
        epsilon=epsilon,
        settings={name: value for name, value in given.items() if value is not None},
        save_every=save_every,
        on_ray=on_ray or address is not None,
        address=address,
        as_json=as_json,
    )
    raise typer.Exit(execute(options))


@sandbox.command("generate")
def generate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model.pt, as `train` writes it.")],
    out: Out,
    kind: Annotated[Kind, typer.Option(help="What is wrong with the records.")] = "biased",
    strength: Annotated[
        float, typer.Option(min=0, help="In standard deviations; of poisoned ones, the share of records.")
    ] = 0.95,
    records: Annotated[int, typer.Option("--records", "-n", min=1, help="How many records.")] = 1_024,
    proving_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Prove it, with the key that the verifier's set-up made.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="The verifying key of that set-up (default: beside the proving key)."),
    ] = None,
    windows: Annotated[bool, typer.Option("--windows", help="Each record is a window of a metric.")] = False,
    provers: Annotated[int, typer.Option(min=0, max=64, help="Prove in so many actors on Ray; 0: here.")] = 0,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Make a batch of threats from a model, commit to it, and prove what is claimed of it.

    Writes BATCH.json, which may be shown to anybody, and data.csv, schema.yaml and opening.json, which are the batch.

    Exit codes: **0** made, **2** bad input, **3** a fault.

    Example: `chimera sandbox generate trained/model.pt --kind biased --strength 0.95 --out batch`
    """
    from chimera.cli.sandbox.generate import Options, execute

    options = Options(
        model=model,
        out=out,
        kind=kind,
        strength=strength,
        records=records,
        proving_key=proving_key,
        key=key,
        windows=windows,
        provers=provers,
        address=address,
        as_json=as_json,
    )
    raise typer.Exit(execute(options))


@sandbox.command("verify")
def verify(
    batch: Annotated[Path, typer.Argument(metavar="BATCH.json", help="As `generate` writes it.")],
    key: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="The verifying key, from a set-up that you trust.")
    ] = None,
    opening: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="The batch's opening.json, if you were given it.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The batch's records, if you were given them (with --opening).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the proofs of a batch of threats, and say what they show and what not. Needs no data, and no torch.

    Exit codes: **0** proved, **1** refused, and why, **2** bad input, or no key.

    Example: `chimera sandbox verify batch/BATCH.json --key keys/verifying.json`
    """
    from chimera.cli.sandbox.verify import execute

    raise typer.Exit(execute(batch, key=key, opening=opening, data=data, as_json=as_json))


@sandbox.command("set-up")
def set_up(
    out: Out,
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="A bundled data set's name: its schema is taken.")
    ] = None,
    schema: SchemaOption = None,
    columns: Annotated[
        int | None, typer.Option(min=1, max=1_024, metavar="N", help="N columns without a step, such as windows have.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, max=1_024, help="Records of a chunk (default: as many as fit).")
    ] = None,
    kind: Annotated[
        Literal["mean", "changed"], typer.Option(help="What is proved: column means, or how many records changed.")
    ] = "mean",
    made_by: Annotated[str, typer.Option(metavar="NAME", help="Who you are: it stands in the key.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make the keys for proofs about batches of one schema: the verifier's or an auditor's task, never the prover's.

    Whoever runs this could keep what is drawn, and forge any proof. Ship proving.key, keep verifying.json.

    Exit codes: **0** made, **2** bad input, **3** a fault.

    Example: `chimera sandbox set-up wine --rows 4 --made-by auditor --out keys`
    """
    from chimera.cli.sandbox.keys import Options, execute

    options = Options(
        out=out,
        data=data,
        schema=schema,
        columns=columns,
        rows=rows,
        kind=kind,
        made_by=made_by,
        as_json=as_json,
    )
    raise typer.Exit(execute(options))


@sandbox.command("harden")
def harden(
    data: Data,
    out: Out,
    detector: Annotated[
        Literal["marginal", "moments", "ensemble"],
        typer.Option(help="What is hardened; ensemble, the watch's own, is for --windows."),
    ] = "marginal",
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="A kind of threat; may be repeated (default all)."),
    ] = None,
    strengths: Annotated[
        list[float] | None, typer.Option("--strength", metavar="S", help="A strength; may be repeated.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Records of a batch.")] = 64,
    alarms: Annotated[float, typer.Option(help="False alarms in 1,000 clean batches.")] = 1.0,
    epsilon: Epsilon = "1",
    delta: Delta = 1e-5,
    steps: Steps = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all chance but the noise that protects data.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Try little: seconds, and wide intervals.")] = False,
    schema: SchemaOption = None,
    windows: Windows = None,
    stride: Stride = None,
    low: Low = None,
    high: High = None,
    as_json: AsJson = False,
) -> None:
    """Harden a detector: train a generator, attack with it, learn from what passes, measure on records set aside.

    Writes hardened.npz, report.json and hardening.png.

    Exit codes: **0** measured, whatever came of it, **2** bad input, **3** a fault.

    Example: `chimera sandbox harden breast_cancer --quick --kind biased --strength 0.2 --steps 50 --out hardened`
    """
    from chimera.cli.sandbox.data import Source
    from chimera.cli.sandbox.harden import Options, execute

    options = Options(
        source=Source(data=data, schema=schema, windows=windows, stride=stride, low=low, high=high),
        out=out,
        detector=detector,
        kinds=tuple(kinds or ()),
        strengths=tuple(strengths or ()),
        batch=batch,
        alarms_per_1000=alarms,
        epsilon=epsilon,
        delta=delta,
        steps=steps,
        seed=seed,
        quick=quick,
        as_json=as_json,
    )
    raise typer.Exit(execute(options))


@sandbox.command("federate")
def federate(
    data: Data,
    out: Out,
    nodes: Annotated[int, typer.Option(min=1, max=64, help="Sandboxes, each with a part of DATA.")] = 3,
    strategy: Annotated[
        str, typer.Option(help="fedavg, fedprox, fedmedian, fedtrimmedavg, krum, multikrum or bulyan.")
    ] = "fedmedian",
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Rounds of the federation.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each sandbox in a round.")] = 50,
    poison: Annotated[
        int, typer.Option(min=0, help="Sandboxes that send back poisoned generators: a demonstration.")
    ] = 0,
    malicious: Annotated[
        int | None,
        typer.Option(min=0, help="Sandboxes that the strategy has to withstand (default: those of --poison)."),
    ] = None,
    epsilon: Epsilon = "1",
    delta: Delta = 1e-5,
    seed: Annotated[int, typer.Option(min=0, help="Of the parts, and of the networks' first weights.")] = 0,
    schema: SchemaOption = None,
    on_ray: OnRay = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Train one generator in many sandboxes, none of which shows its data: only generators are sent.

    Exit codes: **0** trained, **2** bad input, **3** a fault.

    Example: `chimera sandbox federate synthetic --nodes 4 --rounds 2 --steps 25 --epsilon 3 --out federation`
    """
    from chimera.cli.sandbox.data import Source
    from chimera.cli.sandbox.federate import Options, execute

    options = Options(
        source=Source(data=data, schema=schema),
        out=out,
        nodes=nodes,
        strategy=strategy,
        rounds=rounds,
        steps=steps,
        poison=poison,
        malicious=malicious,
        epsilon=epsilon,
        delta=delta,
        seed=seed,
        on_ray=on_ray or address is not None,
        address=address,
        as_json=as_json,
    )
    raise typer.Exit(execute(options))


@sandbox.command("audit")
def audit(
    data: Data,
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Audit a training with the settings of this model.pt.")
    ] = None,
    epsilon: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="The claim (default the model's, or 1).")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="As for train (default the model's, or 1e-5).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps (default the model's, or 40).")] = None,
    canaries: Annotated[int, typer.Option(min=10, max=2_000, help="Records that are put in by coin.")] = 200,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the coins (default: by chance).")] = None,
    schema: SchemaOption = None,
    windows: Windows = None,
    stride: Stride = None,
    low: Low = None,
    high: High = None,
    as_json: AsJson = False,
) -> None:
    """Attack a training: put canaries in by coin, guess which, and say what epsilon the guesses prove at least.

    It trains anew: the model that is audited holds canaries, and is thrown away. A bound below the claim shows no
    leak, which is no guarantee.

    Exit codes: **0** no leak beyond the claim was found, **1** it leaks more than it claims, **2** bad input.

    Example: `chimera sandbox audit breast_cancer --epsilon 1 --canaries 100`
    """
    from chimera.cli.sandbox.audit import Options, execute
    from chimera.cli.sandbox.data import Source

    given = {"delta": delta, "steps": steps}
    options = Options(
        source=Source(data=data, schema=schema, windows=windows, stride=stride, low=low, high=high),
        model=model,
        epsilon=epsilon,
        settings={name: value for name, value in given.items() if value is not None},
        canaries=canaries,
        seed=seed,
        as_json=as_json,
    )
    raise typer.Exit(execute(options))
