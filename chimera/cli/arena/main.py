"""The `af` command, which is `chimera arena` too. Commands import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from chimera.cli.arena.extra import needs_arena

app = typer.Typer(
    name="arena",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

env = typer.Typer(name="env", help="List the environments, and play one.", no_args_is_help=True)
app.add_typer(env)

ENVIRONMENTS = ("mult8-v0", "tictactoe-v0")
"""Where a duel is held if nothing else is said."""

Address = Annotated[str | None, typer.Option(help="auto, local, HOST:PORT or ray://HOST:PORT (default auto).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
Rule = Literal["wilson", "calibrated", "mixture"]


@app.callback()
def arena() -> None:
    """Find out which model deserves a role, and prove it to a stranger: environments, duels, signed evidence.

    Example: `af duel oracle:p=0.6 oracle:p=0.9 --env mult8-v0`
    """


@app.command()
def duel(
    champion: Annotated[
        str,
        typer.Argument(
            help="A miner: random, minimax, oracle:p=0.7, python:MODULE:FUNCTION, chutes:MODEL, openai:MODEL@URL."
        ),
    ],
    contender: Annotated[str, typer.Argument(help="Another miner, who has to be better.")],
    env_ids: Annotated[
        list[str] | None,
        typer.Option("--env", help=f"An environment; may be repeated (default {' and '.join(ENVIRONMENTS)})."),
    ] = None,
    rule: Annotated[
        Rule, typer.Option(help="When to stop. Each prints how often it is wrong; calibrated keeps to --alpha.")
    ] = "wilson",
    epsilon: Annotated[
        float | None, typer.Option(help="The win rate to beat is 0.5 and this more (default 0.01).")
    ] = None,
    ratio: Annotated[float | None, typer.Option(help="The win rate to beat, instead of --epsilon.")] = None,
    budget: Annotated[int, typer.Option(help="Challenges in each environment, at most.")] = 200,
    alpha: Annotated[float, typer.Option(help="The error that is meant, both sides together.")] = 0.05,
    seed: Annotated[str, typer.Option(help="Names the challenges: the same seed deals the same ones.")] = "0",
    lead: Annotated[
        int, typer.Option(metavar="K", help="The contender must win ceil((N + K) / 2) of N environments.")
    ] = 1,
    concurrency: Annotated[int, typer.Option(help="Challenges asked at once, in each environment.")] = 8,
    address: Address = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the interval; of several environments into FILE-ENV.png each."),
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Keep every sample in this new file, canonical JSON.")
    ] = None,
    crown: Annotated[
        bool, typer.Option("--crown", help="Put the winner on record, for `chimera run --model champion:ENV`.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let a contender challenge a champion: both face the same challenges until the samples say who is better.

    Exit codes: **0** decided, either way, **1** inconclusive, **2** bad input, **3** a fault, a miner that cannot be
    reached too.

    Example: `af duel oracle:p=0.6 oracle:p=0.9 --env mult8-v0 --rule calibrated --plot duel.png`
    """
    with needs_arena(as_json=as_json):
        from chimera.cli.arena.duel import Options, execute

    options = Options(
        champion=champion,
        contender=contender,
        env_ids=tuple(env_ids or ENVIRONMENTS),
        rule=rule,
        epsilon=epsilon,
        ratio=ratio,
        budget=budget,
        alpha=alpha,
        seed=seed,
        lead=lead,
        concurrency=concurrency,
        address=address,
        plot=plot,
        samples=samples,
        crown=crown,
        as_json=as_json,
    )
    raise typer.Exit(execute(options))


@env.command("list")
def env_list(as_json: AsJson = False) -> None:
    """The environments that are installed, those of other packages too.

    Example: `af env list`
    """
    with needs_arena(as_json=as_json):
        from chimera.cli.arena.env import execute_list

    raise typer.Exit(execute_list(as_json=as_json))


