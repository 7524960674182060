"""What /metrics endpoints serve: the client library's own text, OpenMetrics, and garbage."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from chimera.anomaly.sources import exposition
from chimera.anomaly.sources.exposition import OPENMETRICS, Exposed, read_page


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("requests", "served", ["path", "code"], registry=registry).labels('/a"b\\c\n', "200").inc(3)
    Gauge("temperature", "now", registry=registry).set(-1.5)
    Histogram("latency", "s", buckets=(1.0,), registry=registry).observe(0.5)
    return registry


def values(page: exposition.Page) -> dict[str, float]:
    return {each.metric: each.value for each in page.values if "_created" not in each.metric}


EXPECTED = {
    'requests_total{code="200",path="/a\\"b\\\\c\\n"}': 3.0,
    "temperature": -1.5,
    'latency_bucket{le="1.0"}': 1.0,
    'latency_bucket{le="+Inf"}': 1.0,
    "latency_count": 1.0,
    "latency_sum": 0.5,
}


def test_both_formats_of_the_client_library_are_read(registry: CollectorRegistry) -> None:
    plain, openmetrics = read_page(generate_latest(registry)), generate_openmetrics(registry)
    assert values(plain) == EXPECTED and plain.refused == {}
    assert values(read_page(openmetrics, kind=OPENMETRICS)) == EXPECTED


def test_a_counter_keeps_the_name_that_it_is_exposed_by() -> None:
    assert values(read_page(b"# TYPE hits counter\nhits 3\n")) == {"hits": 3.0}


def test_timestamps_are_milliseconds_and_exemplars_are_passed_over() -> None:
    assert read_page(b"a 1 1700000000500\n").values == [Exposed("a", 1_700_000_000.5, 1.0)]
    text = b'# TYPE a counter\na_total 4.0 1700000000.5 # {trace="x"} 0.5\n# EOF\n'
    assert read_page(text, kind=OPENMETRICS).values == [Exposed("a_total", 1_700_000_000.5, 4.0)]


def test_labels_are_added_and_do_not_replace() -> None:
    page = read_page(b'a 1\nb{instance="own"} 2\n', labels={"instance": "h:1"})
    assert values(page) == {'a{instance="h:1"}': 1.0, 'b{instance="own"}': 2.0}


def test_a_bad_line_costs_itself_only() -> None:
    page = read_page(b'a 1\nbroken{ 2\nc{x="1 3\nd one\n\xff 1\n' + b"e" * 5_000 + b" 1\nf NaN\ng +Inf\nh 1e999\n")
    assert [each.metric for each in page.values] == ["a", "f", "g", "h"]
    assert math.isnan(page.values[1].value) and page.values[2].value == math.inf
    assert page.refused == {"line": 5}


def test_a_number_too_large_for_a_float_is_refused() -> None:
    assert read_page(b"a " + b"9" * 400 + b"\nb 1\n") == ([Exposed("b", None, 1.0)], {"value": 1})


def test_a_million_series_end_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "MAX_SERIES", 100)
    page = read_page("".join(f'n{{a="{at}"}} 1\n' for at in range(1_000)).encode())
    assert len(page.values) == 100 and page.refused == {"series": 900}


@given(
    body=st.one_of(st.binary(max_size=300), st.text(alphabet='ab{}="\\, \n#1.e+-N\t', max_size=120).map(str.encode)),
    kind=st.sampled_from(["text/plain", OPENMETRICS]),
)
def test_no_bytes_raise(body: bytes, kind: str) -> None:
    for tail in (b"", b"\n# EOF\n"):
        page = read_page(body + tail, kind=kind)
        assert all(isinstance(each.value, float) for each in page.values)
