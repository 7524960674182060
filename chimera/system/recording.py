"""What comes of duels, put on record: those that are held here, and those that a validator of this machine rules on."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

from chimera.arena.duel.types import DuelResult, RuleRecord
from chimera.system.duels import MAX_POINTS, DuelRecord, Duels, Point, Rule, Whole, new_id

if TYPE_CHECKING:
    from chimera.actors.validator import Settled
    from chimera.system.arena import DuelReport, Standing


def records_of(report: DuelReport, *, began_s: float, ended_s: float) -> tuple[DuelRecord, ...]:
    """A record for each environment of a duel that is over, in the order of the request. Times: since the epoch."""
    request, total, own = report.request, report.total, secrets.token_hex(3)
    whole = Whole(won=len(total.won), needed=total.needed, of=len(request.env_ids))
    records = []
    for number, env_id in enumerate(request.env_ids):
        standing = report.standings[env_id]
        duel = standing.duel
        low, high = duel.interval
        records.append(
            DuelRecord(
                id=new_id(began_s, f"{own}{number:02x}"),
                env_id=env_id,
                champion=request.champion,
                contender=request.contender,
                decision=duel.result.decision if duel.result else "given_up",
                wins=duel.wins,
                losses=duel.losses,
                ties=duel.ties,
                low=low,
                high=high,
                rule=_rule(duel.rule.record()),
                began_s=began_s,
                ended_s=ended_s,
                seed=request.seed,
                whole=whole,
                course=course(standing),
            )
        )
    return tuple(records)


def course(standing: Standing) -> tuple[Point, ...]:
    """How the interval narrowed: after every sample, or of more than MAX_POINTS after every so many, and the last."""
    rule, most = standing.duel.rule, len(standing.outcomes)
    step = -(-most // MAX_POINTS)
    wins, losses, points = 0, 0, []
    for samples, outcome in enumerate(standing.outcomes, 1):
        wins += outcome == "win"
        losses += outcome == "loss"
        if (most - samples) % step == 0:
            low, high = rule.interval(wins, wins + losses)
            points.append(Point(samples=samples, wins=wins, losses=losses, low=low, high=high))
    return tuple(points)


def keep_ruling(duels: Duels, settled: Settled) -> None:
    """Keep the duels that this ruling found to be over; one that an earlier ruling found so is on record already.

    A ruling looks once at everybody's blocks, so such a duel has a course of one point. Raises StorageError.
    """
    if settled.ruling is None or settled.merged is None:
        return
    known = {_key(each) for each in duels.part(limit=10**6).found}
    heads = {seen.hotkey: seen.head_hash for seen in settled.merged.standings}
    at_s = float(settled.ruling.decided_s)
    records = []
    for total in settled.ruling.duels:
        whole = Whole(won=len(total.won), needed=total.needed, of=len(total.duels))
        for duel in total.duels:
            if duel.decision == "inconclusive" and duel.decisive < duel.rule.budget:
                continue
            record = _ruled(duel, settled.hotkey, at_s).model_copy(
                update={"whole": whole, "block": heads.get(settled.hotkey) or None}
            )
            if _key(record) not in known:
                records.append(record)
    if records:
        duels.keep(*records)


def _ruled(duel: DuelResult, hotkey: str, at_s: float) -> DuelRecord:
    own = hashlib.sha256(f"{hotkey}\n{duel.model_dump_json()}".encode()).hexdigest()[:8]
    point = Point(samples=duel.decisive + duel.ties, wins=duel.wins, losses=duel.losses, low=duel.low, high=duel.high)
    return DuelRecord(
        id=new_id(at_s, own),
        **duel.model_dump(exclude={"rule"}),
        rule=_rule(duel.rule),
        began_s=at_s,
        ended_s=at_s,
        validator=hotkey,
        course=(point,),
    )


def _key(record: DuelRecord) -> tuple[str | None, str]:
    """The same for the same result of the same validator, whenever it was told."""
    return record.validator, record.id.partition("-")[2] if record.validator else record.id


def _rule(rule: RuleRecord) -> Rule:
    return Rule(**rule.model_dump())
