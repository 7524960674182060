"""CSV files: what their columns mean, what is refused, and that memory does not grow with them."""

from __future__ import annotations

import asyncio
import codecs
import gzip
import math
import os
import random
import re
import threading
import time
import tracemalloc
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.anomaly.sources.csv_file import CsvSource
from chimera.anomaly.sources.intake import Sieve
from chimera.anomaly.sources.source import SourceOptions
from chimera.anomaly.sources.table import MAX_LINE_CHARS, Lines, Table
from chimera.anomaly.sources.timestamps import seconds_of
from chimera.core.errors import SourceError
from chimera.core.watching import Reading


async def read(path: Path, **options: object) -> tuple[list[Reading], dict[str, int]]:
    async with CsvSource(path, options=SourceOptions.model_validate(options)) as source:
        found = [reading async for batch in source.batches() for reading in batch]
    return found, dict(source.refused)


def table(text: str | bytes, *globs: str) -> tuple[list[Reading], dict[str, int]]:
    sieve = Sieve(globs)
    made = Table("stem", sieve)
    found = made.feed(text.encode() if isinstance(text, str) else text)
    return found + made.finish(), dict(sieve.refused)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timestamp,value\n2011-07-01 00:00:01,0.5\n", [("stem", 1309478401.0, 0.5)]),
        ("\ufeffTime,cpu,mem\r\n10,1,2\r\n", [("cpu", 10.0, 1.0), ("mem", 10.0, 2.0)]),
        ("ds;unique_id;y\n10;a;1\n11;b;2\n", [("a", 10.0, 1.0), ("b", 11.0, 2.0)]),
        ('timestamp,metric,value\n10,"a{x=""1,2""}",1', [('a{x="1,2"}', 10.0, 1.0)]),
        ("cpu\twhen\n5\t2020-01-01T00:00:00Z\n", [("cpu", 1577836800.0, 5.0)]),
        ("cpu,when\n5,1577836800000\n", [("cpu", 1577836800.0, 5.0)]),
        ("\n\ntime,cpu\n\n1,2\n\n", [("cpu", 1.0, 2.0)]),
        ("time,value\n1,inf\n2,1e999\n", [("stem", 1.0, math.inf), ("stem", 2.0, math.inf)]),
    ],
)
def test_columns_mean_what_they_are_called(text: str, expected: list[tuple[str, float, float]]) -> None:
    assert table(text) == ([Reading(*each) for each in expected], {})


def test_an_empty_cell_is_a_reading_that_is_missing() -> None:
    found, refused = table("time,a,b\n1,,NaN\n")
    assert [reading.metric for reading in found] == ["a", "b"] and refused == {}
    assert all(math.isnan(reading.value) for reading in found)


def test_what_cannot_be_read_is_counted_by_reason_and_the_rest_is_read() -> None:
    rows = b'soon,1\n1,one\n1\n"1,2\n1,"2\n1,1_0\n' + b"9" * (MAX_LINE_CHARS + 1) + b"\n1e400,1\n\xff,1\n"
    found, refused = table(b"time,value\n1,1\n" + rows + b"2,2\n")
    assert [reading.timestamp for reading in found] == [1.0, 2.0]
    assert refused == {"timestamp": 3, "value": 2, "line": 4}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ("time,value\n", "no rows below"),
        ("time\n1\n", "line 1: it has 1 columns"),
        ("1,2\n3,4\n", "line 1: expected a header"),
        ("a,b\n3,4\n", "line 2: no column holds a timestamp"),
        ("time,value\nsoon,4\n", "line 2: 'soon' is no timestamp: expected ISO 8601"),
        ("time,value\n1,four\n", "line 2: 'four' in column 'value' is no number"),
        ("time,metric,value\n1,,4\n", "line 2: '' is no name for a metric"),
        ("time,cpu, cpu\n1,2,3\n", "line 1: two columns are called 'cpu': give each its own name"),
        ("time,cpu\n1,2\n".encode("utf-16-le"), "line 1: it holds NUL characters: save it as UTF-8"),
    ],
)
def test_a_file_of_nothing_says_which_line_and_what_was_expected(text: str | bytes, told: str) -> None:
    with pytest.raises(SourceError, match=told):
        table(text)


@pytest.mark.parametrize(
    ("text", "complaint", "counted"),
    [
        ("time,cpu\n1,2\n", None, {}),
        ("time,cpu\n1,\n", "line 2: up to here, every value is missing", {}),
        ("time,a,\n1,2,3\n", "line 2: '' is no name for a metric", {"name": 1}),
        ("time,cpu\n1,2\n2,abc\nsoon,3\n", "line 3: 'abc' in column 'cpu' is no number", {"value": 1, "timestamp": 1}),
        (
            "ds,unique_id,y,host,region\n1,a,2,x,z\n2,a,b,x,z\n",
            "columns that are not read, beside metric and value: host, region; line 3: 'b' in column 'y' is no number",
            {"column": 2, "value": 1},
        ),
    ],
)
async def test_the_first_that_was_refused_is_told(
    tmp_path: Path, text: str, complaint: str | None, counted: dict[str, int]
) -> None:
    (tmp_path / "x.csv").write_text(text)
    async with CsvSource(tmp_path / "x.csv") as source:
        found = [reading async for batch in source.batches() for reading in batch]
    assert (len(found), source.complaint, source.refused) == (1, complaint, counted)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
def test_encodings_and_ends_of_lines_say_the_same(end: str, encoding: str, size: int) -> None:
    data = end.join(["time,größe", "1,2", "", "2,three", "3,4"]).encode(encoding)
    data = codecs.BOM_UTF16_BE + data if encoding == "utf-16-be" else data
    made = Table("stem", Sieve())
    found = [reading for at in range(0, len(data), size) for reading in made.feed(data[at : at + size])]
    assert found + made.finish() == [Reading("größe", 1.0, 2.0), Reading("größe", 3.0, 4.0)]
    assert made.complaint == "line 4: 'three' in column 'größe' is no number"


