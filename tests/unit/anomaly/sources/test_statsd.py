"""StatsD's lines: what becomes of them, and what a stranger cannot do with them."""

from __future__ import annotations

import math
import random
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.anomaly.sources import statsd_table
from chimera.anomaly.sources.statsd_table import MAX_NAMES, MAX_TIMINGS, StatsdTable


@pytest.fixture
def refused() -> Counter[str]:
    return Counter()


@pytest.fixture
def table(refused: Counter[str]) -> StatsdTable:
    return StatsdTable(rng=random.Random(7), refused=refused)


def flushed(table: StatsdTable) -> dict[str, float]:
    return dict(table.flush())


def test_a_counter_is_what_it_grew_by_in_the_interval(table: StatsdTable) -> None:
    table.receive(b"hits:2|c\nhits:3|c|@0.5\n")
    assert flushed(table) == {"hits.count": 8.0}
    assert flushed(table) == {"hits.count": 0.0}


def test_a_gauge_stays_and_signs_change_it(table: StatsdTable) -> None:
    table.receive(b"temp:20|g\ntemp:+3|g\ntemp:-1|g")
    assert flushed(table) == {"temp": 22.0}
    assert flushed(table) == {"temp": 22.0}


def test_a_value_that_is_refused_lends_the_others_nothing(table: StatsdTable, refused: Counter[str]) -> None:
    table.receive(b"a:10|g\na:1:|g\nb:5|c\nc:10|g\nc:1:+x|g\nd:4:+2|g")
    assert flushed(table) == {"a": 1.0, "b.count": 5.0, "c": 1.0, "d": 6.0} and refused == {"value": 2}


def test_a_timer_tells_count_mean_max_and_quantiles(table: StatsdTable) -> None:
    table.receive("\n".join(f"t:{at}|ms" for at in range(1, 101)).encode())
    assert flushed(table) == {
        "t.count": 100.0,
        "t.mean": 50.5,
        "t.max": 100.0,
        "t.p50": 50.0,
        "t.p95": 95.0,
        "t.p99": 99.0,
    }
    assert flushed(table) == {"t.count": 0.0}


def test_a_set_counts_what_is_different(table: StatsdTable) -> None:
    table.receive(b"users:ann|s\nusers:bob|s\nusers:ann|s\nusers:a:b|s")
    assert flushed(table) == {"users.unique": 3.0}


def test_tags_are_labels_in_order_and_values_may_be_packed(table: StatsdTable) -> None:
    table.receive(b"t:1:2:3|h|#b:2,a:1,flag|c:some-container|T1656581400")
    assert flushed(table)['t.count{a="1",b="2",flag=""}'] == 3.0


def test_a_tag_cannot_pose_as_another(table: StatsdTable) -> None:
    table.receive(b'x:1|g|#a:1"%2Cb="2\nx:2|g|#a="1":1')
    assert set(flushed(table)) == {'x{a="1\\"%2Cb=\\"2"}', 'x{"a=\\"1\\""="1"}'}


def test_many_timings_are_a_fair_sample_of_bounded_size(table: StatsdTable) -> None:
    for at in range(100_000):
        table.receive(f"t:{at}|ms".encode())
    assert len(table._series["timer", "t"].kept) == MAX_TIMINGS
    found = flushed(table)
    assert found["t.count"] == 100_000 and found["t.max"] == 99_999
    assert found["t.p50"] == pytest.approx(50_000, rel=0.15)


def test_a_million_names_are_refused_above_the_limit_and_forgotten_when_idle(
    table: StatsdTable, refused: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statsd_table, "MAX_IDLE_FLUSHES", 2)
    for start in range(0, 1_000_000, 1_000):
        table.receive("\n".join(f"n{at}:1|g" for at in range(start, start + 1_000)).encode())
    assert len(flushed(table)) == MAX_NAMES and refused == {"names": 1_000_000 - MAX_NAMES}
    for _ in range(3):
        flushed(table)
    assert flushed(table) == {}
    table.receive(b"late:1|g")
    assert flushed(table) == {"late": 1.0}


def test_members_of_sets_have_a_limit_together(
    table: StatsdTable, refused: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statsd_table, "MAX_KEPT", 10)
    table.receive("\n".join(f"s{at % 3}:{at}|s" for at in range(25)).encode())
    assert sum(flushed(table).values()) == 10 and refused == {"members": 15}


def test_a_member_of_a_set_takes_a_few_bytes_however_long_it_is(table: StatsdTable) -> None:
    tracemalloc.start()
    for at in range(500):
        table.receive(f"s:{at}{'x' * 4_000}|s".encode())
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 200_000 and flushed(table) == {"s.unique": 500.0}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no colon", "line"),
        (b"x:1", "line"),
        (b"x:1|q", "line"),
        (b"_e{5,4}:title|text", "line"),
        (b"x" * 5_000 + b":1|g", "line"),
        (b":1|g", "name"),
        (b"x\x1b[2J:1|g", "name"),
        (b"x" * 510 + b":1|g", "name"),
        (b"x:one|g", "value"),
        (b"x:|c", "value"),
        (b"x:inf|g", "value"),
        (b"x:1e999|g", "value"),
        (b"x:1_0|g", "value"),
        (b"x:1|c|@0", "value"),
        (b"x:1|c|@2", "value"),
        (b"x:1|c|@x", "value"),
    ],
)
def test_what_is_no_statsd_is_counted_and_leaves_nothing(
    table: StatsdTable, refused: Counter[str], line: bytes, reason: str
) -> None:
    table.receive(line)
    assert +refused == {reason: 1} and flushed(table) == {}


@given(
    packet=st.one_of(st.binary(max_size=200), st.text(alphabet="ab:|@#,+-.019gcmshd\n", max_size=80).map(str.encode))
)
def test_no_packet_raises(packet: bytes) -> None:
    table = StatsdTable(rng=random.Random(1), refused=Counter())
    table.receive(packet)
    assert all(name.isprintable() and not math.isnan(value) for name, value in table.flush())
