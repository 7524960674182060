"""The commands that only read a journal: what they print of strangers' text, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from chimera import Settings
from chimera.cli.missions import execute_cancel, execute_list, execute_resume, execute_show
from chimera.core.events import Event, EventKind
from chimera.storage.journal import open_journal

HOSTILE = "a\x1b]0;owned\x07b\x9b2Jc\u202ed \x7f"

REPLIED = Event(
    mission_id="m",
    seq=1,
    kind=EventKind.REPLY_ACCEPTED,
    at_s=1.0,
    task_id=HOSTILE,
    swarm=HOSTILE,
    data={"value": HOSTILE},
)


def listed(journal: str | None = None) -> int:
    return execute_list(journal, running=False, limit=20, as_json=False)


def keep(events: list[Event]) -> None:
    async def append() -> None:
        journal = open_journal(Settings().journal)
        await journal.append(events)
        await journal.close()

    asyncio.run(append())


@pytest.mark.parametrize("as_json", [True, False])
def test_a_terminal_obeys_nothing_that_stands_in_a_journal(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    keep([REPLIED])
    assert execute_show("m", None, as_json=as_json) == 0
    assert execute_list(None, running=False, limit=20, as_json=as_json) == 0
    printed = capsys.readouterr().out
    assert "owned" in printed
    assert not any(character in printed for character in "\x1b\x07\x9b\x7f\u202e")
    if as_json:
        event, mission = (json.loads(line) for line in printed.splitlines())
        assert Event.model_validate(event) == REPLIED
        assert mission["swarm"] == HOSTILE


def test_a_journal_that_is_not_there_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/new/sub/journal.db"
    codes = [listed(url), execute_show("m", url, as_json=False), execute_resume("m", None, url, as_json=False)]
    monkeypatch.setenv("CHIMERA_JOURNAL_URL", url)
    assert [*codes, listed()] == [2, 2, 2, 2]
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("there is no journal (No such file or directory): check its path\n") == 4
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_has_ever_been_run_there_are_no_missions(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed() == 0
    assert execute_show("m", None, as_json=False) == 2
    assert capsys.readouterr().err.splitlines() == [
        "no missions in this journal",
        "error: no mission 'm' in this journal: `chimera missions list` names those there are",
    ]
    assert not home.exists()


@pytest.mark.parametrize("name", ["folder", "text", "other.db", "text/journal.db"])
def test_a_file_that_is_no_journal_is_bad_input(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database, and long enough to be told from one\n" * 100)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE recipes (name)")
    assert listed(f"sqlite:///{tmp_path / name}") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / name}")


def test_a_server_that_does_not_answer_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed("redis://127.0.0.1:1/0") == 3
    assert "out of reach" in capsys.readouterr().err


def test_settings_that_are_wrong_are_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHIMERA_CELLS", "x")
    codes = [
        listed(),
        execute_show("m", None, as_json=False),
        execute_resume("m", None, None, as_json=False),
        execute_cancel("m", None, None, as_json=False),
    ]
    assert codes == [2, 2, 2, 2]
    line = "error: CHIMERA_CELLS: input should be a valid integer, unable to parse string as an integer (got 'x')"
    assert capsys.readouterr().err.splitlines() == [line] * 4
