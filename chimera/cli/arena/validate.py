"""`af validate`: be a validator, epoch after epoch; or see three of them at work on this machine."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import dataclass
from pathlib import Path

from bittensor_core import Keypair

from chimera.actors.validator import Missed, Sampled, Settled
from chimera.arena.duel.aggregate import AggregateResult
from chimera.arena.envs.registry import environment
from chimera.arena.miners.client import open_miner
from chimera.arena.validators.merged import Merged
from chimera.arena.validators.terms import ValidatorPlan
from chimera.arena.validators.throne import Ruling
from chimera.arena.validators.wallet import DevelopmentKey, open_hotkey
from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.arena.on_ray import on_ray
from chimera.cli.arena.plan_file import load_plan
from chimera.cli.settings import read_settings
from chimera.core.errors import InputError, StorageError
from chimera.storage.objects import open_objects
from chimera.system.duels import Duels
from chimera.system.recording import keep_ruling
from chimera.system.validation import DEMO_MINERS, Tournament, demo, validate

SETTLED, NOT_SET = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one `af validate`."""

    plan: Path | None
    once: bool
    dry_run: bool
    demo: bool
    epoch_s: int
    address: str | None
    as_json: bool


def execute(options: Options) -> int:
    """Validate until it is stopped, or once; NOT_SET when the chain did not take the weights."""
    return command.run(_execute(options), as_json=options.as_json)


async def _execute(options: Options) -> int:
    settings = read_settings(address=options.address)
    watch = _Watch(as_json=options.as_json)
    if options.demo:
        if options.plan or options.once or options.dry_run:
            raise InputError("--demo has plans of its own: leave out the plan, --once and --dry-run")
        with on_ray(settings, shown=not options.as_json):
            return _end_demo(await demo(settings, watch), as_json=options.as_json)
    if options.plan is None:
        raise InputError("name a validator's plan, such as examples/arena/validator.yaml, or try --demo")
    plan = load_plan(options.plan)
    await _check(plan)

    def seen(number: int, event: Sampled | Settled | Missed) -> None:
        watch(number, event)
        if isinstance(event, Settled) and not options.dry_run:
            _keep(Duels.kept_in(settings.home), event)

    with on_ray(settings, shown=not options.as_json):
        settled = await validate(
            plan, settings, seen, epoch_s=options.epoch_s, once=options.once, dry_run=options.dry_run
        )
    return NOT_SET if settled.refused else SETTLED


def _keep(duels: Duels, settled: Settled) -> None:
    """Put the duels that are over on record. What cannot be written is told, and stops no validator."""
    try:
        keep_ruling(duels, settled)
    except StorageError as error:
        render.note(f"warning: {error}")


async def _check(plan: ValidatorPlan) -> None:
    """What is wrong with a plan is said before anything is started. A development key is no error, and is noted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DevelopmentKey)
        hotkey = str(open_hotkey(plan.hotkey).ss58_address)
    for warning in caught:
        render.note(f"warning: {warning.message}")
    if any(peer.hotkey == hotkey for peer in plan.peers):
        raise InputError(f"peers: {hotkey} is this validator itself: name the others only")
    if plan.blocks.startswith(("http:", "https:")):
        raise InputError("blocks: a web server can only be read: publish to file:///PATH or s3://BUCKET/PREFIX")
    own = [("blocks", plan.blocks)] if plan.blocks else []
    for name, url in (*own, *((f"peer {peer.hotkey}", peer.blocks) for peer in plan.peers)):
        try:
            store = open_objects(url)
        except (InputError, StorageError) as error:
            raise InputError(f"{name}: {error}") from error
        await store.close()
    for env_id in plan.round.env_ids:
        environment(env_id)
    for ref in plan.round.miners:
        miner = open_miner(ref.spec)
        try:
            for env_id in plan.round.env_ids:
                if not miner.supports(env_id):
                    raise InputError(f"{ref.spec} cannot play {env_id}")
        finally:
            await miner.close()


class _Watch:
    """Prints what validators do, as they do it."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._shown: tuple[Ruling, Merged] | None = None

    def __call__(self, number: int, event: Sampled | Settled | Missed) -> None:
        if self._as_json:
            kind = type(event).__name__.lower()
            render.line(render.to_line({"event": kind, "epoch": number, **event.model_dump(mode="json")}))
        elif isinstance(event, Sampled):
            _sampled(number, event)
        elif isinstance(event, Missed):
            why = command.one_line(event.why)
            render.say((f"round {number:<4}", "dim"), f" {event.hotkey}  ", ("missed", "yellow"), f": {why}")
        else:
            self._settled(number, event)

    def _settled(self, number: int, event: Settled) -> None:
        _settled(number, event)
        if event.ruling is None or event.merged is None:
            return
        if (event.ruling, event.merged) == self._shown:
            render.say("           by the same evidence, with the same results")
        else:
            _evidence(event.ruling, event.merged)
        self._shown = (event.ruling, event.merged)


