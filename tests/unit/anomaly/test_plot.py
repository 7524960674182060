"""The picture of a watch: what is in it, that it does not look ahead, and that it is drawn whatever the data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from chimera.anomaly.forecast.warning import Limit
from chimera.anomaly.plot import BAND_FROM, BANDS, MARKS, MAX_PANELS, Trace, band, plot_watch
from chimera.core.errors import InputError, MissingExtra
from chimera.core.watching import Alert, AnomalyDetected, AnomalyKind, FailurePredicted

NOW = 1_700_000_000.0

POINTS = 200


def trace(values: Any = None, *alerts: Alert, metric: str = "m", start: float = NOW, **columns: Any) -> Trace:
    given = np.random.default_rng(3).normal(5.0, 1.0, POINTS) if values is None else np.asarray(values, np.float64)
    known = {
        "timestamps": start + 10.0 * np.arange(len(given)),
        "expected": np.full(len(given), 5.0),
        "scores": np.zeros(len(given)),
    }
    return Trace(metric=metric, values=given, alerts=alerts, **known | columns)


def alert(kind: AnomalyKind, at: int = 150, **fields: Any) -> AnomalyDetected:
    told = NOW + 10.0 * at
    known = {"value": 5.0, "since": told - 50, "expected": 5.0}
    return AnomalyDetected(metric="m", timestamp=told, kind=kind, score=9.0, **known | fields)


def warning(limit: float = 9.0) -> FailurePredicted:
    return FailurePredicted(
        metric="m",
        timestamp=NOW + 1_000,
        value=5.0,
        limit=limit,
        side="above",
        in_s=300,
        earliest_s=200,
        forecast=limit,
    )


def picture(path: Path, *traces: Trace, limits: tuple[Limit, ...] = ()) -> Any:
    """The pixels below the legend, (rows, columns, 3)."""
    plot_watch(traces, path, limits=limits)
    return imread(path)[45:, :, :3]


def pixels(image: Any, colour: str | tuple[float, float, float]) -> int:
    return int((np.abs(image - np.array(to_rgb(colour))).max(axis=2) < 0.02).sum())


@pytest.mark.parametrize("kind", AnomalyKind)
def test_each_kind_of_anomaly_has_its_own_mark(tmp_path: Path, kind: AnomalyKind) -> None:
    image = picture(tmp_path / "a.png", trace(None, alert(kind)))
    found = {other: pixels(image, MARKS[other][1]) for other in AnomalyKind}
    assert found.pop(kind) >= 10 and set(found.values()) == {0}


def test_the_mark_is_at_the_oddest_reading(tmp_path: Path) -> None:
    def place(name: str, *given: Any, **fields: Any) -> tuple[float, float]:
        image = picture(tmp_path / name, trace(None, alert(AnomalyKind.SPIKE, *given, **fields)))
        marked = np.argwhere(np.abs(image - np.array(to_rgb(MARKS[AnomalyKind.SPIKE][1]))).max(axis=2) < 0.02)
        row, column = marked.mean(axis=0)
        return row, column

    row, column = place("told.png", 150)
    assert place("before.png", 150, peaked=NOW + 1_000.0) == pytest.approx(place("at.png", 100), abs=1.0)
    assert place("before.png", 150, peaked=NOW + 1_000.0)[1] < column - 50
    assert place("higher.png", 150, value=6.5) == (pytest.approx(row - 35, abs=20), pytest.approx(column, abs=1.0))


def test_a_failure_warning_and_its_limit_are_drawn(tmp_path: Path) -> None:
    bare = picture(tmp_path / "a.png", trace())
    limited = picture(tmp_path / "b.png", trace(), limits=(Limit(metric="m", value=9.0), Limit(metric="n", value=6.0)))
    warned = picture(tmp_path / "c.png", trace(None, warning()), limits=(Limit(metric="m", value=9.0),))
    black = [pixels(image, "black") for image in (bare, limited, warned)]
    assert black[0] + 300 < black[1] and black[1] + 20 < black[2]


def test_a_limit_that_is_far_away_does_not_flatten_the_values(tmp_path: Path) -> None:
    far, other = Limit(metric="m", value=1e9), Limit(metric="n", value=1e9)
    images = [picture(tmp_path / f"{at}.png", trace(), limits=(limit,)) for at, limit in enumerate((far, other))]
    assert np.array_equal(*images)


def test_the_band_is_of_the_past_alone() -> None:
    values = np.random.default_rng(5).normal(0.0, 1.0, 400).cumsum()
    places, low, high = band(values)
    assert len(places) <= BANDS and places[0] >= BAND_FROM and places[-1] == 399 and (low <= high).all()
    for cut in (100, 250, 399):
        changed = values.copy()
        changed[cut:] += 1_000.0
        _, low_then, high_then = band(changed)
        before = places <= cut
        assert np.array_equal(low[before], low_then[before]) and np.array_equal(high[before], high_then[before])


def test_the_band_holds_most_of_what_comes() -> None:
    values = np.random.default_rng(7).normal(0.0, 1.0, 600)
    places, low, high = band(values)
    inside = (values[places] >= low) & (values[places] <= high)
    assert 0.8 <= inside[len(inside) // 3 :].mean() <= 0.98


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values",
    [[], [1.0], [np.nan] * 100, [0.0] * 100, [1e300, -1e300] * 60, [5e-324] * 50 + [np.nan] * 50, [3e38] * 100],
)
def test_any_values_can_be_drawn(tmp_path: Path, values: list[float]) -> None:
    picture(tmp_path / "a.png", trace(values, scores=np.full(len(values), np.nan)))


@pytest.mark.parametrize("start", [0.0, NOW, 1e11])
def test_any_time_can_be_drawn(tmp_path: Path, start: float) -> None:
    picture(tmp_path / "a.png", trace(start=start))


@pytest.mark.parametrize("metric", ['m{cpu="$\\frac$"}', "$" * 512, "宽\u202e\x1b[2J"])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_no_name_is_read_as_mathematics(tmp_path: Path, metric: str) -> None:
    picture(tmp_path / "a.png", trace(metric=metric))


def test_twelve_metrics_have_a_panel_each_and_more_are_refused(tmp_path: Path) -> None:
    traces = [trace(np.arange(50.0), metric=f"m{at}") for at in range(MAX_PANELS + 1)]
    one, twelve = picture(tmp_path / "1.png", *traces[:1]), picture(tmp_path / "12.png", *traces[:MAX_PANELS])
    assert twelve.size > 6 * one.size
    for wrong in (traces, []):
        with pytest.raises(InputError, match="--metric"):
            plot_watch(wrong, tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_a_path_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        plot_watch([trace()], tmp_path / "no" / "a.png")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"chimera\[anomaly\]"):
        plot_watch([trace()], tmp_path / "a.png")