def test_to_ask_for_a_metric_that_is_not_there_names_the_columns() -> None:
    with pytest.raises(SourceError, match="its columns are time, cpu, mem"):
        table("time,cpu,mem\n1,2,3\n", "disk*")
    assert [reading.metric for reading in table("time,cpu,mem\n1,2,3\n", "c*")[0]] == ["cpu"]


@given(moment=st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_date_and_its_number_are_the_same_moment(moment: datetime) -> None:
    assert seconds_of(moment.isoformat()) == moment.timestamp()
    assert seconds_of(moment.replace(tzinfo=None).isoformat(" ")) == moment.timestamp()


def test_a_date_without_a_zone_is_utc_wherever_this_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert seconds_of("2020-01-01 00:00:00") == seconds_of("2020-01-01T09:00:00+09:00") == 1_577_836_800.0
    finally:
        monkeypatch.undo()
        time.tzset()


@given(seconds=st.integers(200_000_000, 4_000_000_000))
def test_the_size_of_a_number_tells_its_unit(seconds: int) -> None:
    assert {seconds_of(str(seconds * unit)) for unit in (1, 10**3, 10**6, 10**9)} == {float(seconds)}


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_lines_do_not_depend_on_how_they_were_cut(data: bytes, cuts: list[int]) -> None:
    lines, found = Lines(), []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        found += lines.feed(data[start:end])
    found += lines.finish()
    if data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        assert found == [line.decode("utf-8", "replace") for line in data.removeprefix(b"\xef\xbb\xbf").splitlines()]


@given(data=st.binary(max_size=500))
def test_no_bytes_raise_anything_but_source_error(data: bytes) -> None:
    for start in (b"", b"time,value\n", b"time,metric,value\n1,a,2\n"):
        try:
            found, _ = table(start + data)
        except SourceError:
            continue
        assert all(math.isfinite(reading.timestamp) and reading.metric.isprintable() for reading in found)


async def test_a_line_without_an_end_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    with path.open("wb") as file:
        file.write(b"time,value\n1,1\n")
        for _ in range(64):
            file.write(b"x" * 1_000_000)
        file.write(b"\n2,2\n")
    tracemalloc.start()
    found, refused = await read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [reading.value for reading in found] == [1.0, 2.0] and refused == {"line": 1}
    assert peak < 16_000_000


async def test_a_zip_bomb_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"time,value\n1,1\n")
        for _ in range(100):
            file.write(b"0" * 1_000_000)
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    found, refused = await read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [Reading("bomb", 1.0, 1.0)] and refused == {"line": 1}
    assert peak < 16_000_000


async def test_a_gzip_that_breaks_off_gives_what_it_has(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = "".join(f"{at},{rng.random()}\n" for at in range(20_000))
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(f"time,value\n{rows}".encode())[:-1_000])
    async with CsvSource(path) as source:
        found = [reading async for batch in source.batches() for reading in batch]
    assert len(found) > 10_000 and found[7].metric == "cut" and source.refused["file"] == 1
    assert re.match(r"line 1\d,\d{3}: what follows it cannot be read: Compressed file ended", source.complaint or "")


async def test_what_is_no_gzip_though_it_begins_so_is_told(tmp_path: Path) -> None:
    path = tmp_path / "no.csv.gz"
    path.write_bytes(b"\x1f\x8b" + b"garbage" * 100)
    with pytest.raises(SourceError, match="cannot be read"):
        await read(path)


async def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        await read(tmp_path / "missing.csv")
    with pytest.raises(SourceError, match="Is a directory"):
        await read(tmp_path)


async def test_a_row_on_a_pipe_comes_before_the_pipe_ends(tmp_path: Path) -> None:
    path = tmp_path / "live.csv"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)
    async with CsvSource(path) as source, asyncio.timeout(20):
        batches = source.batches()
        os.write(pipe, b"time,value\n1,1\n2")
        assert await anext(batches) == [Reading("live", 1.0, 1.0)]
        os.write(pipe, b",2\n")
        assert await anext(batches) == [Reading("live", 2.0, 2.0)]
    os.close(pipe)


async def test_who_takes_nothing_holds_the_reader_back(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    path.write_text("time,value\n" + "".join(f"{at},1\n" for at in range(200_000)))
    async with CsvSource(path) as source, asyncio.timeout(60):
        batches = source.batches()
        taken = len(await anext(batches))
        await asyncio.sleep(0.3)
        assert source._handed.qsize() <= 3
        async for batch in batches:
            taken += len(batch)
    assert taken == 200_000


def test_who_waits_for_a_pipe_that_nobody_writes_to_can_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)

    async def watch() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(CsvSource(path).__aenter__(), 0.1)

    running = threading.Thread(target=lambda: asyncio.run(watch()))
    running.start()
    running.join(20)
    ended = not running.is_alive()
    os.close(os.open(path, os.O_RDWR))  # whoever waits goes on
    running.join(20)
    assert ended


async def test_a_pipe_opens_when_somebody_writes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    source = CsvSource(path)
    opening = asyncio.create_task(source.__aenter__())
    await asyncio.sleep(0.05)
    assert not opening.done()
    pipe = os.open(path, os.O_RDWR)
    os.write(pipe, b"time,value\n1,2\n")
    async with asyncio.timeout(20), await opening:
        assert await anext(source.batches()) == [Reading("pipe", 1.0, 2.0)]  # type: ignore[arg-type]
    os.close(pipe)
