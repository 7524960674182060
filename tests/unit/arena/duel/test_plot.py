"""The picture of a duel: what is drawn, that it is a picture, and what happens where none can be made."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from chimera.arena.duel.plot import MAX_POINTS, curves, plot_duel
from chimera.arena.duel.rules import make_rule
from chimera.arena.duel.types import Outcome
from chimera.core.errors import InputError, MissingExtra

HISTORY: list[Outcome] = ["win", "tie", "loss", "win", "win", "tie"]


def test_the_curves_are_the_rules_own() -> None:
    rule = make_rule("wilson", p0=0.51, budget=12)
    drawn = curves(HISTORY, rule)
    decisive = [0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10]  # after each sample; from the last one on, without ties
    wins = [0, 1, 1, 1, 2, 3, 3]
    assert drawn.samples.tolist() == list(range(7))
    for at in range(7):
        assert (drawn.low[at], drawn.high[at]) == rule.interval(wins[at], decisive[at])
    assert np.isnan(drawn.rate[0])
    assert drawn.rate[1:].tolist() == [1.0, 1.0, 1 / 2, 2 / 3, 3 / 4, 3 / 4]
    for at, n in enumerate(decisive):
        stops = [count / n for count in range(n + 1) if n and rule.decide(count, n) == "contender"]
        holds = [count / n for count in range(n + 1) if n and rule.decide(count, n) == "champion"]
        assert drawn.contender[at] == min(stops) if stops else np.isnan(drawn.contender[at])
        assert drawn.champion[at] == max(holds) if holds else np.isnan(drawn.champion[at])
    assert np.isfinite(drawn.contender).any()
    assert np.isfinite(drawn.champion).any()


def test_a_long_duel_is_thinned_out_to_its_last_sample() -> None:
    history: list[Outcome] = ["win", "loss", "tie"] * 1_500
    drawn = curves(history, make_rule("wilson", p0=0.51, budget=5_000))
    assert len(drawn.samples) <= MAX_POINTS + 1
    assert (drawn.samples[0], drawn.samples[-1]) == (0, 4_500)
    assert drawn.rate[-1] == 0.5


@pytest.mark.parametrize("history", [[], HISTORY])
def test_a_picture_is_a_png(tmp_path: Path, history: list[Outcome]) -> None:
    import matplotlib.image

    path = tmp_path / "duel.png"
    plot_duel(history, make_rule("mixture", p0=0.51, budget=30), path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[:2] == (600, 1080)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    rule = make_rule("wilson", p0=0.51, budget=30)
    for path in (tmp_path / "no" / "duel.png", tmp_path):
        with pytest.raises(InputError, match=f"cannot be written to {path}"):
            plot_duel(HISTORY, rule, path)


def test_more_outcomes_than_the_budget_are_refused() -> None:
    with pytest.raises(InputError, match="a duel of 5 samples"):
        curves(HISTORY, make_rule("wilson", p0=0.51, budget=5))


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra) as error:
        plot_duel(HISTORY, make_rule("wilson", p0=0.51, budget=30), tmp_path / "duel.png")
    assert (error.value.package, error.value.extra) == ("matplotlib", "arena")
    assert not list(tmp_path.iterdir())
