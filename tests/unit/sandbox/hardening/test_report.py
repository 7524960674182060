"""The report's intervals, its table, and its picture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.core.errors import InputError, MissingExtra
from chimera.sandbox.hardening import FalseAlarms, HardenReport, Measured
from chimera.sandbox.hardening.plot import plot_hardening
from chimera.sandbox.threats import ThreatKind


def measured(kind: ThreatKind, strength: float, against: str = "", only_after: int = 60) -> Measured:
    counts = {"batches": 100, "both": 10, "only_before": 5, "only_after": only_after}
    return Measured.model_validate({"kind": kind, "strength": strength, "against": against, **counts})


REPORT = HardenReport(
    detector="marginal",
    rows=64,
    alarms_per_1000=1.0,
    records=(400, 300, 300),
    seed=1,
    measured=(
        measured(ThreatKind.BIASED, 0.1),
        measured(ThreatKind.BIASED, 0.2),
        measured(ThreatKind.EVASIVE, 0.2, "detector"),
        measured(ThreatKind.EVASIVE, 0.2, "hardened"),
    ),
    controls=(measured(ThreatKind.BIASED, 0.0),),
    clean=FalseAlarms(batches=40_000, both=10, only_before=30, only_after=20),
)


@given(
    counts=st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(1, 50)),
)
def test_intervals_hold_what_was_found_and_turn_with_the_sides(counts: tuple[int, int, int, int]) -> None:
    both, before, after, neither = counts
    batches = sum(counts)
    one = FalseAlarms(batches=batches, both=both, only_before=before, only_after=after)
    other = FalseAlarms(batches=batches, both=both, only_before=after, only_after=before)
    assert one.gain_interval[0] <= one.gain_interval[1]
    assert one.gain_interval == pytest.approx(tuple(-bound for bound in reversed(other.gain_interval)))
    assert one.gain == pytest.approx((after - before) / batches)
    assert one.before_interval[0] <= one.before <= one.before_interval[1]
    assert neither >= 1


def test_the_interval_is_that_of_agresti_and_min() -> None:
    row = FalseAlarms(batches=100, both=10, only_before=5, only_after=60)
    assert row.gain_interval == pytest.approx((0.423, 0.655), abs=0.001)  # (55 +- 1.96 sqrt(66 - 55^2 / 102)) / 102


def test_counts_beyond_the_batches_are_refused() -> None:
    with pytest.raises(ValidationError):
        FalseAlarms(batches=10, both=5, only_before=5, only_after=1)


def test_the_table_tells_every_row_and_the_false_alarms() -> None:
    text = REPORT.as_table()
    assert "evasive, against the hardened one" in text
    assert "70.0 [60.4, 78.1]" in text
    assert "1.00" in text.splitlines()[-2]
    assert "-0.25" in text.splitlines()[-2]
    assert max(len(line) for line in text.splitlines()) <= 120


def test_a_report_survives_json() -> None:
    assert HardenReport.model_validate_json(REPORT.model_dump_json()) == REPORT


def test_the_plot_is_a_picture_and_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for ending, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        first, second = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
        plot_hardening(REPORT, first)
        plot_hardening(REPORT, second)
        assert first.read_bytes().startswith(magic)
        assert first.read_bytes() == second.read_bytes()
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        plot_hardening(REPORT, tmp_path / "a.pdf")
    with pytest.raises(InputError, match="cannot be written"):
        plot_hardening(REPORT, tmp_path / "no" / "a.png")


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match="sandbox"):
        plot_hardening(REPORT, tmp_path / "a.png")
