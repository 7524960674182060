"""The steps of a node from its log: the last ones, and no more; what is none is counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chimera.cli.heart_log import MAX_LINE_BYTES, execute, read_steps
from chimera.core.errors import InputError
from chimera.system.heart import HeartEvent


def step(number: int) -> str:
    return HeartEvent(at_s=1e9 + number, step="noticed", subject="till", detail=f"n{number}").model_dump_json() + "\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "heart.jsonl"
    path.write_text("".join(step(number) for number in range(10)))
    return path


def test_the_last_steps_come_the_oldest_first(log: Path) -> None:
    steps, unread = read_steps(log.parent, 3)
    assert [each.detail for each in steps] == ["n7", "n8", "n9"] and unread == 0
    assert len(read_steps(log.parent, 100)[0]) == 10


def test_the_file_before_is_read_too(log: Path) -> None:
    log.rename(log.with_name("heart.1.jsonl"))
    log.write_text(step(10))
    assert [each.detail for each in read_steps(log.parent, 2)[0]] == ["n9", "n10"]


def test_a_line_that_was_cut_off_is_counted(log: Path) -> None:
    log.write_text(log.read_text()[:-20])
    steps, unread = read_steps(log.parent, 3)
    assert [each.detail for each in steps] == ["n7", "n8"] and unread == 1


def test_a_line_without_end_is_not_taken_in_whole(log: Path) -> None:
    log.write_bytes(b"x" * (10 * MAX_LINE_BYTES))
    steps, unread = read_steps(log.parent, 20)
    assert not steps and unread == 10


def test_no_log_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="--home"):
        read_steps(tmp_path, 3)
    assert execute(tmp_path, limit=3, as_json=False) == 2
    assert "--home" in capsys.readouterr().err


def test_people_and_programs_are_told(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(log.parent, limit=2, as_json=True) == 0
    assert [json.loads(line)["detail"] for line in capsys.readouterr().out.splitlines()] == ["n8", "n9"]
    log.write_text(step(1).replace("n1", r"a\u001b[31mb\nc"))
    assert execute(log.parent, limit=2, as_json=False) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("2001-09-09T01:46:41Z") and "noticed" in line and "\x1b" not in line
