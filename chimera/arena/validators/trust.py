"""How far a validator is believed: agreement where all were asked the same, consistency where each was asked its own.

Everything here rests on one assumption: those who hold more than half of the stake that takes part are honest. They
agree with one another, so (1) no consensus goes against them, since it takes more than half of the stake; (2) nobody is
inconsistent with more than half of the stake for being honest; (3) nothing counts beyond what more than half of the
stake has sampled. See docs/evidence.md. All numbers are integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from chimera.arena.validators.merged import LOSS, MILLION, TIE, WIN, Pairing, Tally

FLOOR_PPM = 600_000
"""Whoever agrees less often than this is not believed at all."""

ODDS = 1_000_000
"""Two validators are at odds where equal rates would differ as much, to the same side, once in this many times."""

SCREEN = 9
"""Under this square of a z-score two rates are not looked at further: the exact test would not find them at odds."""

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


def inconsistent(own: Mapping[Pairing, Mapping[str, Tally]], stakes: Mapping[str, int]) -> dict[str, Pairing]:
    """Who is at odds with holders of more than half of the stake, and over which two miners (the first, in order).

    Own challenges are drawn alike by everybody, so the same two miners win and lose at the same rates whoever asks. A
    validator that tells the truth where others can check it and lies about the rest is found here.
    """
    total = sum(stakes.values())
    found: dict[str, Pairing] = {}
    for pairing in sorted(own):
        tallies = {name: tally for name, tally in own[pairing].items() if name in stakes}
        for name in sorted(tallies.keys() - found.keys()):
            against = [other for other in tallies if at_odds(tallies[name], tallies[other])]
            if 2 * sum(stakes[other] for other in against) > total:
                found[name] = pairing
    return found


def at_odds(a: Tally, b: Tally) -> bool:
    """Whether two tallies cannot well be of the same miners: their shares of wins, or of losses, are too far apart."""
    return _far(a.wins, a.total, b.wins, b.total) or _far(a.losses, a.total, b.losses, b.total)


def _far(x: int, n: int, y: int, m: int) -> bool:
    """Whether x of n and y of m differ more than equal rates would, to that side, with a chance of 1 / ODDS.

    Fisher's exact test, in integers: given x + y successes in n + m trials, x is hypergeometric. First a cheap look at
    the square of the z-score of two proportions, with Yates's correction.
    Source: R. A. Fisher, "On the Interpretation of chi-squared from Contingency Tables", JRSS 85 (1922).
    """
    successes, trials = x + y, n + m
    apart = max(0, 2 * abs(x * m - y * n) - trials)
    if apart * apart * trials <= 4 * SCREEN * successes * (trials - successes) * n * m:
        return False
    if x * m < y * n:
        x, n, y, m = y, m, x, n
    term = math.comb(n, x) * math.comb(m, y)
    tail = 0
    while term:  # this many successes on the side that has more, and each greater number
        tail += term
        term = term * (n - x) * y // ((x + 1) * (m - y + 1))
        x, y = x + 1, y - 1
    return tail * ODDS < math.comb(trials, successes)


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


def weigh(tallies: Mapping[str, Tally], trust_ppm: Mapping[str, int], stakes: Mapping[str, int]) -> dict[str, int]:
    """The weight, in ppm, of each sample of the trusted validators' own challenges between two miners.

    A validator's trust; but all of its samples together weigh no more than those of the majority's `reach` would. So
    nobody floods, and no miner is crowned on the word of a few.
    """
    trusted = [name for name, trust in trust_ppm.items() if trust]
    counts = {name: tallies.get(name, Tally()).total for name in trusted}
    limit = reach([(stakes[name], counts[name]) for name in trusted], sum(stakes[name] for name in trusted))
    sampled = {name: count for name, count in sorted(counts.items()) if limit and count}
    return {name: trust_ppm[name] * min(limit, count) // count for name, count in sampled.items()}


def settle(
    votes: Votes, trust_ppm: Mapping[str, int], stakes: Mapping[str, int], total: int
) -> tuple[Tally, int] | None:
    """The one outcome of a shared challenge, and its weight in ppm; None where there is no majority.

    The outcome takes more than half of `total`, the stake times trust of all who are trusted. It weighs as much as the
    most trusted of those who found it.
    """
    found: dict[Tally, list[str]] = {}
    for name, (champion, contender) in votes.items():
        if trust_ppm.get(name):
            outcome = TIE if champion == contender else WIN if contender else LOSS
            found.setdefault(outcome, []).append(name)
    for outcome, names in found.items():
        if 2 * sum(stakes[name] * trust_ppm[name] for name in names) > total:
            return outcome, max(trust_ppm[name] for name in names)
    return None
