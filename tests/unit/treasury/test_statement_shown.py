"""A statement on a terminal and as a picture, and one that is read from a ledger part by part."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from chimera.cli.treasury.statement import show
from chimera.core.errors import InputError
from chimera.treasury import statement as statements
from chimera.treasury.statement import read_statement, statement
from chimera.treasury.statement_lines import MissionOutcome, PostedTransfer, Statement, month_bounds
from chimera.treasury.statement_plot import plot_statement
from chimera.treasury.types import DAY_US, DEFAULT_CAPS, NANO, Cap, Window
from tests.ledger_house import House
from tests.ledgers_sqlite import SqliteBench

MONTH = "2026-09"


@pytest.fixture
async def house(tmp_path: Path) -> House:
    """Some days of spending. The bench's clock begins on 2026-09-21."""
    bench = SqliteBench(tmp_path / "ledger.db")
    caps = (*DEFAULT_CAPS, Cap(account="mission-a", window=Window.DAY, limit=0))
    house = await House(bench).begin(caps=caps)
    for day in range(5):
        bench.advance(DAY_US)
        assert await house.pay(40 * NANO, "ann", category=f"cat-{day % 2}", mission="m1", reason="=1+1") is None
        assert await house.pay(3, credit="globex", category="tiny") is None
    refused = await house.asked(verdict="refused")
    assert await house.move(refused) is not None
    return house


async def told(house: House) -> Statement:
    outcomes = {"m1": MissionOutcome(tasks_done=100, value=300 * NANO)}
    made = await read_statement(house.app, month=MONTH, at=house.bench.at, outcomes=outcomes)
    await house.bench.close()
    return made


async def test_what_is_read_in_parts_is_what_is_made_of_all_rows(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "MAX_BATCH", 7)
    whole = statement(await house.app.rows(), month=MONTH, at=house.bench.at)
    assert whole == await read_statement(house.app, month=MONTH, at=house.bench.at)
    earlier = await read_statement(house.app, month=MONTH, at=house.bench.at - 3 * DAY_US)
    assert earlier.transfer_count == whole.transfer_count - 6
    for line in whole.accounts:
        assert line.closing == (await house.app.balance(line.account)).posted
    assert [(line.cap, line.now) for line in whole.caps] == [(use.cap, use.used) for use in await house.app.caps()]
    await house.bench.close()


async def test_transfers_that_are_given_out_are_not_held(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "MAX_LISTED", 3)
    with pytest.raises(InputError, match="CSV"):
        await read_statement(house.app, month=MONTH, at=house.bench.at)
    given: list[PostedTransfer] = []
    made = await read_statement(house.app, month=MONTH, at=house.bench.at, each=given.append)
    assert made.transfers == () and len(given) == made.transfer_count == 12
    await house.bench.close()


async def test_a_terminal_shows_every_part(house: House) -> None:
    out = io.StringIO()
    show(await told(house), Console(file=out, width=200))
    text = " ".join(out.getvalue().split())
    for part in (
        "Treasury, 2026-09",
        "Accounts",
        "all accounts, last day",
        "Spent by category",
        "cat-0 120.00 USD 3",
        "m1 200.00 USD 100 2.00 USD 300.00 USD +50%",
        "Refused (1)",
        "The latest 12 transfers",
    ):
        assert part in text, part


async def test_a_terminal_obeys_nothing_that_somebody_wrote(house: House) -> None:
    made = await told(house)
    nasty = made.transfers[-1].model_copy(update={"payee": "[red]x\x1b[2J\u202e", "mission": "[/]"})
    out = io.StringIO()
    show(made.model_copy(update={"transfers": (nasty,)}), Console(file=out, width=200))
    assert r"[red]x\x1b[2J\x202e" in out.getvalue() and "\x1b" not in out.getvalue()


async def test_a_picture_is_drawn_of_any_month(house: House, tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    made = await told(house)
    path = tmp_path / "spent.png"
    plot_statement(made, path)
    spent = image.imread(path)
    assert spent.shape[:2] == (760, 1100)
    plot_statement(made, path, currency="ETH")
    assert (image.imread(path) != spent).any()
    plot_statement(statement([], month=MONTH, at=month_bounds(MONTH)[1]), path)
    with pytest.raises(InputError, match="cannot be written"):
        plot_statement(made, tmp_path / "none" / "spent.png")
