"""Everybody's evidence made one: chains are read block by block, each sample is judged again, and only counts are kept.

Nobody is believed. A chain with one provable fault counts for nothing; of the others, `trust` says how much. What is
kept does not grow with the number of samples, and what comes out does not depend on the order of what went in.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from chimera.arena.canonical import MAX_INT
from chimera.arena.validators.audit import Lookup, registered
from chimera.arena.validators.beacon import Beacon
from chimera.arena.validators.challenges import MAX_SHARED
from chimera.arena.validators.merged import MILLION, Merged, OwnCount, Pairing, SetAside, SharedCount, Standing, Tally
from chimera.arena.validators.reading import BITS, MAX_BYTES, MAX_SAMPLES, UNCOUNTED, Reading
from chimera.arena.validators.record import Head
from chimera.arena.validators.trust import Agreement, Votes, agreements, quorate, set_aside, settle, weigh
from chimera.core.errors import ChainError, InputError, ObjectTooLarge, StorageError

MAX_VALIDATORS = 256

MAX_OWN = 20_000
"""Own challenges of one validator, between two miners in one environment, that are counted unless told otherwise."""


async def merge(
    sources: Mapping[str, AsyncIterable[bytes]],
    *,
    stakes: Mapping[str, int] | None = None,
    heads: Mapping[str, Head] | None = None,
    beacon: Beacon | None = None,
    since_s: int = 0,
    until_s: int = MAX_INT,
    most_own: int = MAX_OWN,
    most_samples: int = MAX_SAMPLES,
    most_bytes: int = MAX_BYTES,
    env_ids: Collection[str] | None = None,
    miners: Collection[str] | None = None,
    lookup: Lookup = registered,
) -> Merged:
    """The union of what these validators published from `since_s` on, and before `until_s` (seconds since the epoch).

    `sources` are blocks by hotkey, as `read_chain` brings them: any number at an index, in order of the index.
    `stakes` are those of the validators that may take part; any other is not even read (default: all, of equal stake),
    and one without stake has no say.
    `heads` are the blocks that chains had before. With a `beacon` it is asked for each round that more than half of the
    stake has sampled; a round that it cannot tell counts for nobody, and nor does any other round. Without one the
    majority says what a round's randomness was. While holders of more than a third of the stake cannot be read, or have
    sampled nothing, nobody is trusted.

    Samples in other environments than `env_ids`, or of others than `miners` (default: all), are neither judged nor
    counted. A chain of more than `most_samples`, or of more than `most_bytes`, is an offender's. What comes out depends
    on these arguments and on which stores could be read, and on nothing else: validators that are to agree use the
    same. Raises InputError for more than 256 validators or negative stakes, and EnvironmentNotFound when one of
    `env_ids` is not installed here: verdicts that cannot be computed again are not taken for lies.
    """
    for env_id in env_ids or ():
        lookup(env_id)
    allowed = dict.fromkeys(sources, 1) if stakes is None else dict(stakes)
    hotkeys = sorted(allowed.keys() & sources.keys())
    if len(hotkeys) > MAX_VALIDATORS or min(allowed.values(), default=0) < 0:
        raise InputError(f"a merge takes up to {MAX_VALIDATORS} validators, and stakes of 0 or more")
    readings, unread = [], []
    for hotkey in hotkeys:
        known = (heads or {}).get(hotkey)
        reading = Reading(
            hotkey,
            known=known,
            since_s=since_s,
            until_s=until_s,
            most=most_own,
            most_samples=most_samples,
            most_bytes=most_bytes,
            env_ids=env_ids,
            miners=miners,
            lookup=lookup,
        )
        if await _read(reading, sources[hotkey]):
            readings.append(reading)
        else:
            unread.append(hotkey)
    if beacon:
        await _check_rounds(readings, allowed, beacon)
    return _united(readings, {hotkey: allowed[hotkey] for hotkey in hotkeys}, unread)


async def _read(reading: Reading, source: AsyncIterable[bytes]) -> bool:
    """Whether a chain could be read to its end, or to an offence, which is the end as well."""
    blocks = aiter(source)
    try:
        async for data in blocks:
            reading.take(data)
            if reading.offence:
                break
    except ObjectTooLarge:
        reading.offend("limit", "what is stored as its next block is too large to be one")
    except StorageError:
        return False
    finally:
        close = getattr(blocks, "aclose", None)
        if close:
            await close()
    reading.end()
    return True


async def _check_rounds(readings: Sequence[Reading], stakes: Mapping[str, int], beacon: Beacon) -> None:
    """Find out who made a round's randomness up, and drop the rounds that nobody can be sure of.

    Few rounds are asked for, however many are claimed: each of them by more than half of the stake, which nothing that
    counts can do without.
    """
    sound = _taking_part(readings, stakes)
    total = sum(stakes[reading.hotkey] for reading in sound)
    told: dict[int, str] = {}
    for round in sorted({round for reading in sound for round in reading.rounds}):
        if 2 * sum(stakes[reading.hotkey] for reading in sound if round in reading.rounds) > total:
            try:
                told[round] = await beacon.randomness(round)
            except ChainError:
                continue
    for reading in sound:
        for round, claimed in sorted(reading.rounds.items()):
            if told.get(round, claimed) != claimed:
                reading.offend("beacon", f"round {round} of the beacon was {told[round]}, not {claimed}")
                break
        reading.shared = {part: found for part, found in reading.shared.items() if part.round in told}


@dataclass(frozen=True, slots=True)
class _Union:
    """What the validators that take part have: `shared` by challenge, `own` by duel."""

    readings: Sequence[Reading]

    def shared(self) -> Iterator[tuple[Pairing, Votes]]:
        """Each shared challenge once, in one order, with what everybody who met it found."""
        for part in sorted({part for reading in self.readings for part in reading.shared}):
            met = [(reading.hotkey, found) for reading in self.readings if (found := reading.shared.get(part))]
            for index in range(min(MAX_SHARED, max(len(found) for _, found in met))):
                votes = {
                    hotkey: BITS[found[index]]
                    for hotkey, found in met
                    if index < len(found) and found[index] != UNCOUNTED
                }
                if votes:
                    yield part.pairing, votes

    def own(self) -> dict[Pairing, dict[str, Tally]]:
        """What each validator's own challenges came to."""
        found: dict[Pairing, dict[str, Tally]] = {}
        for reading in self.readings:
            for pairing, tally in reading.own.items():
                found.setdefault(pairing, {})[reading.hotkey] = tally
        return dict(sorted(found.items()))


