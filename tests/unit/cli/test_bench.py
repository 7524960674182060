"""What a benchmark is told to do. Running one is for tests/acceptance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chimera.cli.bench import WARM_ROLE, Plan, _task
from chimera.cli.main import app


def test_what_is_not_given_is_as_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Plan().settings(tmp_path).journal == f"sqlite:///{tmp_path}/journal.db"
    assert Plan().settings(tmp_path).cells == 0
    monkeypatch.setenv("CHIMERA_JOURNAL_URL", "memory://")
    monkeypatch.setenv("CHIMERA_CELLS", "3")
    settings = Plan().settings(tmp_path)
    assert (settings.journal, settings.cells, settings.address) == ("memory://", 3, "local")
    given = Plan(journal="redis://host/0", cells=0, address="10.0.0.1:6379").settings(tmp_path)
    assert (given.journal, given.cells, given.address) == ("redis://host/0", 0, "10.0.0.1:6379")


def test_agents_that_warm_up_do_not_think_hang_or_dissent() -> None:
    plan = Plan(think_s=1.0, hang=0.5, dissent=0.25, voters=3)
    assert _task(plan, 7).inputs == {"n": 7, "think_s": 1.0, "hang": 0.5, "dissent": 0.25}
    warm = _task(plan, 7, role=WARM_ROLE)
    assert (warm.inputs, warm.replicas) == ({"n": 7}, 1)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--attempt-timeout", "-1", "attempt_timeout_s: input should be greater than 0 (got -1.0)"),
        ("--attempt-timeout", "0", "attempt_timeout_s: input should be greater than 0 (got 0.0)"),
        ("--attempt-timeout", "nan", "attempt_timeout_s: input should be a finite number (got nan)"),
        ("--cells", "100000", "cells: input should be less than or equal to 1024 (got 100000)"),
        ("--cells", "-1", "cells: input should be greater than or equal to 0 (got -1)"),
        ("--think", "inf", "think_s: input should be a finite number (got inf)"),
        ("--rate", "inf", "rate_per_s: input should be a finite number (got inf)"),
    ],
)
def test_a_value_that_cannot_be_is_one_clear_line_before_anything_is_started(
    option: str, value: str, said: str
) -> None:
    done = CliRunner().invoke(app, ["bench", "swarm", option, value, "--json"])
    assert (done.exit_code, done.stderr) == (2, f"error: {said}\n")
    assert json.loads(done.stdout)["error"] == {"kind": "InputError", "message": said}


@pytest.mark.parametrize("command", [["bench", "swarm"], ["run", "q?", "--docs", "docs"], ["top", "--once"]])
def test_settings_that_are_wrong_are_one_clear_line(command: list[str]) -> None:
    done = CliRunner().invoke(app, command, env={"CHIMERA_CELLS": "x", "CHIMERA_STALL_S": "0"})
    cells = "CHIMERA_CELLS: input should be a valid integer, unable to parse string as an integer (got 'x')"
    stall = "CHIMERA_STALL_S: input should be greater than 0 (got '0')"
    assert (done.exit_code, done.stderr) == (2, f"error: {cells}; {stall}\n")
