"""`chimera reload` up to the swarm: what it refuses, how it finds a module's file, and what a watch makes of saves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chimera.cli import render
from chimera.cli.main import app
from chimera.cli.reload_run import DONE, Request, Saves, _show, _tell, file_of, find_file
from chimera.core.clock import ManualClock
from chimera.core.errors import ClusterError, InputError, ReloadError, StorageError
from chimera.reload.messages import ModuleStatus, Reloaded, ReloadStatus
from chimera.reload.watcher import Changed

RUN = "raise SystemExit('this was run')\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which Python imports from; what is in it must not be run."""
    folder = tmp_path / "here"
    for path in ("till.py", "shop/__init__.py", "shop/price.py", "shop/deep/__init__.py", "bare/inner/leaf.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(RUN)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to do"),
        (("till", "--watch", "."), "leave till out"),
        (("--status", "--watch", "."), "--status and --watch cannot be had together"),
        (("till", "--roll-back", "--status"), "--roll-back and --status cannot be had together"),
        (("--roll-back",), "nothing to do"),
        (("--source", "till.py"), "nothing to do"),
        (("till", "--roll-back", "--source", "till.py"), "--roll-back loads none of it"),
        (("--watch", ".", "--source", "till.py"), "--watch loads none of it"),
        (("till", "--lossy"), "give it with --roll-back"),
        (("--watch", "nowhere"), "nowhere is no folder"),
        (("--watch", "till.py"), "till.py is no folder"),
        (("nothing.there",), "nothing.there has no source file"),
        (("till/er",), "is no module name: give it with dots, as in `import package.module`"),
        (("shop/price.py",), "is a file: name the module instead"),
        (("sys",), "it has no versions"),
        (("till", "--source", "gone.py"), "gone.py cannot be read"),
        (("till", "--source", "shop"), "has no source file"),
        (("shop", "--source", "till.py"), "shop is a package"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_line_before_any_swarm_is_asked(
    here: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = CliRunner().invoke(app, ["reload", *arguments])
    assert done.exit_code == 2, done.output
    assert said in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout
    told = CliRunner().invoke(app, ["reload", *arguments, "--json"])
    assert told.exit_code == 2 and said in json.loads(told.stdout)["error"]["message"]


@pytest.mark.parametrize(
    ("module", "path"),
    [
        ("till", "till.py"),
        ("shop", "shop/__init__.py"),
        ("shop.price", "shop/price.py"),
        ("shop.deep", "shop/deep/__init__.py"),
        ("bare.inner.leaf", "bare/inner/leaf.py"),
    ],
)
def test_a_file_is_found_where_import_would_find_it_and_nothing_is_run(here: Path, module: str, path: str) -> None:
    assert find_file(module) == here / path
    assert file_of(module) == here / path
    assert module.partition(".")[0] not in sys.modules


@pytest.mark.parametrize("module", ["bare", "bare.inner", "till.inner", "shop.none", "math", ""])
def test_what_has_no_file_of_its_own_has_none(here: Path, module: str) -> None:
    found = find_file(module)
    assert found is None or found.suffix != ".py"


def test_the_first_folder_wins_as_it_does_for_an_import(here: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    (first / "till.py").write_text("")
    sys.path.insert(0, str(first))
    assert find_file("till") == first / "till.py"
    (first / "bare").mkdir()
    assert find_file("bare.inner.leaf") == here / "bare/inner/leaf.py", "packages without __init__.py are joined"


def test_the_current_folder_is_one_that_python_imports_from(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(here))])
    assert find_file("till") is None
    assert CliRunner().invoke(app, ["reload"]).exit_code == 2
    assert find_file("till") == here / "till.py"


def test_a_source_that_is_given_is_taken(here: Path) -> None:
    (here / "other.py").write_text("X = 1\n")
    assert file_of("till", Path("other.py")) == here / "other.py"
    assert file_of("shop", Path("shop/__init__.py")) == here / "shop/__init__.py"


def test_a_request_that_is_whole_passes(here: Path) -> None:
    for request in (
        Request(module="till"),
        Request(module="till", source=Path("x.py")),
        Request(module="till", roll_back=True, lossy=True),
        Request(status=True),
        Request(module="till", status=True),
        Request(watch=Path("shop")),
    ):
        request.check()


class Swarm:
    """Notes what it is to load, and in which source; `fails` has what is raised for a module."""

    def __init__(self, clock: ManualClock, **fails: Exception) -> None:
        self.loaded: list[str] = []
        self._clock = clock
        self._fails = fails

    async def reload(self, module: str, source: Path) -> Reloaded:
        self._clock.advance(0.25)
        self.loaded.append(module)
        if error := self._fails.get(module):
            raise error
        digest = hashlib.sha256(await asyncio.to_thread(source.read_bytes)).hexdigest()
        return Reloaded(module=module, version=2, digest=digest, actors=8, prepare_ms=2.0, commit_ms=1.0)


def followed(swarm: Swarm, clock: ManualClock, *sets: list[Changed], as_json: bool = True) -> Saves:
    async def given() -> AsyncIterator[frozenset[Changed]]:
        for changed in sets:
            clock.advance(1.0)
            yield frozenset(changed)

    saves = Saves(swarm, clock=clock, as_json=as_json)
    with render.results_only():
        asyncio.run(saves.follow(given()))
    return saves


def told(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().out.splitlines()]


def saved(here: Path, path: str, module: str, at_s: float | None = None) -> Changed:
    if at_s is not None:
        os.utime(here / path, (at_s, at_s))
    return Changed(module, here / path, "0" * 64)


def test_several_saved_at_once_are_loaded_in_order_of_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = ManualClock(1e9)
    swarm = Swarm(clock)
    files = {"till": "till.py", "shop.price": "shop/price.py", "shop": "shop/__init__.py", "shop.deep": "shop/deep"}
    files["shop.deep"] += "/__init__.py"
    saves = followed(swarm, clock, [saved(here, path, module) for module, path in files.items()])
    assert swarm.loaded == sorted(files)
    assert saves.reloaded == 4
    lines = told(capsys)
    assert [line["module"] for line in lines] == sorted(files)
    assert lines[0]["digest"] == hashlib.sha256(RUN.encode()).hexdigest()


@pytest.mark.parametrize(
    ("agents", "said", "noted"),
    [
        (None, "till  version 2 in 1 cell  (3.0 ms)", ""),
        (1_200, "till  version 2 in 1 cell, 1,200 agents  (3.0 ms)", ""),
        (0, "till  version 2 in 1 cell, 0 agents  (3.0 ms)", "no agent's policy is of till"),
    ],
)
def test_it_is_said_how_many_agents_a_reload_reached(
    agents: int | None, said: str, noted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with render.results_only():
        _tell(Reloaded(module="till", version=2, digest="", actors=1, agents=agents), 3.0, as_json=False)
    captured = capsys.readouterr()
    assert captured.out == f"{said}\n"
    assert captured.err.startswith(noted) and bool(captured.err) == bool(noted)


def test_a_failure_is_told_and_the_watch_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = ManualClock(1e9)
    swarm = Swarm(clock, till=ReloadError("till, line 3: invalid\nsyntax"), shop=StorageError("full"))
    changed = [saved(here, path, module) for module, path in (("till", "till.py"), ("shop", "shop/__init__.py"))]
    saves = followed(swarm, clock, changed, [saved(here, "shop/price.py", "shop.price")])
    assert (saves.failed, saves.reloaded, saves.under_way) == (2, 1, "")
    shop, till, price = told(capsys)
    assert shop["error"] == {"kind": "StorageError", "message": "full"}
    assert till["error"]["kind"] == "ReloadError" and till["file"] == str(here / "till.py")
    assert price["version"] == 2 and "error" not in price
    followed(swarm, clock, changed, as_json=False)
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["shop", "till"]


def test_a_swarm_that_is_gone_ends_the_watch(here: Path) -> None:
    clock = ManualClock(1e9)
    with pytest.raises(ClusterError, match="all dead"):
        followed(Swarm(clock, till=ClusterError("all dead")), clock, [saved(here, "till.py", "till")])


def test_what_is_gone_or_not_imported_by_that_name_is_skipped(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = ManualClock(1e9)
    swarm = Swarm(clock)
    gone = Changed("till", here / "till.py", None)
    elsewhere = saved(here, "bare/inner/leaf.py", "leaf")
    shadowed = saved(here, "shop/price.py", "till")
    deleted_since = Changed("was", here / "was.py", "0" * 64)
    saves = followed(swarm, clock, [gone, elsewhere, deleted_since], [shadowed])
    assert swarm.loaded == [] and saves.skipped == 4
    reasons = [line["skipped"] for line in told(capsys)]
    assert "gone" in reasons[1] and [reason.startswith("`import") for reason in reasons] == [True, False, True, True]
    followed(swarm, clock, [elsewhere], as_json=False)
    assert capsys.readouterr().out.startswith("leaf  skipped: `import leaf`")


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        (1e9 + 0.4, 850.0),  # between the looks: seen 0.6 s later, loaded 0.25 s after that
        (5e8, 250.0),  # a copy that kept the time of what it is of
        (2e9, 250.0),  # a clock that is ahead
    ],
)
def test_milliseconds_count_from_the_save(
    here: Path, written: float, ms: float, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = ManualClock(1e9)
    changed = [saved(here, "till.py", "till", written)]
    followed(Swarm(clock), clock, changed)
    [line] = told(capsys)
    assert line["save_to_committed_ms"] == pytest.approx(ms, abs=0.01)
    clock = ManualClock(1e9)
    followed(Swarm(clock), clock, changed, as_json=False)
    assert capsys.readouterr().out == f"till  version 2 in 8 cells  ({ms:.1f} ms from the save)\n"


HOSTILE = "a\x1b]0;owned\x07\nb"

STATUS = ReloadStatus(
    reloaded=3,
    rolled_back=1,
    failed=2,
    modules={
        "shop.price": ModuleStatus(
            version=3, digest="ab" * 32, actors=8, behind=1, preparing=False, kept=2, last_failure=HOSTILE
        ),
        "till": ModuleStatus(version=1, digest="", actors=8, behind=0, preparing=False, kept=0),
    },
)


def test_the_status_says_which_versions_run(capsys: pytest.CaptureFixture[str]) -> None:
    with render.results_only():
        assert _show(STATUS, None, as_json=False) == DONE
        assert _show(STATUS, None, as_json=True) == DONE
        assert _show(STATUS, "till", as_json=True) == DONE
        with pytest.raises(InputError, match="other has not been reloaded"):
            _show(STATUS, "other", as_json=True)
    captured = capsys.readouterr()
    table, _, documents = captured.out.partition("{")
    assert table.splitlines()[1].split() == ["shop.price", "3", "7/8", "2", "ab" * 6]
    assert "owned" in table and not any(character in table for character in "\x1b\x07")
    assert captured.err == "3 reloaded, 1 rolled back, 2 refused\n"
    whole, one = (json.loads(each) for each in ("{" + documents).replace("}\n{", "}\0{").split("\0"))
    assert ReloadStatus.model_validate(whole) == STATUS
    assert list(one["modules"]) == ["till"]