def _sampled(number: int, event: Sampled) -> None:
    said = f"{event.pairs:,} pairs in {event.blocks} block{'s' * (event.blocks != 1)}"
    render.say((f"round {number:<4}", "dim"), f" {event.hotkey}  sampled {said}")
    for fault in event.faults:
        render.say("           ", ("fault", "yellow"), f": {command.one_line(fault)}")


def _settled(number: int, event: Settled) -> None:
    throne, ruling = event.throne, event.ruling
    if ruling is None:
        how = "has the throne, as ruled before"
    else:
        how = "takes the throne" if ruling.winner != ruling.champion else "keeps the throne"
        how += f" (ratio to beat {ruling.p0:.4g})"
    render.say(
        (f"round {number:<4}", "dim"),
        f" {event.hotkey}  settled: ",
        (command.one_line(throne.champion), "bold"),
        f" {how}; {_weights(event)}",
    )


def _evidence(ruling: Ruling, merged: Merged) -> None:
    """What a ruling stands on: the duels, who is trusted, and who is not."""
    for duel in ruling.duels:
        _duel(duel)
    for standing in merged.standings:
        trust = f"trust {standing.trust_ppm / 1e6:.3f}, {standing.agreed} of {standing.compared} shared verdicts agreed"
        render.say(f"           {standing.hotkey}  {trust}, {standing.samples:,} samples counted")
    for offence in merged.offences:
        what = f": {offence.hotkey} in block {offence.block_index}: {offence.message}"
        render.say("           ", (offence.kind, "red"), command.one_line(what))
    for aside in merged.set_aside:
        what = f": what {aside.hotkey} asked {aside.contender} in {aside.env_id} by itself is at odds with the others"
        render.say("           ", ("not counted", "yellow"), command.one_line(what))
    for hotkey in merged.unread:
        render.say("           ", ("unread", "yellow"), f": the blocks of {hotkey}")


def _weights(event: Settled) -> str:
    if event.refused:
        return f"weights were refused: {command.one_line(event.refused)}"
    if event.receipt is None:
        return "dry run, no weights set" if event.ruling else "no weights set now"
    return f"weights set ({event.receipt.mode})"


def _duel(result: AggregateResult) -> None:
    for duel in result.duels:
        counts = f"{duel.wins}-{duel.losses}-{duel.ties}"
        said = f"{duel.contender} in {duel.env_id}: {counts}, {duel.low:.3f} .. {duel.high:.3f}, {duel.decision}"
        render.say(f"           {command.one_line(said)}")


def _end_demo(tournament: Tournament, *, as_json: bool) -> int:
    """Who won, and where the evidence is. NOT_SET unless every validator gave the best miner the weight."""
    (uri, spec), folder = DEMO_MINERS[-1], tournament.blocks.parent
    best, champion = str(Keypair.create_from_uri(uri).ss58_address), tournament.champion
    if as_json:
        render.line(render.to_line({"event": "ended", "champion": champion, "blocks": str(tournament.blocks)}))
    else:
        what = f", which is {spec}, the best" if champion == best else f", and not {best}, which is {spec}"
        render.say(("\nchampion  ", "dim"), (command.one_line(champion), "bold"), what)
        render.say(("evidence  ", "dim"), f"af verify {shlex.quote(str(tournament.blocks))}")
        hotkey = tournament.settled[0].hotkey
        render.say(("throne    ", "dim"), f"CHIMERA_HOME={shlex.quote(str(folder))} af weights {hotkey}")
    set_by_all = all(settled.receipt for settled in tournament.settled)
    return SETTLED if set_by_all and champion == best else NOT_SET
