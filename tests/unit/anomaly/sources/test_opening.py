"""What a user names becomes a source, or an error that lists the forms; and the parts that all sources share."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.anomaly.sources.addresses import parse_address, shown_url
from chimera.anomaly.sources.intake import Inbox, Sieve
from chimera.anomaly.sources.naming import canonical
from chimera.anomaly.sources.opening import PushSource, SourceOptions, open_source
from chimera.anomaly.sources.pacing import Pace
from chimera.core.errors import InputError, MissingExtra, Overloaded, SourceError
from chimera.core.watching import Reading


@pytest.mark.parametrize(
    ("spec", "kind", "name"),
    [
        ("x.csv", "CsvSource", "x.csv"),
        ("-", "CsvSource", "-"),
        ("a:b.csv.gz", "CsvSource", "a:b.csv.gz"),
        ("prometheus:http://h:9090/", "PrometheusSource", "prometheus:http://h:9090"),
        ("scrape:http://h/metrics", "ScrapeSource", "scrape:http://h/metrics"),
        ("scrape:http://h/metrics,http://i/metrics", "ScrapeSource", "scrape:2 targets"),
        ("statsd:", "StatsdSource", "statsd:127.0.0.1:8125"),
        ("statsd::9125", "StatsdSource", "statsd:127.0.0.1:9125"),
        ("otlp:0.0.0.0", "OtlpSource", "otlp:0.0.0.0:4318"),
        ("http:[::1]:0", "HttpSource", "http:[::1]:0"),
    ],
)
def test_each_form_opens_its_source(spec: str, kind: str, name: str) -> None:
    source = open_source(spec, options=SourceOptions(queries=("up",)))
    assert (type(source).__name__, source.name, source.refused) == (kind, name, {})


def test_a_file_of_any_name_is_read_if_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "readings.txt").touch()
    assert open_source(str(tmp_path / "readings.txt")).name.endswith("readings.txt")


@pytest.mark.parametrize("spec", ["", "nothing", "ftp://h", "kafka:h:1", "x" * 20_000, "a\nb.csv", "\ud800"])
def test_anything_else_is_told_the_forms(spec: str) -> None:
    with pytest.raises(InputError, match=r"use FILE\.csv, - .*prometheus:.*scrape:.*statsd:.*otlp:.*http:HOST:PORT"):
        open_source(spec)


def test_a_bare_url_is_asked_what_it_is() -> None:
    with pytest.raises(InputError, match=r"prometheus:http://h:9090 .*scrape:http://h:9090"):
        open_source("http://h:9090")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:9090/x", "http://h:9090/x"),
        ("http://[::1]:80/m", "http://[::1]:80/m"),
        ("http://u:s3@cret@h:9/x?t=s3cret#s3cret", "http://h:9/x?..."),
        ("http://u:s3/cret@h/x", "http://h/x"),
        ("http://u:s3#cret@h/x", "http://h/x"),
        ("http://u:s3?cret@h/x", "http://h/x?..."),
        ("http://g/m,http://u:s3cret@h/x", "http://h/x"),
        ("u:s3cret@h", "h"),
        ("u:s3cret@h//x", "h//x"),
        ("ftp://u:s3cret@h", "ftp://h"),
        ("x.csv", "x.csv"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "spec",
    [
        "https://user:s3cret@host:9090",
        "https://host:9090/x?token=s3cret",
        "scrape:ftp://user:s3cret@host/metrics",
        "scrape:http://u:s3cret@host:99999/metrics?token=s3cret",
        "prometheus:u:s3cret@host",
        "kafka:u:s3cret@host",
        "http://u:s3cret@host\n",
    ],
)
def test_no_error_shows_a_secret(spec: str) -> None:
    with pytest.raises(InputError, match="host") as told:
        open_source(spec, options=SourceOptions(queries=("up",)))
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize("address", ["h:p", "h:65536", "a b:1", "h:1:2", "http://h:1", "h:-1"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(InputError, match=r"give HOST:PORT, such as 127\.0\.0\.1:4318"):
        parse_address(address, port=4318)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("aiohttp", "chimera.anomaly.sources.", "opentel"))]:
        if name.endswith((".serving", ".http_push", ".fetching")) or name == "aiohttp":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingExtra, match=r"aiohttp is not installed: pip install 'chimera\[anomaly\]'"):
        open_source("http:127.0.0.1:0")


def test_options_are_checked() -> None:
    for wrong in ({"interval_s": 0}, {"metrics": [""]}, {"max_queued": 0}, {"colour": 1}, {"history_s": float("nan")}):
        with pytest.raises(ValidationError):
            SourceOptions.model_validate(wrong)


@pytest.mark.parametrize(
    ("glob", "taken"),
    [
        ("cpu*", ["cpu", 'cpu{host="a"}']),
        ("cpu", ["cpu", 'cpu{host="a"}']),
        ('cpu{host="a"}', ['cpu{host="a"}']),
        ('*host="b"*', ['mem{host="b"}']),
        ("[", []),
        ("*", ["cpu", 'cpu{host="a"}', 'mem{host="b"}']),
    ],
)
def test_globs_choose_by_the_whole_name_or_the_bare_one(glob: str, taken: list[str]) -> None:
    sieve = Sieve([glob])
    names = ["cpu", 'cpu{host="a"}', 'mem{host="b"}']
    for _ in range(2):
        assert [reading.metric for reading in sieve.sift((name, 1.0, 1.0) for name in names)] == taken
    assert sieve.unwanted == 2 * (len(names) - len(taken)) and not sieve.refused


@given(name=st.text(max_size=20), labels=st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=3))
def test_different_labels_never_have_the_same_name(name: str, labels: dict[str, str]) -> None:
    changed = {**labels, "more": '",x="'}
    assert canonical(name, labels) != canonical(name, changed)
    assert canonical(name, dict(reversed(labels.items()))) == canonical(name, labels)


async def test_push_waits_for_room_and_push_nowait_does_not() -> None:
    many = [Reading("a", float(at), 1.0) for at in range(5)]
    async with PushSource(options=SourceOptions(max_queued=5, timeout_s=0.1)) as source:
        assert source.push_nowait(many) == 5
        with pytest.raises(Overloaded, match="5 of at most 5 readings wait: none of these"):
            source.push_nowait(many[:1])
        with pytest.raises(Overloaded, match="0 of 1 readings"):
            await source.push(many[:1])
    async with PushSource(options=SourceOptions(max_queued=5, timeout_s=30)) as source:
        source.push_nowait(many)
        waiting = asyncio.create_task(source.push([*many, *many]))
        taken: list[Reading] = []
        async for batch in source.batches():
            taken += batch
            if len(taken) == 15:
                source.finish()
        assert await waiting == 10 and taken == many * 3
        with pytest.raises(SourceError, match="closed"):
            await source.push(many)


async def test_what_was_pushed_before_the_end_still_comes() -> None:
    source = PushSource()
    await source.push([("a", 1, 2), ("b", float("nan"), 2)])
    assert await source.push([7, ("a", 1), None, ("a", 1, 2, 3)]) == 0  # type: ignore[list-item]
    source.finish()
    assert [batch async for batch in source.batches()] == [[Reading("a", 1.0, 2.0)]]
    assert source.refused == {"timestamp": 1, "field": 4}


async def test_who_waits_for_room_is_told_of_the_end() -> None:
    inbox = Inbox(1)
    inbox.offer([Reading("a", 1.0, 1.0)])
    waiting = asyncio.create_task(inbox.put([Reading("a", 2.0, 1.0)]))
    await asyncio.sleep(0)
    inbox.close()
    with pytest.raises(SourceError, match="closed"):
        await waiting


async def test_to_close_a_pace_wakes_who_waits_for_the_next_tick() -> None:
    pace = Pace(86_400.0)
    assert await pace.tick()
    waiting = asyncio.create_task(pace.tick())
    await asyncio.sleep(0.01)
    pace.close()
    async with asyncio.timeout(20):
        assert not await waiting


async def test_a_pace_leaves_out_what_nobody_waited_for() -> None:
    pace = Pace(0.02)
    assert await pace.tick()
    await asyncio.sleep(0.1)
    ticks = 0
    async with asyncio.timeout(20):
        start = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() - start < 0.1:
            assert await pace.tick()
            ticks += 1
    assert ticks <= 8
    pace.close()
    assert not await pace.tick() and await pace.until_closed(asyncio.sleep(3_600, "late")) is None
