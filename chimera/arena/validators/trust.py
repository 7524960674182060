"""How far a validator is believed: agreement where all were asked the same, likeness where each was asked its own.

Everything here rests on one assumption: those who hold more than half of the stake that takes part are honest. A miner
may still answer one of them differently from another, and so set honest validators at odds. Therefore being at odds is
no offence and takes nobody's stake out of any total; consensus takes more than half of all the stake that takes part,
and whatever counts for a miner is held by two thirds of it. See docs/evidence.md. All numbers are integers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from chimera.arena.validators.merged import LOSS, MILLION, TIE, WIN, Tally

FLOOR_PPM = 600_000
"""Whoever agrees less often than this is not believed at all."""

ODDS = 1_000_000
"""Two validators are at odds where equal rates would differ as much, to the same side, once in this many times."""

SCREEN = 9
"""Under this square of a z-score two rates are not looked at further: the exact test would not find them at odds."""

UNIT = 1 << 128
"""The likeliest number of successes weighs this in Fisher's test; the others are rounded down to whole parts of it."""

Bits: TypeAlias = tuple[bool, bool]
"""Whether the champion and the contender solved a challenge."""

Votes: TypeAlias = Mapping[str, Bits]
"""What each validator found of one shared challenge, by hotkey."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of `compared` verdicts that a consensus was found on, `agreed` are its own. `alone`: nobody else takes part."""

    agreed: int = 0
    compared: int = 0
    alone: bool = False

    @property
    def trust_ppm(self) -> int:
        """VTrust: the share agreed, or 0 where it is under FLOOR_PPM or nothing could be compared. All if alone."""
        if self.alone:
            return MILLION
        share = self.agreed * MILLION // self.compared if self.compared else 0
        return share if share >= FLOOR_PPM else 0


def majority(votes: Mapping[str, bool], weights: Mapping[str, int], total: int) -> bool | None:
    """What more than half of the weight in all, `total`, has voted; None when there is no such half."""
    for side in (True, False):
        if 2 * sum(weights.get(name, 0) for name, vote in votes.items() if vote is side) > total:
            return side
    return None


def agreements(shared: Iterable[Votes], stakes: Mapping[str, int]) -> dict[str, Agreement]:
    """How often each validator of `stakes` is with the consensus on shared challenges; others' votes are not heard.

    A consensus takes more than half of all of `stakes`, so the absent count against it, and a few who keep to
    challenges that nobody else met find none. It is looked for in each miner's verdict by itself, and counts for those
    who met the challenge if anybody else did. A validator that is alone is compared with nobody, and trusted.
    """
    if len(stakes) == 1:
        return dict.fromkeys(stakes, Agreement(alone=True))
    total = sum(stakes.values())
    agreed, compared = dict.fromkeys(stakes, 0), dict.fromkeys(stakes, 0)
    for votes in shared:
        heard = {name: bits for name, bits in votes.items() if name in stakes}
        if len(heard) < 2:
            continue
        for miner in (0, 1):
            verdicts = {name: bits[miner] for name, bits in heard.items()}
            found = majority(verdicts, stakes, total)
            if found is None:
                continue
            for name, verdict in verdicts.items():
                compared[name] += 1
                agreed[name] += verdict is found
    return {name: Agreement(agreed[name], compared[name]) for name in stakes}


def quorate(held: int, total: int) -> bool:
    """Whether holders of at least two thirds of the stake `total` are there: what counts for a miner needs as many."""
    return total > 0 and 3 * held >= 2 * total


def set_aside(tallies: Mapping[str, Tally], stakes: Mapping[str, int]) -> frozenset[str]:
    """Whose tally of a pairing is at odds with those of holders of more than half of all of `stakes`.

    Own challenges are drawn alike by everybody, so the same two miners win and lose at the same rates whoever asks,
    unless a validator lies, or a miner tells them apart. Which it is cannot be known: so the tally does not count, and
    nothing else follows. Each two tallies are compared once, and no longer than it takes to decide.
    """
    total = sum(stakes.values())
    heard = sorted((name for name in tallies if name in stakes), key=lambda name: (-stakes[name], name))
    compared: dict[tuple[Tally, Tally], bool] = {}
    found = set()
    for name in heard:
        against, left = 0, sum(stakes[other] for other in heard if other != name)
        for other in heard:
            if 2 * against > total or 2 * (against + left) <= total:
                break
            if other != name:
                first, second = sorted((tallies[name], tallies[other]))
                if (first, second) not in compared:
                    compared[first, second] = at_odds(first, second)
                left -= stakes[other]
                against += stakes[other] * compared[first, second]
        if 2 * against > total:
            found.add(name)
    return frozenset(found)


