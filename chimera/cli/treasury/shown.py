"""How the treasury looks in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from chimera.cli import render
from chimera.cli.arena.command import one_line, table
from chimera.system.treasury import AccountView
from chimera.treasury.auditing import LedgerAudit
from chimera.treasury.ledger import Stop
from chimera.treasury.payment import Payment, PaymentState
from chimera.treasury.types import Cap, CapUse, Window, shown

STYLES = {
    PaymentState.PAID: "green",
    PaymentState.RESERVED: "green",
    PaymentState.WAITING: "yellow",
    PaymentState.REFUSED: "red",
}
NEARLY = 80.0
"""Percent of a cap from which on its line stands out."""


def status(accounts: Sequence[AccountView], caps: Sequence[CapUse], stopped: Stop | None) -> None:
    """Balances, caps, and a stop."""
    if stopped is not None:
        since = moment(stopped.at)
        render.say(("all spending is stopped", "bold red"), f" since {since} by {stopped.by}: {one_line(stopped.why)}")
    heads = ("account", "kind", "balance", "set aside", "title")
    rows = [
        (
            each.account.id,
            str(each.account.kind),
            shown(each.balance.posted, each.account.currency),
            shown(each.balance.pending_out, each.account.currency) if each.balance.pending_out else "",
            each.account.title,
        )
        for each in accounts
    ]
    table(heads, rows)
    render.say("")
    table(
        ("cap", "account", "used", "of", ""), [_cap(each) for each in sorted(caps, key=lambda use: cap_order(use.cap))]
    )


def payments(found: Sequence[Payment], *, as_json: bool) -> None:
    """One line each."""
    if as_json:
        for each in found:
            render.line(render.to_line(each.model_dump(mode="json")))
        return
    if not found:
        render.note("no payment is in hand")
        return
    heads = ("payment", "state", "amount", "from", "to", "by", "risk", "until")
    table(
        heads,
        [
            (
                each.request.id,
                str(each.state),
                shown(each.request.amount, each.request.currency),
                each.request.debit,
                each.request.credit,
                each.request.requester,
                f"{each.decision.risk:.2f}" if each.decision else "",
                moment(each.request.expires_at),
            )
            for each in found
        ],
    )


def payment(found: Payment, *, as_json: bool, whole: bool = False) -> None:
    """What has become of one; `whole`: with every factor of its risk, and who said what."""
    if as_json:
        render.line(render.to_line(found.model_dump(mode="json")))
        return
    request = found.request
    render.say(
        (str(found.state), STYLES.get(found.state, "bold")),
        f"  {request.id}: {shown(request.amount, request.currency)} from {request.debit} to {request.credit}",
    )
    render.say((one_line(found.why), "dim"))
    if found.state is PaymentState.WAITING:
        render.note(_who_approves(found))
    if not whole:
        return
    for name, value in (("category", request.category), ("mission", request.mission), ("reason", request.reason)):
        if value:
            render.say((f"{name}: ", "dim"), one_line(value))
    render.say(("asked for by ", "dim"), request.requester, (f", stands until {moment(request.expires_at)}", "dim"))
    if (decision := found.decision) is not None:
        render.say(
            (f"the CFO ({decision.key_id}), {moment(decision.at)}: ", "dim"),
            f"{decision.verdict}, risk {decision.risk:.2f}",
        )
        table(
            ("factor", "at", "weight", ""),
            [(each.name, f"{each.value:.2f}", f"{each.weight:.2f}", each.why) for each in decision.factors],
        )
    for word in found.approvals:
        signed = f", signed with {word.key_id}" if word.signature else ""
        render.say((f"{moment(word.at)}: ", "dim"), f"{word.approver}: {word.verdict}{signed}")
    for transfer in found.transfers:
        render.say((f"{transfer.kind}: ", "dim"), shown(transfer.amount, request.currency))


def report(found: LedgerAudit) -> None:
    """What an audit came to."""
    if found.ok:
        render.say(("as it should be", "green"), f"  {found.rows} rows; the last has the hash {found.head.hash[:16]}")
    else:
        render.say(("not as it should be", "bold red"), f"  {found.rows} rows")
    for each in found.findings:
        render.say(f"  {one_line(each.what)}")
    if not found.compared:
        render.note(
            "others wrote all the time: rows were checked, balances and caps were not; try again when it is quiet"
        )


def moment(at_us: int) -> str:
    """A time, UTC."""
    return datetime.fromtimestamp(min(at_us, 253_402_300_799_000_000) / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def cap_order(cap: Cap) -> tuple[str, str, int]:
    """Those of all accounts first, and the shorter window first."""
    return "" if cap.account == "*" else cap.account, cap.currency, list(Window).index(cap.window)


def _who_approves(found: Payment) -> str:
    request = found.request
    if any(word.verdict == "approved" for word in found.approvals):
        return "two keys are needed: `chimera treasury approve` by one more person, or by one who signs (--key)"
    return f"`chimera treasury approve {request.id}`, by another than {request.requester}"


def _cap(use: CapUse) -> tuple[str, str, str, str, str]:
    percent = 100 * use.used / use.cap.limit if use.cap.limit else 100.0
    bar = "#" * round(min(percent, 100) / 5)
    told = f"{percent:5.1f} % {bar}" + ("  nearly used up" if percent >= NEARLY else "")
    return (
        str(use.cap.window),
        "all" if use.cap.account == "*" else use.cap.account,
        shown(use.used, use.cap.currency),
        shown(use.cap.limit, use.cap.currency),
        told,
    )
