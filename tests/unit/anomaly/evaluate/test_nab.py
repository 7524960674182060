"""Reading NAB's layout, and refusing what is not that."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from chimera.anomaly.evaluate import Window, load_nab
from chimera.core.errors import SourceError

DATA = Path(__file__).parents[3] / "data" / "nab"


def folder(
    path: Path, *, rows: str = "", windows: object = None, instants: object = None, name: str = "g/a.csv"
) -> Path:
    (path / "labels").mkdir(parents=True)
    (path / "data" / "g").mkdir(parents=True)
    (path / "data" / "g" / "a.csv").write_text("timestamp,value\n" + rows)
    (path / "labels" / "combined_windows.json").write_text(json.dumps({name: windows or []}))
    (path / "labels" / "combined_labels.json").write_text(json.dumps({name: instants or []}))
    return path


ROWS = "".join(f"2020-01-01 00:{minute:02}:00,{minute / 2}\n" for minute in range(40))


def test_files_come_by_name_with_their_windows() -> None:
    series = load_nab(DATA)
    assert [each.name.partition("/")[2] for each in series] == [
        "art_increase_spike_density.csv",
        "exchange-2_cpc_results.csv",
        "exchange-3_cpm_results.csv",
        "exchange-4_cpm_results.csv",
    ]
    assert [len(each.values) for each in series] == [4_032, 1_624, 1_538, 1_643]
    exchange = series[1]
    assert (exchange.group, exchange.probation) == ("realAdExchange", 243)
    assert exchange.timestamps[0] == 1_309_478_401.0  # 2011-07-01 00:00:01 UTC
    assert exchange.values[0] == 0.0819647355164
    (window,) = exchange.windows
    # hourly, from 07-11 04:00 to 07-17 22:00, and the label at 07-14 13:00
    assert (window.last - window.first, window.instant - window.first) == (162, 81)
    assert [len(each.windows) for each in series] == [1, 1, 1, 4]


def test_timestamps_are_utc_wherever_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        first = load_nab(DATA)[1].timestamps[0]
    time.tzset()
    assert first == 1_309_478_401.0


def test_groups_can_be_picked() -> None:
    assert {each.group for each in load_nab(DATA, {"artificialWithAnomaly"})} == {"artificialWithAnomaly"}
    with pytest.raises(SourceError, match="labels no series of nothing"):
        load_nab(DATA, {"nothing"})


def test_windows_are_points_and_a_label_beside_them_is_their_start(tmp_path: Path) -> None:
    windows = [["2020-01-01 00:10:00", "2020-01-01 00:20:00.000000"], ["2020-01-01 00:30:00", "2020-01-02 00:00:00"]]
    (series,) = load_nab(folder(tmp_path, rows=ROWS, windows=windows, instants=["2020-01-01 00:12:30"]))
    assert series.windows == (Window(10, 20, 13), Window(30, 39, 30))


@pytest.mark.parametrize(
    ("rows", "windows", "match"),
    [
        ("", None, "holds no points"),
        ("2020-01-01 00:00:00,high\n", None, "is no CSV with timestamp and value, at its start"),
        ("2020-01-01 00:00:00,1\nsoon,2\n", None, "after 1 points"),
        ("2020-01-01 00:00:00\n", None, "is no CSV"),
        (ROWS, [["2020-01-01 00:10:00"]], "pairs of timestamps"),
        (ROWS, [["then", "now"]], "pairs of timestamps"),
        (ROWS, [7], "pairs of timestamps"),
    ],
)
def test_what_is_no_series_is_refused(tmp_path: Path, rows: str, windows: object, match: str) -> None:
    with pytest.raises(SourceError, match=match):
        load_nab(folder(tmp_path, rows=rows, windows=windows))


@pytest.mark.parametrize("name", ["../labels/combined_labels.json", "/etc/passwd"])
def test_labels_cannot_name_a_file_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="lies outside"):
        load_nab(folder(tmp_path, rows=ROWS, name=name))


def test_missing_and_broken_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        load_nab(tmp_path)
    path = folder(tmp_path / "broken", rows=ROWS)
    (path / "labels" / "combined_windows.json").write_text("[]")
    with pytest.raises(SourceError, match="must map each file to a list"):
        load_nab(path)
    (path / "labels" / "combined_windows.json").write_text("{")
    with pytest.raises(SourceError, match="cannot be read"):
        load_nab(path)
    (path / "labels" / "combined_windows.json").write_text('{"g/b.csv": []}')
    with pytest.raises(SourceError, match="is no CSV"):
        load_nab(path)
