"""A statement of the treasury for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from chimera.cli.render import plain
from chimera.cli.treasury.shown import NEARLY, cap_order
from chimera.treasury.periods import EPOCH
from chimera.treasury.statement_lines import (
    AccountLine,
    CapLine,
    MissionCost,
    PostedTransfer,
    RefusalLine,
    Statement,
    Total,
)
from chimera.treasury.types import shown

MAX_TOTALS = 10
MAX_LATEST = 15
MAX_LINES = 40
"""Of each other table; JSON and CSV have all."""
MAX_COLUMNS = 10_000

WORDS = ("approved by", "at", "by", "category", "mission", "payee", "request", "requester", "time")
"""Heads of columns that hold words, and not figures."""

Cell = str | tuple[str, str]
"""Text, or text and a style."""


def console(out: TextIO) -> Console:
    """For `show`: lines are as wide as they have to be, and nothing is cut, so that a pipe gets it all."""
    return Console(file=out, width=MAX_COLUMNS, highlight=False, soft_wrap=True, emoji=False)


def show(statement: Statement, console: Console) -> None:
    """Print accounts, caps, what was spent on what, missions, refusals and the latest transfers."""
    console.print(Text(f"Treasury, {statement.month}", style="bold"))
    until = f"{_time(statement.since)} to {_time(statement.until)} UTC"
    console.print(Text(f"{until}, {statement.transfer_count:,} transfers posted", style="dim"))
    for title, table in _tables(statement):
        console.print()
        console.print(Text(title, style="bold"))
        console.print(table)


def _tables(statement: Statement) -> Iterable[tuple[str, Table]]:
    moved = [line for line in statement.accounts if line.opening or line.closing or line.moved_in or line.pending_out]
    heads: tuple[str, ...] = ("account", "opening", "in", "out", "closing", "set aside")
    yield _table("Accounts", heads, [_account(line) for line in moved])
    heads = ("cap", "limit", "highest use", "", "at", "use now", "")
    yield _table("Caps", heads, [_cap(line) for line in sorted(statement.caps, key=lambda line: cap_order(line.cap))])
    spent = {
        "category": statement.by_category,
        "payee": statement.by_payee,
        "mission": statement.by_mission,
        "requester": statement.by_requester,
    }
    for name, totals in spent.items():
        if totals:
            heads = (name, "spent", "transfers")
            yield _table(f"Spent by {name}", heads, [_total(each) for each in totals], MAX_TOTALS)
    known = [each for each in statement.missions if each.tasks_done is not None]
    if known:
        heads = ("mission", "cost", "tasks", "cost a task", "value", "return")
        yield _table("Missions", heads, [_mission(each) for each in known])
    if statement.refusals:
        heads = ("time", "request", "payee", "amount", "by", "risk")
        yield _table(f"Refused ({statement.refusal_count:,})", heads, [_refusal(each) for each in statement.refusals])
    if statement.transfers:
        latest = statement.transfers[-MAX_LATEST:]
        heads = ("time", "payee", "amount", "category", "mission", "requester", "approved by", "risk")
        yield _table(f"The latest {len(latest)} transfers", heads, [_transfer(each) for each in latest])


def _table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[Cell]], most: int = MAX_LINES
) -> tuple[str, Table]:
    """What strangers named is shown as it is: no markup, and no control characters."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for number, head in enumerate(heads):
        figures = head not in WORDS
        table.add_column(head, justify="right" if figures and number else "left", no_wrap=True)
    for row in rows[:most]:
        cells = [(cell, "") if isinstance(cell, str) else cell for cell in row]
        table.add_row(*(Text(plain(text), style=style) for text, style in cells))
    left_out = len(rows) - most
    return (f"{title}, the first {most} of {len(rows):,}" if left_out > 0 else title), table


def _account(line: AccountLine) -> Sequence[Cell]:
    amounts = (line.opening, line.moved_in, line.moved_out, line.closing, line.pending_out)
    return line.account, *(shown(amount, line.currency) for amount in amounts)


def _mission(each: MissionCost) -> Sequence[Cell]:
    return (
        each.mission,
        shown(each.cost, each.currency),
        f"{each.tasks_done:,}",
        "-" if each.cost_per_task is None else shown(each.cost_per_task, each.currency),
        "-" if each.value is None else shown(each.value, each.currency),
        "-" if each.roi is None else f"{each.roi:+.0%}",
    )


def _refusal(each: RefusalLine) -> Sequence[Cell]:
    return (
        _time(each.at),
        each.request_id,
        each.payee,
        shown(each.amount, each.currency),
        each.by,
        _risk(each.risk),
    )


def _cap(line: CapLine) -> Sequence[Cell]:
    cap = line.cap
    whose = "all accounts" if cap.account == "*" else cap.account
    return (
        f"{whose}, {cap.window.replace('_', ' ')}",
        shown(cap.limit, cap.currency),
        shown(line.highest, cap.currency),
        _percent(line.highest_percent),
        _time(line.highest_at) if line.highest_at else "-",
        shown(line.now, cap.currency),
        _percent(line.now_percent),
    )


def _total(each: Total) -> Sequence[Cell]:
    return each.name, shown(each.amount, each.currency), f"{each.transfers:,}"


def _transfer(each: PostedTransfer) -> Sequence[Cell]:
    return (
        _time(each.at),
        each.payee,
        shown(each.amount, each.currency),
        each.category,
        each.mission or "-",
        each.requester,
        ", ".join(each.approvers) or "-",
        _risk(each.risk),
    )


def _risk(risk: float | None) -> str:
    return "-" if risk is None else f"{risk:.2f}"


def _percent(percent: float | None) -> Cell:
    if percent is None:
        return "-"
    return f"{percent:.1f}%", "yellow" if percent >= NEARLY else ""


def _time(at: int) -> str:
    return f"{EPOCH + timedelta(microseconds=at):%Y-%m-%d %H:%M:%S}"
