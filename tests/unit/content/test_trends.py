"""Trends: what bursts is found, chance and floods are not, and a finder goes on where it was saved."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.content.feeds.item import FeedItem, Origin
from chimera.content.trends.batch import Batch, Mention
from chimera.content.trends.bursts import BurstOptions, BurstTable, Paths, step
from chimera.content.trends.changepoints import ChangePoints
from chimera.content.trends.finder import TrendFinder
from chimera.content.trends.novelty import Memory, divergence, shares
from chimera.content.trends.plot import plot_trends
from chimera.content.trends.tokens import MAX_TERMS, terms_in, terms_of
from chimera.content.trends.topics import cluster, discoveries, label, tail
from chimera.content.trends.trend import MAX_EVIDENCE, Trend, TrendOptions
from chimera.core.errors import InputError

HOUR = 3_600.0
START = 1_700_000_000.0 - 1_700_000_000.0 % HOUR
END = START + 1_000 * HOUR


def post(guid: str, text: str, hour: float, *, source: str = "feed:a", account: str = "") -> FeedItem:
    origin = Origin(source=source, seen_s=END)
    item = origin.item(
        guid=guid, title=text, account=account, published=START + hour * HOUR, url=f"https://x.example/{guid}"
    )
    assert item is not None
    return item


def chatter(hours: int, *, each: int = 20, seed: int = 0, first: int = 0) -> list[FeedItem]:
    """What is said all the time: words by Zipf's law, from eight sources and forty accounts."""
    rng = random.Random(seed)
    words = [f"word{n}" for n in range(400)]
    weights = [1 / (n + 5) for n in range(400)]
    return [
        post(
            f"c{seed}-{hour}-{n}",
            " ".join(rng.choices(words, weights, k=9)),
            hour + n / each,
            source=f"feed:{n % 8}",
            account=f"acc{rng.randrange(40)}",
        )
        for hour in range(first, first + hours)
        for n in range(each)
    ]


def event(
    hour: float, voices: int, *, sources: int = 4, posts: int = 1, words: str = "harbour bridge"
) -> list[FeedItem]:
    """Many voices about one thing, in words of their own."""
    rng = random.Random(voices)
    return [
        post(
            f"e{hour}-{voice}-{n}-{words}",
            f"{words} " + " ".join(f"own{rng.randrange(10**6)}" for _ in range(6)),
            hour + 0.01 * voice,
            source=f"feed:e{voice % sources}",
            account=f"witness{voice}",
        )
        for voice in range(voices)
        for n in range(posts)
    ]


def played(items: Sequence[FeedItem], hours: float, options: TrendOptions | None = None) -> TrendFinder:
    finder = TrendFinder(options=options)
    finder.add(items, START + hours * HOUR)
    return finder


def test_what_many_begin_to_say_is_a_trend_with_its_evidence() -> None:
    items = [*chatter(47), *event(46, 12)]
    (trend,) = played(items, 47).trends()
    assert "harbour bridge" in trend.terms
    assert (trend.documents, trend.voices, trend.sources) == (12, 12, 4)
    assert trend.since_s == START + 46 * HOUR
    assert trend.novelty > 0.5 and trend.chance < 1e-6 and trend.strength > 0
    assert trend.velocity == pytest.approx(12 / 2)
    assert sum(trend.counts) == 12
    known = {item.id: item for item in items}
    assert len({each.source for each in trend.evidence[:4]}) == 4
    assert all(each.url == known[each.item_id].url and "harbour" in each.title for each in trend.evidence)
    assert "harbour" not in f"{trend.tainted()}" and trend.tainted().sources == {f"feed:e{n}" for n in range(4)}


def test_what_is_said_all_the_time_is_none() -> None:
    for seed in range(2):
        items = chatter(48, seed=seed)
        finder = TrendFinder()
        for hour in range(48):
            finder.add([item for item in items if START + hour * HOUR <= item.published_s < START + (hour + 1) * HOUR],
                       START + (hour + 0.999) * HOUR)  # fmt: skip
            assert finder.trends() == []


