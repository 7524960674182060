"""The global duel: every contender against the champion, over the union of all that is believed; the winner takes all.

Counted are validators' own challenges, whose number in a round is fixed beforehand, so the union is a walk whose every
step wins with the same chance. One look, or one in every round, by a rule whose error is bounded over *all* looks
deceives no more often. Shared challenges tell who is to be believed, and are not counted: a majority over validators
exaggerates what a miner is more often than not (at a rate of 0.75 it is right in 0.84 of three), and to count each of
them would count the same thing several times. Where weights differ this is an approximation, Kish's (docs/evidence.md).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from fractions import Fraction
from typing import Annotated

from pydantic import Field

from chimera.arena.duel.aggregate import MAX_ENVIRONMENTS, AggregateResult, total
from chimera.arena.duel.rules import StoppingRule, make_rule
from chimera.arena.duel.types import MAX_BUDGET, DuelResult, Probability, RuleName
from chimera.arena.types import EnvId
from chimera.arena.validators.merged import Merged, Pairing, Tally
from chimera.arena.validators.throne import Ruling, Throne
from chimera.core.types import Frozen


class Terms(Frozen):
    """What a global duel is fought over, and by which rule.

    `alpha` is for all contenders together, in one environment: each has its part, so that many do not win by chance.

    `budget` counts decisive samples of the union; more than that refine the win rate and are counted no further.
    """

    env_ids: Annotated[tuple[EnvId, ...], Field(min_length=1, max_length=MAX_ENVIRONMENTS)]
    rule: RuleName = "calibrated"
    alpha: Probability = 0.05
    budget: Annotated[int, Field(ge=1, le=MAX_BUDGET)] = 2_000
    k: Annotated[int, Field(ge=0)] = 1


def decide(
    merged: Merged,
    throne: Throne,
    terms: Terms,
    *,
    p0: float,
    now_s: int,
    miners: Collection[str] | None = None,
    ended: Iterable[DuelResult] = (),
) -> Ruling:
    """Who has the throne now. `p0` is `throne.ratchet.ratio_at` when the duels began, whenever they are decided.

    Duels that have `ended` stay as they were: a rule's error is that of its first decision.

    Of several contenders that win, the one with the highest geometric mean of its win rates over all environments has
    the throne; of equal ones the lower id. With no evidence that counts the champion stays. `miners` are those who may
    win; anybody by default. Raises InputError for terms that make no rule.
    """
    many = len(set(miners) - {throne.champion}) if miners is not None else 1
    rule = make_rule(terms.rule, p0=p0, budget=terms.budget, alpha=terms.alpha / max(1, many))
    settled = {Pairing(duel.env_id, duel.champion, duel.contender): duel for duel in ended}
    met = {count.pairing for count in merged.own} | settled.keys()
    contenders = sorted(
        {
            pairing.contender
            for pairing in met
            if pairing.champion == throne.champion
            and pairing.env_id in terms.env_ids
            and (miners is None or pairing.contender in miners)
        }
    )
    results = {
        contender: _against(
            [
                settled.get(pairing := Pairing(env_id, throne.champion, contender)) or _duel(merged, pairing, rule)
                for env_id in terms.env_ids
            ],
            terms,
        )
        for contender in contenders
    }
    winners = [contender for contender, result in results.items() if result.decision == "contender"]
    winner = min(winners, key=lambda contender: (-_product(results[contender]), contender), default=throne.champion)
    return Ruling(
        round=throne.round,
        champion=throne.champion,
        winner=winner,
        decided_s=now_s,
        p0=p0,
        duels=tuple(results.values()),
        win_rates=results[winner].win_rates if winners else (),
    )


def effective(parts: Iterable[tuple[int, Tally]]) -> Tally:
    """Counts that say as much as these do at these weights: whole, and the plain sum where all weights are equal.

    The decisive samples are (sum w)^2 / sum w^2, the wins among them in the weighted share; ties likewise. Rounded
    down: the ratio is the contender's to beat. Source: L. Kish, "Survey Sampling" (1965), section 11.7.
    """
    counted = [(weight, tally) for weight, tally in parts if weight]
    decisive = _kish((weight, tally.decisive) for weight, tally in counted)
    ties = _kish((weight, tally.ties) for weight, tally in counted)
    weight_decisive = sum(weight * tally.decisive for weight, tally in counted)
    if not weight_decisive:
        return Tally(ties=ties)
    share = Fraction(sum(weight * tally.wins for weight, tally in counted), weight_decisive)
    wins = math.floor(share * decisive)
    return Tally(wins, decisive - wins, ties)


def _kish(parts: Iterable[tuple[int, int]]) -> int:
    weighted = list(parts)
    squares = sum(weight * weight * count for weight, count in weighted)
    return sum(weight * count for weight, count in weighted) ** 2 // squares if squares else 0


def _against(duels: list[DuelResult], terms: Terms) -> AggregateResult:
    """One contender's duels, in all environments."""
    result = total(
        terms.env_ids,
        duels,
        k=terms.k,
    )
    if result is None:
        raise AssertionError("an aggregate of every environment's duel is decided")
    return result


def _duel(merged: Merged, pairing: Pairing, rule: StoppingRule) -> DuelResult:
    """One look at the union. Beyond the rule's budget the win rate is kept, and the samples count as the budget."""
    tally = effective((count.weight_ppm, count.tally) for count in merged.own if count.pairing == pairing)
    wins, n = tally.wins, tally.decisive
    if n > rule.budget:
        wins, n = wins * rule.budget // n, rule.budget
    low, high = rule.interval(wins, n)
    return DuelResult(
        env_id=pairing.env_id,
        champion=pairing.champion,
        contender=pairing.contender,
        decision=rule.decide(wins, n) or "inconclusive",
        wins=wins,
        losses=n - wins,
        ties=tally.ties,
        low=low,
        high=high,
        rule=rule.record(),
    )


def _product(result: AggregateResult) -> Fraction:
    """Of the win rates in all environments, exactly: of equally many, it orders as their geometric mean does."""
    product = Fraction(1)
    for duel in result.duels:
        product *= Fraction(duel.wins, duel.wins + duel.losses) if duel.wins else 0
    return product
