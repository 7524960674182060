"""What `chimera top` draws, in any terminal, and how it ends."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, redirect_stdout
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from chimera.cli import top
from chimera.core.config import Settings
from chimera.core.errors import ClusterError, NoCluster
from chimera.swarm.status import ManagerStatus, NodeStatus, RoleStatus, SwarmStatus
from tests.made_status import made_status

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e\r\n[bold]x[/] :smile: " + "宽" * 40


class Swarm:
    """A swarm whose statuses are what the script says: a status, an error to raise, or something to do."""

    def __init__(self, *script: SwarmStatus | BaseException | Callable[[], None]) -> None:
        self.script = list(script)
        self.asked_for: list[tuple[str | None, str]] = []
        self.left = False

    @asynccontextmanager
    async def attach(self, name: str | None, settings: Settings) -> AsyncIterator[Swarm]:
        self.asked_for.append((name, settings.address))
        try:
            yield self
        finally:
            self.left = True

    async def status(self) -> SwarmStatus:
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, BaseException):
            raise step
        if callable(step):
            step()
            await asyncio.sleep(30)
        assert isinstance(step, SwarmStatus)
        return step


def drawn(status: SwarmStatus, width: int) -> str:
    console = Console(
        file=io.StringIO(), width=width, highlight=False, emoji=False, force_terminal=True, color_system=None
    )
    console.print(top.frame(status))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 80, 120, 250])
def test_a_frame_fits_any_terminal(width: int) -> None:
    for status in (made_status(), made_status(text=HOSTILE), made_status(roles=10_000), SwarmStatus(swarm="s", pid=1)):
        text = drawn(status, width)
        assert max(cell_len(line) for line in text.splitlines()) <= width
        assert len(text.splitlines()) < 120


def test_a_frame_tells_everything() -> None:
    text = " ".join(drawn(made_status(), 120).split())  # long lines go on in the next
    for told in (
        "swarm-1", "up 0:00:11", "1 of 2 nodes, 1 of 2 managers, 1 of 2 cells", "10,000, 1,000 busy; 42 attempts wait",
        "7 running, 5 queued; 41 admitted (1 resumed), 2 refused", "1 answered", "1 agreed, 1 tie, 1 no_quorum",
        "1 poison", "tasks quarantined: 1", "0.3 tasks", "90.0 events", "300 made, 9 saved (3%)",
        "$1.25, 5,000 tokens, 300 calls, 0:01:15", "$0.50", "sqlite, events: 900, appends: 1", "decision", "role-19",
        "and 12 more", "Manager[1] (restarting)", "a1b2c3", "d4e5f6 (dead)",
    ):  # fmt: skip
        assert told in text, told


def test_a_terminal_obeys_nothing_that_stands_in_a_name() -> None:
    for width in (30, 80, 300):
        text = drawn(made_status(text=HOSTILE), width)
        assert not [c for c in text if c in "\x1b\x07\x9b\r\u202e"]
    assert "swarm-1\\x1b]0;owned\\x07\\x9b2J\\x202e\\x0d [bold]x[/] :smile: " in text


def test_what_nothing_is_known_of_is_no_zero() -> None:
    text = drawn(SwarmStatus(swarm="s", pid=1), 80)
    assert re.search(r"decision +- +- +- +0", text) and "none" in text


def test_tables_are_cut_and_say_by_how_much() -> None:
    status = made_status(
        roles=0,
        agents_by_role={f"r{i}": RoleStatus() for i in range(9)},
        managers=tuple(ManagerStatus(name=f"m{i}") for i in range(100)),
        nodes=tuple(NodeStatus(node=f"n{i}") for i in range(10)),
    )
    text = drawn(status, 80)
    assert "r8" in text, "one more is shown and not counted"
    assert "and 92 more" in text and "and 2 more" in text and "m8" not in text


def test_json_is_the_status_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    status = made_status(text=HOSTILE)
    swarm = Swarm(status)
    assert top.execute(swarm.attach, name="swarm-1", address="10.0.0.1:6379", as_json=True) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert SwarmStatus.model_validate_json(printed) == status
    assert (swarm.asked_for, swarm.left) == ([("swarm-1", "10.0.0.1:6379")], True)


@pytest.mark.parametrize("once", [True, False])
def test_without_a_terminal_one_frame_is_printed(once: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert top.execute(Swarm(made_status()).attach, once=once) == 0
    assert capsys.readouterr().out.count("up 0:00:11") == 1


@pytest.mark.parametrize(
    ("error", "code"), [(NoCluster("nobody there"), 2), (ClusterError("gone"), 3), (RuntimeError("bug"), 3)]
)
def test_an_error_is_one_line_and_an_exit_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert top.execute(Swarm(error).attach, as_json=True) == code
    told = capsys.readouterr()
    assert json.loads(told.out)["error"]["kind"] == type(error).__name__
    assert told.err.startswith("error: ") and "Traceback" not in told.err


def test_settings_that_are_wrong_are_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMERA_CELLS", "many")
    assert top.execute(Swarm(made_status()).attach) == 2


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _a_good_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)


def watch(*script: Any) -> tuple[int, Swarm, str]:
    swarm = Swarm(*script)
    with redirect_stdout(Terminal()) as terminal:
        code = top.execute(swarm.attach, refresh_s=0.0)
    return code, swarm, terminal.getvalue()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_terminal_is_drawn_anew_until_it_is_left() -> None:
    code, swarm, text = watch(
        made_status(name="swarm-a"), ClusterError("restarting\x1b"), made_status(name="swarm-b"), interrupt
    )
    assert (code, swarm.left) == (0, True)
    assert text.index("swarm-a") < text.index("no answer (1), trying again: restarting\\x1b") < text.index("swarm-b")
    assert text.index("\x1b[?1049h") < text.index("swarm-a") and "\x1b[?1049l" in text, "the screen is given back"


def test_a_swarm_that_stays_silent_is_an_error_in_the_end() -> None:
    code, swarm, text = watch(SwarmStatus(swarm="s", pid=1), ClusterError("gone"))
    assert (code, swarm.left) == (3, True)
    assert f"no answer ({top.MAX_SILENT - 1})" in text


def test_sigterm_gives_the_screen_back() -> None:
    code, swarm, text = watch(made_status(), lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert (code, swarm.left) == (143, True)
    assert "\x1b[?1049l" in text