def flood(source: str, account: str, words: str = "harbour bridge own{n} own{m} other{n}") -> list[FeedItem]:
    """Five hundred posts, `n` their number."""
    return [
        post(
            f"f{n}",
            words.format(n=n, m=7 * n),
            46.0,
            source=source.format(n=n % 9),
            account=account.format(n=n, few=n % 5),
        )
        for n in range(500)
    ]


@pytest.mark.parametrize(
    "flooded",
    [
        pytest.param(flood("feed:x", "one"), id="one account"),
        pytest.param(flood("feed:x{n}", "one"), id="one account in nine places"),
        pytest.param(flood("feed:x", ""), id="one feed"),
        pytest.param(flood("feed:x", "a{few}"), id="five accounts of one source"),
        pytest.param(
            [*flood("bluesky:home", "a{few}")[:250], *flood("bluesky:search", "a{few}")[250:]], id="one network twice"
        ),
        pytest.param(flood("feed:x{n}", "bot{n}", "harbour bridge is the best there is come"), id="pasted by 500"),
    ],
)
def test_a_flood_makes_no_trend_and_hides_none(flooded: list[FeedItem]) -> None:
    assert played([*chatter(47), *flooded], 47).trends() == []
    (trend,) = played([*chatter(47), *flooded, *event(46.2, 12, words="ferry strike")], 47).trends()
    assert "ferry strike" in trend.terms


def test_a_trend_ends_when_nobody_speaks_of_it() -> None:
    finder = played([*chatter(47), *event(46, 12)], 47)
    assert finder.trends()
    finder.add(chatter(10, first=47, seed=1), START + 58 * HOUR)
    assert finder.trends() == []


def test_how_long_nobody_may_speak_of_it_is_a_choice() -> None:
    items = [*chatter(47), *event(46, 12)]
    assert [len(played(items, 47.5, TrendOptions(quiet=quiet)).trends()) for quiet in (0, 1)] == [0, 1]


def test_one_voice_counts_for_a_few_documents_and_mentions() -> None:
    batch = Batch(46, TrendOptions())
    taken = [batch.take(Mention.of(item, 46, terms_of(item))) for item in flood("feed:x", "one")]
    assert (sum(taken), batch.documents, batch.mentions["harbour bridge"]) == (20, 20, 2)


def test_what_was_published_already_is_no_news() -> None:
    finder = played([*chatter(47), *event(46, 12)], 47)
    before = finder.trends()[0].novelty
    finder.published(" ".join(each.title for each in finder.trends()[0].evidence))
    assert finder.trends()[0].novelty < before / 2


def test_portions_do_not_matter_and_a_saved_finder_goes_on() -> None:
    items = sorted([*chatter(47), *event(46, 12)], key=lambda item: item.published_s)
    whole = played(items, 48)
    parts = TrendFinder()
    for place in range(0, len(items), 97):
        some = items[place : place + 97]
        parts.add(some, some[-1].published_s)
        parts = TrendFinder.load(parts.save())
    parts.add([], START + 48 * HOUR)
    assert parts.trends() == whole.trends() != []
    assert parts.save() == whole.save()
    assert whole.add(items[-50:], START + 48 * HOUR).copies == 50


@pytest.mark.parametrize("state", ["", "{}", "[]", '{"version": 2}'])
def test_what_is_no_state_is_refused(state: str) -> None:
    with pytest.raises(InputError, match="state"):
        TrendFinder.load(state)


def test_a_state_that_is_not_whole_is_refused() -> None:
    state = json.loads(played(chatter(3), 3).save())
    state["table"]["mass"].pop()
    with pytest.raises(InputError, match="not whole"):
        TrendFinder.load(json.dumps(state))


