"""The benchmark beside others: its quick run, a rival that is not installed, and that nobody looks ahead."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.anomaly import __main__ as bench
from bench.anomaly import detectors, forecasters
from chimera.anomaly.evaluate import make_synthetic, run


def test_a_quick_run_prints_a_row_for_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--only", "robust,gaussian,naive"])
    bench.main()
    text = capsys.readouterr().out
    for start in ("robust z  ", "windowed Gaussian  ", "naive  ", "robust z: last 500 points, over 6"):
        assert sum(line.startswith(start) for line in text.splitlines()) == 1


def test_json_has_the_whole_reports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--only", "robust,naive", "--json"])
    bench.main()
    said = json.loads(capsys.readouterr().out)
    (robust,), (naive,) = said["detectors"], said["forecasters"]
    assert robust["report"]["parts"]["synthetic/spike"]["f1"] == 1.0
    assert naive["scores"]["relative_mae"] == pytest.approx(1.0) and naive["warnings"]["missed"] == 1


def test_a_rival_that_is_not_installed_has_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "river", None)
    monkeypatch.setitem(sys.modules, "statsforecast", None)
    series = make_synthetic(1, 100)[:1]
    rows = [bench.detect(rival, series) for rival in detectors.RIVALS if rival.name.startswith("river")]
    assert len(rows) == 2 and "river.anomaly is not installed" in bench.detection_table(rows)
    told = [bench.predict(rival, series, 1) for rival in forecasters.RIVALS if rival.name.startswith("stats")]
    assert len(told) == 3 and "statsforecast.models is not installed" in bench.forecast_table(told)


def test_a_fault_of_our_own_is_not_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chimera.anomaly.evaluation", None)
    with pytest.raises(ModuleNotFoundError, match=r"chimera\.anomaly\.evaluation"):
        bench.detect(detectors.RIVALS[0], make_synthetic(1, 100)[:1])


@pytest.mark.parametrize("rival", [r for r in detectors.RIVALS if r.name in ("robust z", "windowed Gaussian")])
def test_a_rival_finds_a_spike_in_a_flat_series(rival: detectors.Rival) -> None:
    series = make_synthetic(1, 100)[0]
    trace = run(rival.make(), series)
    for window in series.windows:
        assert trace.alerts[window.first : window.last + 1].any()
    assert (trace.alerts & ~series.inside())[series.probation :].sum() <= 1


def test_a_constant_series_that_moves_is_far_and_stays_finite() -> None:
    trace = run(detectors.robust_z(), made_constant())
    assert trace.scores[500] == detectors.HUGE_Z and trace.scores[499] == 0.0


def made_constant() -> bench.Series:
    values = np.ones(600)
    values[500] = 2.0
    return bench.Series("still", "synthetic", "still", np.arange(600.0), values, (), 100)


def test_the_data_that_it_takes_by_default_is_there() -> None:
    assert (bench.DATA / "labels" / "combined_windows.json").is_file()
    assert sum(file.stat().st_size for file in Path(bench.DATA).rglob("*") if file.is_file()) < 300_000
