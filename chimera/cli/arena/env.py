"""`af env`: which environments there are, and one play of one of them, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Any

from chimera.arena.canonical import decode, encode
from chimera.arena.envs.challenge import Challenge, deal, replies_of
from chimera.arena.envs.episode import play
from chimera.arena.envs.registry import environment, environments, faults, refused
from chimera.arena.miners.client import open_miner
from chimera.arena.miners.miner import Miner
from chimera.arena.randomness import SEED_PREFIX
from chimera.arena.types import Sample
from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.arena.human import HumanMiner
from chimera.core.clock import SystemClock
from chimera.core.errors import EvidenceError, InputError

SOLVED, FAILED = 0, 1


def execute_list(*, as_json: bool) -> int:
    """Print the environments of this installation."""
    return command.run(_list(as_json=as_json), as_json=as_json)


async def _list(*, as_json: bool) -> int:
    broken, claims = faults(), refused()
    nothing = {"turns": "", "from": "", "about": "", "fault": "", "refused": ""}
    rows = []
    for env_id in environments():
        if fault := broken.get(env_id):
            rows.append({"env_id": env_id, **nothing, "fault": fault})
            continue
        kind = environment(env_id)
        turns = "many" if kind.rules.multi_turn else "one"
        where = f"{kind.__module__}:{kind.__qualname__}"
        rows.append({"env_id": env_id, **nothing, "turns": turns, "from": where, "about": _about(kind.rules)})
    rows += [{"env_id": env_id, **nothing, "refused": why} for env_id, why in sorted(claims.items())]
    if as_json:
        for row in rows:
            render.line(render.to_line(row))
    else:
        command.table(("environment", "turns", "about"), ((row["env_id"], row["turns"], _said_of(row)) for row in rows))
    return 0


def _said_of(row: dict[str, str]) -> str:
    if row["refused"]:
        return f"not used: {row['refused']}"
    return row["about"] if not row["fault"] else f"cannot be used: {row['fault']}"


def _about(rules: type[Challenge]) -> str:
    return (getdoc(rules) or "").partition("\n")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one `af env run`."""

    env_id: str
    policy: str
    challenge: str | None
    seed: int | None
    episodes: int
    as_json: bool

    def challenge_ids(self) -> Iterator[str]:
        """One id, or those of as many seeds in a row. Raises InputError for both."""
        if self.challenge is None:
            first = self.seed or 0
            yield from (f"{SEED_PREFIX}{seed}" for seed in range(first, first + self.episodes))
        elif self.seed is not None or self.episodes > 1:
            raise InputError("--challenge names one challenge: leave out --seed and --episodes")
        else:
            yield self.challenge


def execute_run(options: Options) -> int:
    """Play, print each play, and return SOLVED if every response solved its challenge."""
    return command.run(_run(options), as_json=options.as_json)


async def _run(options: Options) -> int:
    kind = environment(options.env_id).rules
    challenge_ids = list(options.challenge_ids())
    for challenge_id in challenge_ids:
        deal(kind, challenge_id)
    miner = _miner(options)
    solved = 0
    try:
        for challenge_id in challenge_ids:
            sample = await play(kind, challenge_id, miner, role="contender", clock=SystemClock())
            _verify_anew(sample)
            solved += sample.verdict.ok
            if options.as_json:
                render.line(render.to_line({"score": _score(sample), "verified": True, "sample": sample.plain()}))
            else:
                _print(sample)
    finally:
        await miner.close()
    if len(challenge_ids) > 1 and not options.as_json:
        render.say((f"{solved} of {len(challenge_ids)} solved", "bold"))
    return SOLVED if solved == len(challenge_ids) else FAILED


def _miner(options: Options) -> Miner:
    if options.policy == HumanMiner.miner_id:
        return HumanMiner()
    miner = open_miner(options.policy)
    if not miner.supports(options.env_id):
        raise InputError(f"{options.policy} cannot play {options.env_id}")
    return miner


def _verify_anew(sample: Sample) -> None:
    """As a stranger would, from the sample's bytes alone. Raises EvidenceError if that comes to another verdict."""
    read = Sample.model_validate(decode(encode(sample.plain())))
    verdict = environment(read.env_id).verify(read.prompt, read.response, read.info)
    if verdict != sample.verdict:
        raise EvidenceError(f"{sample.env_id} is broken: {sample.challenge_id} verifies as {verdict}", "verdict")


def _replayed(sample: Sample) -> tuple[Challenge, list[tuple[str, str]]]:
    """The play's end, and each reply with what the environment said to it."""
    kind = environment(sample.env_id).rules
    challenge = deal(kind, sample.challenge_id)
    return challenge, [(reply, challenge.reply(reply)) for reply in replies_of(kind, sample.response)]


def _score(sample: Sample) -> int:
    return _replayed(sample)[0].score


def _print(sample: Sample) -> None:
    challenge, turns = _replayed(sample)
    render.say((f"{sample.env_id}  {sample.challenge_id}", "bold"), f"  {command.one_line(sample.miner_id)}")
    _said("environment", sample.prompt)
    for reply, answer in turns:
        _said("player", reply)
        if answer:
            _said("environment", answer)
    ok = sample.verdict.ok
    said = "solved" if ok else f"not solved: {sample.verdict.reason}"
    facts: dict[str, Any] = {"score": challenge.score, "elapsed_ms": sample.elapsed_ms}
    told = ", ".join(f"{name} {value}" for name, value in facts.items())
    render.say((said, "green" if ok else "yellow"), f"  {told}; verified anew, with the same verdict\n")


def _said(who: str, text: str) -> None:
    render.say((f"{who}:", "dim"))
    for line in text.split("\n"):
        render.say("  ", line)
