"""What `chimera watch` says of readings: as lines, as JSON, as a table; and how it ends."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.anomaly.sources.source import Readings, Source
from chimera.anomaly.views import EngineStatus, MetricView
from chimera.cli.main import app
from chimera.cli.watch import recorder as recording
from chimera.cli.watch import run, tell
from chimera.cli.watch.board import LAST, NEWS, Board
from chimera.cli.watch.options import Options
from chimera.cli.watch.recorder import Recorder
from chimera.cli.watch.watcher import Told, highest, rounds
from chimera.core.clock import SystemClock
from chimera.core.watching import Alert, AnomalyDetected, AnomalyKind, Evidence, FailurePredicted, Reading

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\r\n[bold]x[/] :smile: " + "宽" * 40

NOW = 1_700_000_000.0


def anomaly(metric: str = "cpu", at: float = NOW, **fields: Any) -> AnomalyDetected:
    evidence = (Evidence(channel="up", score=5.0, distance=12.3, unit="spreads", since=at - 60),)
    known = {"value": 93.1, "kind": AnomalyKind.SPIKE, "score": 7.5, "since": at - 60, "expected": 41.2}
    return AnomalyDetected(**{"metric": metric, "timestamp": at, "evidence": evidence, **known, **fields})


def failure(metric: str = "disk", at: float = NOW, **fields: Any) -> FailurePredicted:
    known = {"value": 85.0, "limit": 90.0, "side": "above", "in_s": 420.0, "earliest_s": 300.0, "forecast": 90.2}
    return FailurePredicted(**{"metric": metric, "timestamp": at, **known, **fields})


def view(metric: str, score: float | None = 1.0, at: float = NOW) -> MetricView:
    return MetricView(
        metric=metric, timestamp=at, value=1.5, expected=1.4, low=1.0, high=2.0, score=score, kind=None, alerted=None,
        ready=True, refused=0, missing=0, interval_s=10.0,
    )  # fmt: skip


def status(**fields: Any) -> EngineStatus:
    known: dict[str, Any] = dict.fromkeys(EngineStatus.model_fields, 0)
    return EngineStatus(**known | {"refused": {}, "failed": {}} | fields)


def test_every_alert_has_the_same_first_fields() -> None:
    first = ["metric", "timestamp", "value", "kind", "score"]
    told = [tell.document(anomaly(), 7.5), tell.document(failure(latest_s=None), 0.4)]
    assert [list(each)[:5] for each in told] == [first, first]
    assert [(each["kind"], each["score"]) for each in told] == [("spike", 7.5), ("failure", 0.4)]
    assert told[0]["evidence"][0]["channel"] == "up" and told[0]["expected"] == 41.2
    assert told[1]["limit"] == 90.0 and told[1]["latest_s"] is None
    for each in told:
        assert json.loads(json.dumps(each, allow_nan=False)) == each


def test_a_line_says_when_what_which_and_why() -> None:
    assert tell.log_line(anomaly()) == (
        "2023-11-14T22:13:20Z  spike    cpu  93.1, expected 41.2, score 7.5, for 60 s (up 12.3 spreads)"
    )
    worse = tell.log_line(anomaly(at=12.0, since=12.0, escalated=True, evidence=()))
    assert worse == "12  spike    cpu  93.1, expected 41.2, score 7.5, worse than before"
    assert tell.log_line(failure(latest_s=720.0)).endswith("failure  disk  85, over 90 in 7 min (5 min to 12 min)")
    assert tell.log_line(failure(side="below")).endswith("under 90 in 7 min (5 min or never)")


@pytest.mark.parametrize("alert", [anomaly(HOSTILE), failure(HOSTILE)])
def test_nothing_in_a_name_is_obeyed(alert: Alert) -> None:
    line = tell.log_line(alert)
    assert "\n" not in line and line.isprintable() and "\\x1b" in line
    out = json.dumps(tell.document(alert, 0.0))
    assert out.isascii() and json.loads(out)["metric"] == HOSTILE


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, ""), (float("inf"), ""), (0.0, "0"), (-0.25, "-0.25"), (123.456, "123.5"), (123456.7, "123,457"),
     (1e6, "1,000,000"), (1e7, "1e+07"), (1.2e-5, "1.2e-05"), (-1e308, "-1e+308"), (9999.96, "10,000")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, said: str) -> None:
    assert tell.number(value) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.25, "0.2 s"), (119, "119 s"), (120, "2 min"), (5_400, "90 min"), (7_200, "2 h")]
)
def test_spans_have_the_unit_that_suits(seconds: float, said: str) -> None:
    assert tell.span(seconds) == said


def test_a_time_that_is_none_is_a_number() -> None:
    assert [tell.moment(at) for at in (0.0, 1e8, 1e12)] == ["0", "1973-03-03T09:46:40Z", "1e+12"]


@given(st.lists(st.sampled_from("abcde"), max_size=60))
def test_rounds_keep_every_reading_in_its_order(names: list[str]) -> None:
    readings = [Reading(name, float(at), 0.0) for at, name in enumerate(names)]
    parts = rounds(readings)
    assert len(parts) == max(Counter(names).values(), default=0)
    for part in parts:
        assert len({reading.metric for reading in part}) == len(part)
    for name in "abcde":
        assert [r for part in parts for r in part if r.metric == name] == [r for r in readings if r.metric == name]


def test_the_highest_scores_come_first_and_none_comes_last() -> None:
    views = [view("a", None), view("b", 1.0), view("c", 9.0), view("d", 1.0)]
    assert [each.metric for each in highest(views, 9)] == ["c", "b", "d", "a"]
    assert [each.metric for each in highest(views, 2)] == ["c", "b"]


def drawn(board: Board, top: list[MetricView], metrics: int = 0, width: int = 160) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, highlight=False, emoji=False)
    told = status(metrics=metrics or len(top), readings=1_000, refused={})
    console.print(board.frame(told, top, {"value": 2, HOSTILE: 1}, width=width, elapsed_s=10.0))
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).split("\n")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_obeys_no_name_and_fits(width: int) -> None:
    board = Board(HOSTILE)
    for alert in (anomaly(HOSTILE), failure(HOSTILE)):
        board.note(alert)
    lines = drawn(board, [view(HOSTILE), view("cpu")], width=width)
    assert all(line.isprintable() and cell_len(line) <= width for line in lines)
    assert len(lines) <= 9


def test_the_table_shows_what_is_going_on_and_forgets_what_is_over() -> None:
    board = Board("prometheus:http://x:9090")
    board.note(anomaly("cpu", kind=AnomalyKind.TREND))
    board.note(failure("disk"))
    text = "\n".join(drawn(board, [view("cpu", 7.5), view("disk", 0.2)], metrics=40, width=260))
    assert re.search(r"cpu +1.5 +1.4 +1 to 2 +7.5 +trend +22:12:20Z", text)
    assert re.search(r"disk .* over 90 in 7 min", text) and "and 38 more" in text and "2 value" in text
    later = NOW + (NEWS + 1) * 10.0
    text = "\n".join(drawn(board, [view("cpu", 0.1, later), view("disk", 0.2, later)])[:-3])
    assert "trend" not in text.split("score")[1].split("\n2023")[0] and "over 90 in" not in text.split("\n2023")[0]


def test_only_the_last_alerts_stand_below_the_table() -> None:
    board = Board("x")
    for at in range(20):
        board.note(anomaly(f"m{at}"))
    shown = [line for line in drawn(board, []) if "spike" in line]
    assert [line.split()[2] for line in shown] == [f"m{at}" for at in range(20 - LAST, 20)]
    assert board.rows(height=24) + LAST + 4 <= 24 and board.rows(height=3) == 1


class Script:
    """A source and a watcher of it at once: what is in the script happens, and then nothing more does."""

    name = "script"

    def __init__(self, *steps: Alert | Exception | Callable[[], None], ends: bool = False) -> None:
        self.refused = {"line": 2}
        self.left = False
        self._steps = steps
        self._ends = ends

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def batches(self) -> AsyncIterator[Readings]:
        for _ in ():
            yield []

    async def alerts(self, source: Source) -> AsyncGenerator[list[Told], None]:
        try:
            for step in self._steps:
                if isinstance(step, Exception):
                    raise step
                if callable(step):
                    step()
                else:
                    yield [Told(step, 3.0)]
                await asyncio.sleep(0)
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            self.left = True

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
        watch = run.Watch(script, script, out=out, as_json=as_json, ending=ending, clock=SystemClock())
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
        "script: 1,200 readings of 1 metric; 1 anomaly (1 spike); 1 failure warning; refused: 2 line, 1 value"
    )


def test_a_terminal_has_a_table_and_gets_its_screen_back() -> None:
    script, out = Script(anomaly(), sends(signal.SIGTERM)), Terminal()
    watched(script, out)
    text = out.getvalue()
    assert "\x1b[?1049h" in text and text.index("\x1b[?1049l") < text.rindex("cpu")
    assert script.left and "spike" not in text.partition("\x1b[?1049h")[0]


def test_json_goes_to_a_terminal_too() -> None:
    out = Terminal()
    watched(Script(anomaly(), failure(), ends=True), out, as_json=True)
    assert [json.loads(line)["kind"] for line in out.getvalue().splitlines()] == ["spike", "failure"]
    assert [json.loads(line)["score"] for line in out.getvalue().splitlines()] == [7.5, 3.0]


def test_who_hangs_is_left_when_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 1_000.0)
    script = Script(sends(signal.SIGINT), lambda: None, sends(signal.SIGINT))
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
        (["prometheus:http://127.0.0.1:9"], "PromQL"),
        (["x.csv", "--interval", "-1"], "interval_s"),
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