def at_odds(a: Tally, b: Tally) -> bool:
    """Whether two tallies cannot well be of the same miners: their shares of wins, or of losses, are too far apart."""
    return _far(a.wins, a.total, b.wins, b.total) or _far(a.losses, a.total, b.losses, b.total)


def _far(x: int, n: int, y: int, m: int) -> bool:
    """Whether x of n and y of m differ more than equal rates would, to that side, with a chance of 1 / ODDS.

    Fisher's exact test, in integers: given x + y successes in n + m trials, x is hypergeometric. Its weights are
    counted from the likeliest number outwards, to one part in UNIT. First a cheap look at the square of the z-score of
    two proportions, with Yates's correction.
    Source: R. A. Fisher, "On the Interpretation of chi-squared from Contingency Tables", JRSS 85 (1922).
    """
    successes, trials = x + y, n + m
    apart = max(0, 2 * abs(x * m - y * n) - trials)
    if apart * apart * trials <= 4 * SCREEN * successes * (trials - successes) * n * m:
        return False
    if x * m < y * n:
        x, n, m = y, m, n
    likeliest = (successes + 1) * (n + 1) // (trials + 2)
    every = tail = 0
    number, weight = likeliest, UNIT
    while weight:
        every += weight
        tail += weight * (number >= x)
        weight = weight * (n - number) * (successes - number) // ((number + 1) * (m - successes + number + 1))
        number += 1
    number, weight = likeliest, UNIT
    while weight := weight * number * (m - successes + number) // ((n - number + 1) * (successes - number + 1)):
        number -= 1
        every += weight
        tail += weight * (number >= x)
    return tail * ODDS < every


def reach(sampled: Sequence[tuple[int, int]], total: int) -> int:
    """The greatest count that holders of more than half of the stake `total` have reached; 0 if there is none.

    `sampled` are stakes and counts. Whoever has more is ahead of the majority, and counts no further than that.
    """
    held = 0
    for count, stake in sorted(((count, stake) for stake, count in sampled), reverse=True):
        held += stake
        if 2 * held > total:
            return count
    return 0


def weigh(
    tallies: Mapping[str, Tally], trust_ppm: Mapping[str, int], stakes: Mapping[str, int], aside: Collection[str] = ()
) -> dict[str, int]:
    """The weight, in ppm, of each sample of the validators' own challenges between two miners.

    `stakes` are those of all who take part, `aside` whose tally is set aside. Those who are trusted and not aside must
    be `quorate`. The greatest stake that has sampled weighs its trust, a smaller one less in proportion; and all of a
    validator's samples weigh no more than as many as the majority's `reach`. So to be many is no gain, nobody floods,
    and no miner is crowned on the word of a few. Who weighs less than a millionth is left out.
    """
    total = sum(stakes.values())
    heard = sorted(name for name, trust in trust_ppm.items() if trust and name not in aside)
    if not quorate(sum(stakes[name] for name in heard), total):
        return {}
    counts = {name: tallies.get(name, Tally()).total for name in heard}
    limit = reach([(stakes[name], counts[name]) for name in heard], total)
    sampled = {name: count for name, count in counts.items() if limit and count}
    most = max((stakes[name] for name in sampled), default=0)
    weights = {
        name: trust_ppm[name] * stakes[name] * min(limit, count) // (most * count) for name, count in sampled.items()
    }
    return {name: weight for name, weight in weights.items() if weight}


def settle(
    votes: Votes, trust_ppm: Mapping[str, int], stakes: Mapping[str, int], total: int
) -> tuple[Tally, int] | None:
    """The one outcome of a shared challenge, and its weight in ppm; None where too few have found the same.

    Those who found it are trusted, and hold two thirds of `total`, the stake of all who take part. It weighs as much as
    the most trusted of them.
    """
    found: dict[Tally, list[str]] = {}
    for name, (champion, contender) in votes.items():
        if trust_ppm.get(name):
            outcome = TIE if champion == contender else WIN if contender else LOSS
            found.setdefault(outcome, []).append(name)
    for outcome, names in found.items():
        if quorate(sum(stakes[name] for name in names), total):
            return outcome, max(trust_ppm[name] for name in names)
    return None
