"""What `chimera anomaly forecast` says of a metric of a file, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from chimera.cli.main import app

START, STEP_S = 1_700_000_000, 60


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """200 readings of a line that climbs one a minute, of noise and of a constant; 20 of a metric that is young."""
    rng = np.random.default_rng(5)
    path = tmp_path / "m.csv"
    rows = ["timestamp,climbing,noisy,constant,young"]
    for at in range(200):
        young = f"{at}" if at < 20 else ""
        rows.append(f"{START + STEP_S * at},{at + 0.1 * rng.normal():.4f},{rng.normal():.4f},7,{young}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def forecast(file: Path | str, *options: str) -> Result:
    return CliRunner().invoke(app, ["anomaly", "forecast", str(file), *options])


@pytest.mark.parametrize("method", ["ridge", "arima"])
def test_a_climb_goes_on_in_time(file: Path, method: str) -> None:
    pytest.importorskip("statsmodels")
    done = forecast(file, "--metric", "climbing", "--horizon", "4", "--method", method, "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["metric"], told["method"], told["readings"]) == ("climbing", method, 200)
    assert (told["order"] is None) == (method == "ridge")
    assert (told["timestamp"], told["interval_s"], told["level"]) == (START + 199 * STEP_S, STEP_S, 0.9)
    assert told["value"] == pytest.approx(199, abs=0.5)
    assert [each["timestamp"] for each in told["forecast"]] == [START + STEP_S * (200 + step) for step in range(4)]
    for step, each in enumerate(told["forecast"]):
        assert each["low"] < each["forecast"] < each["high"]
        assert each["forecast"] == pytest.approx(200 + step, abs=0.5)


def test_a_person_gets_a_table_that_names_the_method(file: Path) -> None:
    pytest.importorskip("statsmodels")
    ridge = forecast(file, "--metric", "climbing", "--horizon", "2")
    assert ridge.exit_code == 0, ridge.stderr
    head, titles, *rows = ridge.stdout.splitlines()
    assert head.startswith("climbing after ") and head.endswith("by ridge autoregression from 200 readings")
    assert titles.split() == ["TIME", "FORECAST", "LOW", "HIGH"]
    assert [row.split()[0] for row in rows] == ["2023-11-15T01:33:20Z", "2023-11-15T01:34:20Z"]
    assert float(rows[0].split()[1]) == pytest.approx(200, abs=0.5)
    arima = forecast(file, "--metric", "noisy", "--horizon", "2", "--method", "arima")
    assert "by ARIMA(" in arima.stdout and len(arima.stdout.splitlines()) == 4


def test_what_no_arima_fits_is_said_to_be_forecast_otherwise(file: Path) -> None:
    pytest.importorskip("statsmodels")
    done = forecast(file, "--metric", "constant", "--method", "arima", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["method"], told["order"]) == (0, "ridge", None)
    assert "no ARIMA can be fitted" in done.stderr
    assert [each["forecast"] for each in told["forecast"]] == [7.0] * 10


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("climbin", "has no reading of 'climbin': is it 'climbing'?"),
        ("nois", "is it 'noisy'?"),
        ("zzz", "it has 'climbing', 'noisy', 'constant', 'young'"),
    ],
)
def test_a_name_that_is_wrong_is_answered_with_those_that_come_close(file: Path, metric: str, said: str) -> None:
    done = forecast(file, "--metric", metric)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    told = json.loads(forecast(file, "--metric", metric, "--json").stdout)
    assert told["error"]["kind"] == "InputError" and said in told["error"]["message"]


def test_too_short_a_history_is_refused_by_either_method(file: Path, tmp_path: Path) -> None:
    arima = forecast(file, "--metric", "young", "--method", "arima")
    assert arima.exit_code == 2 and "needs 30 readings, and 'young' has 20" in arima.stderr
    assert forecast(file, "--metric", "young").exit_code == 0
    (tmp_path / "few.csv").write_text("timestamp,m\n" + "".join(f"{START + at},{at}\n" for at in range(11)))
    ridge = forecast(tmp_path / "few.csv", "--metric", "m")
    assert ridge.exit_code == 2 and "needs 12 readings, and 'm' has 11" in ridge.stderr
    assert ridge.stdout == "" and "Traceback" not in ridge.stderr


def test_only_the_last_readings_count_and_what_is_refused_is_told(tmp_path: Path) -> None:
    rows = [f"{START + at},m,{0 if at < 5_000 else 9}" for at in range(9_000)]
    (tmp_path / "long.csv").write_text("\n".join(["timestamp,metric,value", *rows, rows[-2], "no,m,1"]) + "\n")
    done = forecast(tmp_path / "long.csv", "--metric", "m", "--horizon", "1", "--json")
    told = json.loads(done.stdout)
    assert (told["readings"], told["timestamp"], told["forecast"][0]["forecast"]) == (1_000, START + 8_999, 9.0)
    assert done.stderr.count("refused: ") == 2


def test_a_forecast_begins_after_the_last_reading_that_came(tmp_path: Path) -> None:
    rows = [f"{START + at},{at if at < 40 else 'nan'},1" for at in range(50)]
    (tmp_path / "gone.csv").write_text("\n".join(["timestamp,m,other", *rows]) + "\n")
    told = json.loads(forecast(tmp_path / "gone.csv", "--metric", "m", "--json").stdout)
    assert (told["readings"], told["value"], told["forecast"][0]["timestamp"]) == (40, 39.0, START + 40)
    assert told["forecast"][0]["forecast"] == pytest.approx(40, abs=0.1)


def test_a_file_that_cannot_be_read_and_options_that_cannot_be_are_bad_input(file: Path, tmp_path: Path) -> None:
    missing = forecast(tmp_path / "none.csv", "--metric", "m")
    assert missing.exit_code == 2 and "No such file" in missing.stderr
    for wrong in (["--horizon", "0"], ["--horizon", "1001"], ["--method", "magic"]):
        assert forecast(file, "--metric", "noisy", *wrong).exit_code == 2
    assert forecast(file).exit_code == 2


def test_without_statsmodels_the_extra_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.arima.model", None)
    done = forecast(file, "--metric", "noisy", "--method", "arima")
    assert done.exit_code == 2 and "chimera[anomaly]" in done.stderr
    assert forecast(file, "--metric", "noisy").exit_code == 0