def test_late_items_items_ahead_and_more_than_a_batch_holds_are_told() -> None:
    finder = played(chatter(5), 5)
    assert finder.add([post("late", "too late", 1)], START + 5 * HOUR).late == 1
    with pytest.raises(InputError, match="after now"):
        finder.add([post("ahead", "too early", 9)], START + 5 * HOUR)
    full = played([], 0, TrendOptions(max_batch_items=10))
    assert full.add(event(0.2, 30), START + 0.9 * HOUR).refused == 20


def test_memory_is_bounded() -> None:
    options = TrendOptions(bursts=BurstOptions(max_terms=100), max_window_items=50)
    finder = played(chatter(60, each=30), 60, options)
    state = json.loads(finder.save())
    assert len(state["table"]["terms"]) <= 100 and len(state["window"]) <= 50


def brute(counts: Sequence[int], documents: Sequence[int], rate: float, options: BurstOptions) -> float:
    """The least cost over all sequences of states."""
    best = math.inf
    for path in itertools.product(range(options.states), repeat=len(counts)):
        cost, before = 0.0, 0
        for state, r, d in zip(path, counts, documents, strict=True):
            p = min(rate * options.scaling**state, 0.99)
            cost += options.gamma * math.log(options.horizon) * max(0, state - before)
            cost -= r * math.log(p) + (d - r) * math.log(1 - p)
            before = state
        best = min(best, cost)
    return best


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(9, 20)), min_size=1, max_size=5), st.floats(0.01, 0.3))
def test_the_streaming_pass_finds_the_cheapest_sequence(batches: list[tuple[int, int]], rate: float) -> None:
    options = BurstOptions(states=3, horizon=20)
    start = options.gamma * math.log(options.horizon) * np.arange(3, dtype=np.float64)
    # the costs are kept with the least taken off, so the gap between states is what can be compared
    paths = Paths(start[None, :], np.full((1, 3), -1), np.zeros((1, 3)))
    one = np.ones(1)
    for number, (r, d) in enumerate(batches):
        paths = step(paths, np.array([float(r)]), d, one * rate, one, number, options)
    counts, documents = [r for r, _ in batches], [d for _, d in batches]
    base = -sum(r * math.log(rate) + (d - r) * math.log(1 - rate) for r, d in batches)
    assert brute(counts, documents, rate, options) <= base + 1e-9
    # a path that stays up to the end saves what it gains on the base state
    up = paths.gains[0, 1:].max()
    assert brute(counts, documents, rate, options) <= base - up + 1e-6
    if len(batches) == 1:
        assert brute(counts, documents, rate, options) == pytest.approx(base - max(0.0, float(up)))


def test_a_burst_begins_where_it_was_planted() -> None:
    table = BurstTable(BurstOptions())
    for batch in range(60):
        table.observe(batch, {"tide": 30 if batch >= 50 else 2, "sea": 10}, 100)
    (burst,) = table.bursts(60, {"tide": 30, "sea": 10}, 100)
    assert (burst.term, burst.since) == ("tide", 50)
    with pytest.raises(InputError, match="order"):
        table.observe(3, {}, 1)


def test_a_count_that_always_strays_counts_for_less() -> None:
    calm, wild = BurstTable(BurstOptions()), BurstTable(BurstOptions())
    for batch in range(200):
        calm.observe(batch, {"x": 50}, 1_000)
        wild.observe(batch, {"x": 5 if batch % 2 else 95}, 1_000)
    assert calm.spread("x") == 1.0 and wild.spread("x") > 20.0
    assert calm.bursts(200, {"x": 150}, 1_000) and not wild.bursts(200, {"x": 150}, 1_000)


def test_a_change_of_rate_is_noticed_when_it_comes() -> None:
    rng = np.random.default_rng(1)
    changes = ChangePoints()
    before = [changes.observe(int(n)).fresh for n in rng.poisson(10, 150)][20:]
    after = [changes.observe(int(n)) for n in rng.poisson(40, 10)]
    assert max(before) < 0.5 < max(change.fresh for change in after[:3])
    assert after[-1].rate == pytest.approx(40, rel=0.2) and after[0].before == pytest.approx(10, rel=0.2)
    with pytest.raises(InputError):
        changes.observe(-1)