@env.command("run")
def env_run(
    env_id: Annotated[str, typer.Argument(help="The environment: see `af env list`.")],
    policy: Annotated[
        str, typer.Option(help="Who plays: human, or a miner as in `af duel` (default oracle:p=1, who knows).")
    ] = "oracle:p=1",
    challenge: Annotated[str | None, typer.Option(metavar="ID", help="The challenge, as a sample names it.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**62, help="The challenge seed:N (default 0).")] = None,
    episodes: Annotated[int, typer.Option(min=1, max=100_000, help="Play this many seeds in a row.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Play an environment's challenges here, show what was said, and verify each verdict anew.

    Exit codes: **0** every challenge was solved, **1** some were not, **2** bad input, **3** a fault.

    Example: `af env run tictactoe-v0 --policy human --seed 7`
    """
    with needs_arena(as_json=as_json):
        from chimera.cli.arena.env import Options, execute_run

    options = Options(env_id=env_id, policy=policy, challenge=challenge, seed=seed, episodes=episodes, as_json=as_json)
    raise typer.Exit(execute_run(options))


@app.command()
def verify(
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="PLACE...", help="A folder of blocks, one block, file:///, s3:// or https://."),
    ] = None,
    hotkeys: Annotated[
        list[str] | None, typer.Option("--hotkey", help="Only this validator; may be repeated. A web server needs it.")
    ] = None,
    proof: Annotated[
        tuple[str, int] | None,
        typer.Option(metavar="HOTKEY/INDEX SAMPLE", help="Print a proof that the block holds its sample, as JSON."),
    ] = None,
    check_proof: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check such a proof; no other block is needed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Audit evidence as a stranger: signatures, links, Merkle roots, counts, and every verdict computed again.

    It needs the blocks, and no wallet, no network, no Ray. Shared challenges are checked against one another; what the
    beacon really published only `af validate` asks.

    Exit codes: **0** all valid, **1** faults found, **2** bad input, **3** a store that cannot be read.

    Example: `af verify ~/.local/state/chimera/arena/blocks`
    """
    with needs_arena(as_json=as_json):
        from chimera.cli.arena.verify import Options, execute

    options = Options(
        places=tuple(places or ()),
        hotkeys=tuple(hotkeys or ()),
        proof=proof,
        check_proof=check_proof,
        as_json=as_json,
    )
    raise typer.Exit(execute(options))


@app.command()
def blocks(
    place: Annotated[
        str | None, typer.Argument(help="As for `af verify` (default: this machine's, CHIMERA_HOME/arena/blocks).")
    ] = None,
    hotkeys: Annotated[list[str] | None, typer.Option("--hotkey", help="Only this validator; may be repeated.")] = None,
    show: Annotated[
        int | None, typer.Option(min=0, max=999_999_999_999, metavar="INDEX", help="The samples of this block.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List blocks of evidence: when, how many samples, who against whom; or show the samples of one.

    Exit codes: **0** listed, **1** something there is no block, **2** bad input, **3** a store that cannot be read.

    Example: `af blocks ~/.local/state/chimera/arena/blocks`
    """
    with needs_arena(as_json=as_json):
        from chimera.cli.arena.blocks import Options, execute

    raise typer.Exit(execute(Options(place=place, hotkeys=tuple(hotkeys or ()), show=show, as_json=as_json)))


@app.command()
def weights(
    hotkey: Annotated[str, typer.Argument(help="A validator of this machine, by its hotkey's SS58 address.")],
    netuid: Annotated[int, typer.Option(min=0, max=65_535, help="The subnet.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Who has the throne, as a validator of this machine last ruled, the ratio to beat, and the weights.

    Exit codes: **0** known, **1** this validator has settled no round here, **2** bad input, **3** a fault.

    Example: `af weights 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY`
    """
    with needs_arena(as_json=as_json):
        from chimera.cli.arena.weights import Options, execute

    raise typer.Exit(execute(Options(hotkey=hotkey, netuid=netuid, as_json=as_json)))


@app.command()
def validate(
    plan: Annotated[Path | None, typer.Argument(help="A validator's plan, YAML or JSON.", metavar="PLAN")] = None,
    once: Annotated[bool, typer.Option("--once", help="One round, at once, and exit.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Sample and publish, but set no weights, and forget the ruling.")
    ] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Three validators and three miners here; no plan is needed.")] = (
        False
    ),
    epoch: Annotated[int, typer.Option(min=10, max=604_800, metavar="SECONDS", help="How long a round takes.")] = 1_200,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Be a validator: sample, publish signed blocks, merge everybody's, and give all the weight to the winner.

    It goes on until it is stopped. Stopped or killed, it goes on later where it was.

    Exit codes: **0** settled, **1** the chain did not take the weights, **2** bad input, **3** a fault.

    Example: `af validate --demo`
    """
    with needs_arena(as_json=as_json):
        from chimera.cli.arena.validate import Options, execute

    options = Options(plan=plan, once=once, dry_run=dry_run, demo=demo, epoch_s=epoch, address=address, as_json=as_json)
    raise typer.Exit(execute(options))


def main(arguments: list[str] | None = None) -> None:
    """The entry point of the console script; `arguments` default to the process's own."""
    app(args=arguments, prog_name="af")