def _taking_part(readings: Sequence[Reading], stakes: Mapping[str, int]) -> list[Reading]:
    """Those with a stake and without an offence that have sampled anything that counts."""
    return [
        reading
        for reading in readings
        if stakes[reading.hotkey] and not reading.offence and (reading.own or reading.shared)
    ]


def _quorate(readings: Sequence[Reading], stakes: Mapping[str, int]) -> list[Reading]:
    """Those taking part; nobody, while holders of more than a third of the stake are absent.

    Absent is who could not be read, or has sampled nothing. Were those who are left enough by themselves, to keep the
    others away would be to rule. Offenders are not missed.
    """
    sound = _taking_part(readings, stakes)
    missed = sum(stakes.values()) - sum(stakes[reading.hotkey] for reading in readings if reading.offence)
    return sound if quorate(sum(stakes[reading.hotkey] for reading in sound), missed) else []


def _united(readings: Sequence[Reading], stakes: Mapping[str, int], unread: Sequence[str]) -> Merged:
    """Trust from what is left, and counts from who is trusted."""
    union = _Union(_quorate(readings, stakes))
    held = {reading.hotkey: stakes[reading.hotkey] for reading in union.readings}
    found = agreements((votes for _, votes in union.shared()), held)
    trust = {hotkey: agreement.trust_ppm for hotkey, agreement in found.items()}
    aside = {pairing: set_aside(tallies, held) for pairing, tallies in union.own().items()}
    return Merged(
        standings=tuple(_standing(reading, found.get(reading.hotkey, Agreement()), stakes) for reading in readings),
        offences=tuple(reading.offence for reading in readings if reading.offence),
        unread=tuple(unread),
        own=tuple(_own_counts(union, trust, held, aside)),
        shared=tuple(_shared_counts(union, trust, held)),
        set_aside=tuple(
            SetAside(hotkey=hotkey, **pairing._asdict()) for pairing in aside for hotkey in sorted(aside[pairing])
        ),
    )


def _standing(reading: Reading, agreement: Agreement, stakes: Mapping[str, int]) -> Standing:
    head, total = reading.head, sum(stakes.values())
    return Standing(
        hotkey=reading.hotkey,
        stake_ppm=stakes[reading.hotkey] * MILLION // total if total else 0,
        trust_ppm=agreement.trust_ppm,
        agreed=agreement.agreed,
        compared=agreement.compared,
        samples=reading.samples,
        head_index=head.index if head else -1,
        head_hash=head.hash if head else "",
    )


def _own_counts(
    union: _Union, trust: Mapping[str, int], stakes: Mapping[str, int], aside: Mapping[Pairing, Collection[str]]
) -> Iterator[OwnCount]:
    for pairing, tallies in union.own().items():
        for hotkey, weight_ppm in weigh(tallies, trust, stakes, aside[pairing]).items():
            yield OwnCount(**pairing._asdict(), **tallies[hotkey]._asdict(), weight_ppm=weight_ppm, hotkey=hotkey)


def _shared_counts(union: _Union, trust: Mapping[str, int], stakes: Mapping[str, int]) -> Iterator[SharedCount]:
    total = sum(stakes.values())
    counts: dict[tuple[Pairing, int], Tally] = {}
    for pairing, votes in union.shared():
        if settled := settle(votes, trust, stakes, total):
            outcome, weight_ppm = settled
            counts[pairing, weight_ppm] = counts.get((pairing, weight_ppm), Tally()).plus(outcome)
    for (pairing, weight_ppm), tally in sorted(counts.items()):
        yield SharedCount(**pairing._asdict(), **tally._asdict(), weight_ppm=weight_ppm)