def test_the_tail_is_that_of_simulated_counts() -> None:
    rng = np.random.default_rng(2)
    rates = rng.gamma(20 + 0.5, 1 / (200 + 1), 200_000)
    drawn = rng.poisson(rates * 50)
    for mentions in (3, 6, 10):
        assert tail(mentions, 50, 20, 200) == pytest.approx(float((drawn >= mentions).mean()), abs=0.005)
    assert tail(0, 50, 20, 200) == 1.0


@given(st.lists(st.floats(0, 1), max_size=20), st.integers(0, 40), st.floats(0.001, 0.5))
def test_discoveries_are_those_of_benjamini_and_hochberg(chances: list[float], more: int, rate: float) -> None:
    tests = len(chances) + more
    allowed = [n for n in range(1, len(chances) + 1) if sum(c <= rate * n / tests for c in chances) >= n]
    limit = rate * max(allowed) / tests if allowed else -1.0
    assert discoveries(chances, tests, rate) == [chance <= limit for chance in chances]


def test_terms_in_the_same_documents_are_one_topic() -> None:
    documents = {
        "mother teresa": frozenset({1, 2, 3, 4}),
        "teresa": frozenset({1, 2, 3, 4, 5}),
        "ferry": frozenset({7, 8}),
        "strike": frozenset({7, 8, 9, 1}),
    }
    topics = cluster(list(documents), documents)
    assert topics == [["mother teresa", "teresa"], ["ferry", "strike"]]
    assert label(topics[0]) == ("mother teresa",)


words = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1)


@given(words, words)
def test_divergence_is_a_symmetric_number_from_0_to_1(one: dict[str, int], other: dict[str, int]) -> None:
    p, q = (shares(term for term, count in each.items() for _ in range(count)) for each in (one, other))
    assert divergence(p, q) == pytest.approx(divergence(q, p)) and 0.0 <= divergence(p, q) <= 1.0
    assert divergence(p, p) == 0.0
    if not set(p) & set(q):
        assert divergence(p, q) == pytest.approx(1.0)


def test_a_memory_is_bounded_and_nothing_remembered_is_all_new() -> None:
    memory = Memory(limit=3)
    assert memory.novelty({"a": 1.0}) == 1.0
    for term in "abcd":
        memory.remember([term])
    assert len(memory.kept()) == 3
    assert (memory.novelty({"a": 1.0}), memory.novelty({"d": 1.0})) == (1.0, 0.0)


def test_terms_are_words_that_say_something_and_pairs_of_them() -> None:
    found = terms_in("The Pope's surgery: a success, doctors say. https://x.example/a @doc", ("#Rome",))
    assert found == ("#rome", "pope", "surgery", "success", "doctors", "pope surgery")


@given(st.text(max_size=2_000))
def test_an_items_terms_are_bounded_and_each_once(text: str) -> None:
    found = terms_in(text)
    assert len(found) <= MAX_TERMS and len(set(found)) == len(found)


def test_trends_are_drawn(tmp_path: Path) -> None:
    trends = played([*chatter(47), *event(46, 12)], 47).trends()
    plot_trends(trends, tmp_path / "trends.png", batch_s=HOUR)
    assert (tmp_path / "trends.png").read_bytes().startswith(b"\x89PNG")
    empty: list[Trend] = []
    for wrong, path in ((empty, tmp_path / "x.png"), (trends, tmp_path / "no" / "x.png")):
        with pytest.raises(InputError):
            plot_trends(wrong, path, batch_s=HOUR)


def test_evidence_is_bounded() -> None:
    (trend,) = played([*chatter(47), *event(46, 60)], 47).trends()
    assert trend.documents == 60 and len(trend.evidence) == MAX_EVIDENCE
