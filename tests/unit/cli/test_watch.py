"""What `chimera watch` says of readings: as lines, as JSON, as a table."""

from __future__ import annotations

import io
import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from chimera.anomaly.forecast.warning import parse_limit
from chimera.anomaly.views import MetricView
from chimera.cli.watch import tell
from chimera.cli.watch.board import LAST, NEWS, Board
from chimera.cli.watch.coverage import NAMED, Coverage
from chimera.cli.watch.watcher import highest, rounds
from chimera.core.watching import Alert, AnomalyKind, Reading
from tests.unit.cli.watched import HOSTILE, NOW, anomaly, failure, status, view


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


def test_a_limit_that_no_metric_has_is_named_beside_the_table() -> None:
    console = Console(file=io.StringIO(), width=120)
    coverage = Coverage({"cpu=90": parse_limit("cpu=90")})
    console.print(Board("x").frame(status(), [], {}, width=120, elapsed_s=1.0, remarks=coverage.remarks()))
    assert isinstance(console.file, io.StringIO) and "limit 'cpu=90' covered no metric" in console.file.getvalue()


@given(st.lists(st.sampled_from(["a=1", "b<2", "a*=3", "*=4", "x*y>5", "ab=6"]), unique=True), st.sets(st.text("abxy")))
def test_a_limit_is_left_if_it_covers_none_of_the_metrics(texts: list[str], metrics: set[str]) -> None:
    limits = {text: parse_limit(text) for text in texts}
    coverage = Coverage(limits)
    for name in metrics:
        coverage.see([name])
    left = [text for text, limit in limits.items() if not any(limit.covers(name) for name in metrics)]
    assert bool(coverage) == bool(left)
    assert coverage.remarks()[:NAMED] == [f"limit '{text}' covered no metric" for text in left[:NAMED]]
    assert len(coverage.remarks()) == min(len(left), NAMED + 1)
