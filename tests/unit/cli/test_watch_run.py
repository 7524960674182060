"""How `chimera watch` runs and ends: what it takes in is judged, what it cannot do is said."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Self

import pytest
from typer.testing import CliRunner

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.forecast.warning import parse_limit
from chimera.anomaly.sources.push import PushSource
from chimera.anomaly.sources.source import Readings, Source
from chimera.anomaly.views import EngineStatus, MetricView
from chimera.cli.main import app
from chimera.cli.watch import recorder as recording
from chimera.cli.watch import run
from chimera.cli.watch.feed import feed
from chimera.cli.watch.options import Options
from chimera.cli.watch.recorder import Recorder
from chimera.cli.watch.watcher import InProcess, Told
from chimera.core.clock import SystemClock
from chimera.core.watching import Alert, AnomalyDetected, Reading
from chimera.system.local_watch import KnowsFacts
from tests.unit.cli.watched import HOSTILE, NOW, anomaly, failure, status, view


class Script(Source):
    """A source and a watcher of it at once: what is in the script happens, and then nothing more does."""

    name = "script"

    def __init__(self, *steps: Alert | Exception | Callable[[], None], ends: bool = False, hangs: bool = False) -> None:
        self.refused = {"line": 2}
        self.left = False
        self._steps = steps
        self._ends = ends
        self._hangs = hangs
        self._finished = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    def finish(self) -> None:
        self._finished.set()

    async def batches(self) -> AsyncIterator[Readings]:
        if not self._ends:
            await (asyncio.Event() if self._hangs else self._finished).wait()
        for _ in ():
            yield []

    async def alerts(self, source: Source) -> AsyncGenerator[list[Told], None]:
        try:
            async with source:
                for step in self._steps:
                    if isinstance(step, Exception):
                        raise step
                    if callable(step):
                        step()
                    else:
                        yield [Told(step, 3.0)]
                    await asyncio.sleep(0)
                async for _ in source.batches():
                    pass
        finally:
            self.left = True

    async def names(self) -> list[str]:
        return ["cpu"]

    async def unjudged(self, handed: int) -> int:
        return 0

    async def top(self, rows: int) -> list[MetricView]:
        return [view("cpu")]

    async def status(self) -> EngineStatus:
        return status(readings=1_200, metrics=1, refused={"value": 1})


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _a_good_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"}.items():
        monkeypatch.setenv(name, value)


def watched(script: Script, out: io.StringIO, *, as_json: bool = False, alone: bool = False) -> str:
    """Watch the script to its end; returns the summary."""

    async def go() -> str:
        ending = run.Ending()
        if not alone:
            ending.heed_signals()
        limits = {text: parse_limit(text) for text in ("cpu=90", "cqu=90")}
        watch = run.Watch(script, script, out=out, as_json=as_json, ending=ending, clock=SystemClock(), limits=limits)
        await watch.run()
        return await watch.sum_up()

    return asyncio.run(go())


def sends(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_watch_in_good_order(number: signal.Signals) -> None:
    script, out = Script(anomaly(), failure(), sends(number)), io.StringIO()
    told = watched(script, out)
    assert script.left and [line.split()[1] for line in out.getvalue().splitlines()] == ["spike", "failure"]
    assert told == (
        "script: 1,200 readings of 1 metric; 1 anomaly (1 spike); 1 failure warning; refused: 2 line, 1 value; "
        "limit 'cqu=90' covered no metric"
    )


def test_a_terminal_has_a_table_and_gets_its_screen_back() -> None:
    script, out = Script(anomaly(), sends(signal.SIGTERM)), Terminal()
    watched(script, out)
    text = out.getvalue()
    assert "\x1b[?1049h" in text and text.index("\x1b[?1049l") < text.rindex("cpu")
    assert "limit 'cqu=90' covered no metric" in text and "'cpu=90'" not in text
    assert script.left and "spike" not in text.partition("\x1b[?1049h")[0]


def test_json_goes_to_a_terminal_too() -> None:
    out = Terminal()
    watched(Script(anomaly(), failure(), ends=True), out, as_json=True)
    assert [json.loads(line)["kind"] for line in out.getvalue().splitlines()] == ["spike", "failure"]
    assert [json.loads(line)["score"] for line in out.getvalue().splitlines()] == [7.5, 3.0]


def test_who_hangs_is_left_when_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 1_000.0)
    script = Script(sends(signal.SIGINT), lambda: None, sends(signal.SIGINT), hangs=True)
    watched(script, io.StringIO())
    assert script.left


def test_a_reader_that_has_had_enough_ends_the_watch(tmp_path: Path) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return spare.fileno()

    with (tmp_path / "spare").open("w") as spare:
        script = Script(anomaly(), lambda: None)
        watched(script, Closed(), alone=True)
    assert script.left


def test_the_first_refusal_is_told_where_the_source_says_it() -> None:
    class Complaining(Script):
        complaint = f'line 17, column cpu: "{HOSTILE}" is not a number'

    told = watched(Complaining(ends=True), io.StringIO())
    assert 'refused: 2 line, 1 value (first: line 17, column cpu: "\\x1b' in told and told.isprintable()


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_a_source_that_listens_says_where_before_anything_else(
    out: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    script = Script(lambda: said.append(capsys.readouterr().err), ends=True)
    script.address = "http://127.0.0.1:4318/v1/metrics"
    watched(script, out)
    assert said == ["listening at http://127.0.0.1:4318/v1/metrics\n"]


BURST = 30_000


async def burst(watcher: InProcess, until: Callable[[int], bool]) -> str:
    """Push readings, and ask for the end at once. `until` says, after how many of them there is no more time."""
    source, ending = PushSource(), run.Ending()
    watch = run.Watch(source, watcher, out=io.StringIO(), as_json=True, ending=ending, clock=SystemClock())
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    await source.push(Reading(f"m{at % 60}", NOW + at // 60, at * 37 % 11) for at in range(BURST))
    ending.ask()
    while not watching.done():
        if until((await watcher.status()).readings):
            ending.ask()
        await asyncio.sleep(0)
    watching.result()
    return await watch.sum_up()


def test_what_was_taken_in_before_the_end_is_judged_wholly() -> None:
    told = asyncio.run(burst(InProcess(AnomalyDetectionEngine()), lambda judged: False))
    assert told.startswith("push: 30,000 readings of 60 metrics") and told.endswith("refused: none")


def test_what_there_is_no_time_to_judge_is_counted() -> None:
    told = asyncio.run(burst(InProcess(AnomalyDetectionEngine()), lambda judged: judged >= 600))
    [judged, unread] = [int(found.replace(",", "")) for found in re.findall(r"([\d,]+) (?:readings|unread)", told)]
    assert 600 <= judged < BURST and judged + unread == BURST


def test_facts_are_known_to_who_is_fed() -> None:
    class Knowing(Script):
        def facts(self) -> list[AnomalyDetected]:
            return [anomaly()]

        def echoes(self, fact: AnomalyDetected) -> list[str]:
            return [fact.metric]

    fed = feed(Knowing(), lambda: None)
    assert isinstance(fed, KnowsFacts) and fed.echoes(fed.facts()[0]) == ["cpu"]
    assert not isinstance(feed(Script(), lambda: None), KnowsFacts)


@pytest.fixture
def spiky(tmp_path: Path) -> Path:
    """A file with a spike that nobody can miss, in the last of its 500 rows but 20."""
    load = [(at * 37 % 11) / 10 + (500 if 478 <= at <= 480 else 0) for at in range(500)]
    rows = [f"{NOW + 10 * at},{value},{at % 5}" for at, value in enumerate(load)]
    path = tmp_path / "spiky.csv"
    path.write_text("timestamp,load,noise\n" + "\n".join(rows) + "\n")
    return path


def chimera(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["watch", *arguments])


def test_a_file_is_read_to_its_end_and_every_alert_is_an_object(spiky: Path) -> None:
    done = chimera(str(spiky), "--json")
    assert done.exit_code == 0
    [found] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (found["metric"], found["kind"]) == ("load", "spike")
    assert NOW + 4_780 <= found["timestamp"] <= NOW + 4_900
    assert done.stderr.endswith("1,000 readings of 2 metrics; 1 anomaly (1 spike); 0 failure warnings; refused: none\n")


def test_a_limit_that_covered_no_metric_is_named(spiky: Path) -> None:
    limits = ("load=900", "laod=900", "*oise>9", "cpu*<5")
    done = chimera(str(spiky), *(word for limit in limits for word in ("--limit", limit)))
    assert done.stderr.endswith("refused: none; limit 'laod=900' covered no metric; limit 'cpu*<5' covered no metric\n")


def test_only_the_metrics_that_are_asked_for_are_watched(spiky: Path) -> None:
    done = chimera(str(spiky), "--metric", "noi*")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "500 readings of 1 metric; 0 anomalies; 0 failure warnings" in done.stderr


def test_a_metric_on_its_way_to_its_limit_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "disk.csv"
    values = [50 + 0.9 * (at * 37 % 11) + 0.3 * max(0, at - 300) for at in range(430)]
    path.write_text("time,disk\n" + "".join(f"{NOW + 10 * at},{value}\n" for at, value in enumerate(values)))
    done = chimera(str(path), "--limit", "disk=90", "--json")
    failures = [each for line in done.stdout.splitlines() if (each := json.loads(line))["kind"] == "failure"]
    assert failures and failures[0]["limit"] == 90.0 and failures[0]["score"] >= 0.0
    assert 0.0 < failures[0]["in_s"] <= 600.0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name one source to watch, or --ray"),
        (["no-such.csv"], "No such file"),
        (["nonsense"], "is no source of readings"),
        (["x.csv", "--ray"], "--ray instead of x.csv"),
        (["x.csv", "--limit", "m"], "is no limit"),
        (["x.csv", "--query", "up"], "--query is for"),
        (["prometheus:http://127.0.0.1:9"], "--query"),
        (["scrape:http://127.0.0.1:9/metrics", "--interval", "-1"], "interval_s"),
        (["x.csv", "--interval", "5"], "--interval is for prometheus:, scrape:, statsd:, --ray, and means nothing to"),
        (["http:127.0.0.1:0", "--interval", "5"], "means nothing to http"),
        (["x.csv", "--history", "0"], "--history is for prometheus:"),
        (["statsd:127.0.0.1:0", "--token-env", "HOME"], "--token-env is for prometheus:, scrape:, otlp:, http:"),
        (["--ray", "--token-env", "HOME"], "means nothing to --ray"),
        (["-", "--address", "auto"], "--address is of Ray"),
        (["x.csv", "--for", "nan"], "--for takes seconds"),
        (["x.csv", "--detector", "clairvoyant"], "no detector is called 'clairvoyant'"),
        (["x.csv", "--plot", "x.jpg"], "does not end in .png"),
        (["x.csv", "--plot", "no/such/x.png"], "there is no folder"),
        (["x.csv", "--plot", "x.png", "--shards", "2"], "leave out --shards"),
    ],
)
def test_bad_input_is_told_and_is_exit_code_2(arguments: list[str], said: str) -> None:
    done = chimera(*arguments)
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and said in done.stderr and "Traceback" not in done.stderr


def test_a_file_without_readings_is_bad_input_and_a_server_out_of_reach_a_fault(tmp_path: Path) -> None:
    (tmp_path / "prose.csv").write_text("Once upon a time\nthere was no table\n")
    assert chimera(str(tmp_path / "prose.csv")).exit_code == 2
    assert chimera("prometheus:http://127.0.0.1:9", "--query", "up").exit_code == 3


def test_no_picture_is_overwritten(spiky: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"mine")
    done = chimera(str(spiky), "--plot", str(tmp_path / "mine.png"))
    assert done.exit_code == 2 and (tmp_path / "mine.png").read_bytes() == b"mine"


def test_a_watch_can_be_drawn(spiky: Path, tmp_path: Path) -> None:
    done = chimera(str(spiky), "--limit", "load=900", "--plot", str(tmp_path / "a.png"))
    assert done.exit_code == 0 and (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def recorded(readings: list[Reading]) -> Iterator[Any]:
    async def go() -> Recorder:
        engine = AnomalyDetectionEngine()
        kept = Recorder(engine)
        for each in readings:
            kept.note([each], await engine.push([each]))
        return kept

    yield from asyncio.run(go()).traces()


def test_what_was_refused_is_not_drawn_and_a_gap_is() -> None:
    values = [(1.0, 5.0), (2.0, 6.0), (2.0, 7.0), (1.5, 8.0), (3.0, float("nan")), (4.0, 9.0), (5.0, float("inf"))]
    [trace] = recorded([Reading("m", NOW + at, value) for at, value in values])
    assert (trace.timestamps - NOW).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert trace.values.tolist()[:2] == [5.0, 6.0] and trace.values[2] != trace.values[2] and trace.values[3] == 9.0


def test_a_recording_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_POINTS", 10)
    monkeypatch.setattr(recording, "MAX_METRICS", 3)
    traces = list(recorded([Reading(f"m{at % 5}", NOW + at, at) for at in range(200)]))
    assert [trace.metric for trace in traces] == ["m0", "m1", "m2"]
    assert all(5 <= len(trace.values) <= 10 and trace.values[-1] >= 195 for trace in traces)


def test_options_say_what_they_need() -> None:
    assert not Options(source="x.csv").needs_ray
    assert Options(source="x.csv", shards=2).needs_ray and Options(source=None, on_ray=True).needs_ray


def test_without_a_terminal_nothing_is_drawn() -> None:
    with redirect_stdout(io.StringIO()) as out:
        assert run.execute(Options(source="no-such.csv")) == 2
    assert out.getvalue() == ""
