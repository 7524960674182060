"""The commands `chimera treasury`. They import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

treasury = typer.Typer(
    name="treasury",
    help="Money that agents can spend, and cannot overspend: accounts, payments, approvals, statements.",
    no_args_is_help=True,
)
account = typer.Typer(name="account", help="Where money lies.", no_args_is_help=True)
treasury.add_typer(account)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output and nothing else.")]
RequestId = Annotated[str, typer.Argument(metavar="ID", help="The payment's id.")]
By = Annotated[str, typer.Option("--as", metavar="NAME", help="Who you are (default: your login name).")]
KeyFile = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="Your own key, as `key new` makes it: you sign with it.")
]
Currency = Annotated[str, typer.Option(help="Such as USD or ETH.", metavar="CODE")]


@treasury.callback()
def treasuries() -> None:
    """Money that agents can spend, and cannot overspend. Its folder is CHIMERA_HOME/treasury.

    Where no vault runs, a command starts one for itself and ends it again.
    """


@treasury.command("init")
def init(
    user: Annotated[str, typer.Option(help="The vault's own OS user (needs root).", metavar="NAME")] = "",
    postgres: Annotated[
        str,
        typer.Option(
            help="A superuser's URL of a PostgreSQL database: the ledger goes there (default: CHIMERA_LEDGER_URL).",
            metavar="URL",
        ),
    ] = "",
) -> None:
    """Make the folder, the CFO's key, and treasury.yaml with comments. Again, it changes nothing.

    Exit codes: **0** done, **2** bad input, **3** a fault.

    Example: `chimera treasury init`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.init(user, postgres))


@treasury.command("run")
def run_treasury(
    user: Annotated[str, typer.Option(help="The vault's own OS user (needs root).", metavar="NAME")] = "",
    passphrase_file: Annotated[
        Path | None, typer.Option(help="Of the CFO's key, if it has one.", metavar="FILE")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="auto, local, HOST:PORT or ray://HOST:PORT (default auto).")
    ] = None,
) -> None:
    """Run the vault, and the ledger's and the CFO's actors in the cluster, until Ctrl-C or SIGTERM.

    Exit codes: **0** ended, **2** bad input, **3** a fault.

    Example: `chimera treasury run`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.serve(user, passphrase_file, address))


@treasury.command("status")
def status(as_json: AsJson = False) -> None:
    """Accounts with their balances, caps with their use, and whether spending is stopped.

    Example: `chimera treasury status`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.status(as_json=as_json))


@account.command("add")
def account_add(
    account_id: Annotated[str, typer.Argument(metavar="ID", help="A name, such as cash, acme or evm:1:0x...")],
    kind: Annotated[str, typer.Option(help="fund (ours), outside, or metered (outside, and paid by use).")] = "outside",
    currency: Currency = "USD",
    title: Annotated[str, typer.Option(help="A line for people.")] = "",
) -> None:
    """Add an account. It never changes, and is never removed.

    Exit codes: **0** done, **2** bad input, such as an id that is taken.

    Example: `chimera treasury account add cash --kind fund`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.add_account(account_id, kind, currency, title))


@treasury.command("pay")
def pay(
    debit: Annotated[str, typer.Argument(metavar="FROM", help="The account that pays.")],
    credit: Annotated[str, typer.Argument(metavar="TO", help="The account that is paid.")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="In whole units, such as 12.50.")],
    category: Annotated[str, typer.Option(help="What for, in a word.")] = "other",
    requester: By = "",
    currency: Currency = "USD",
    mission: Annotated[str, typer.Option(help="The mission that it is for.", metavar="ID")] = "",
    reason: Annotated[str, typer.Option(help="A line for people.")] = "",
    request_id: Annotated[
        str, typer.Option("--id", help="Its id: the same again is the same payment.", metavar="ID")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Ask for a payment, and say what the CFO makes of it.

    Exit codes: **0** paid, or set aside to be; **1** refused; **2** bad input; **3** a fault; **4** a person has to
    approve it.

    Example: `chimera treasury pay cash acme 12.50 --category hosting --id invoice-7`
    """
    from chimera.cli.treasury import run

    told = {"debit": debit, "credit": credit, "amount": amount, "category": category, "requester": requester}
    told |= {"currency": currency, "mission": mission, "reason": reason, "request_id": request_id}
    raise typer.Exit(run.pay(told, as_json=as_json))


@treasury.command("payments")
def payments(as_json: AsJson = False) -> None:
    """The payments that are not at an end: those that wait for a person first.

    Example: `chimera treasury payments`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.payments(as_json=as_json))


@treasury.command("show")
def show(request_id: RequestId, as_json: AsJson = False) -> None:
    """All of one payment: what was asked for, each reason for its risk, who approved, what was moved.

    Exit codes: **0** shown, **2** there is none.

    Example: `chimera treasury show invoice-7`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.show(request_id, as_json=as_json))


@treasury.command("approve")
def approve(request_id: RequestId, approver: By = "", key: KeyFile = None, as_json: AsJson = False) -> None:
    """Agree to a payment that waits for a person. Nobody approves what they asked for.

    Exit codes: **0** paid, or set aside to be; **1** refused for another reason, as a cap; **2** it cannot be approved
    (any more), or not by you; **4** one more has to approve it.

    Example: `chimera treasury approve invoice-7 --as ann`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.answer(request_id, approver, key, approve=True, as_json=as_json))


@treasury.command("refuse")
def refuse(request_id: RequestId, approver: By = "", key: KeyFile = None, as_json: AsJson = False) -> None:
    """Refuse a payment, for good.

    Exit codes: **0** done, **2** it cannot be refused (any more), or not by you.

    Example: `chimera treasury refuse invoice-7 --as ann`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.answer(request_id, approver, key, approve=False, as_json=as_json))


@treasury.command("stop")
def stop(why: Annotated[str, typer.Argument(metavar="WHY", help="A line for people.")], by: By = "") -> None:
    """Stop all spending, until a person starts it again.

    Exit codes: **0** done, **2** bad input, **3** a fault.

    Example: `chimera treasury stop "an invoice looks wrong"`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.stop(why, by))


@treasury.command("resume")
def resume(by: By = "") -> None:
    """Start spending again.

    Example: `chimera treasury resume --as ann`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.resume(by))


@treasury.command("cap")
def cap(
    window: Annotated[
        str,
        typer.Argument(metavar="WINDOW", help="last_day, last_week, last_month; or day, week, month (UTC's calendar)."),
    ],
    limit: Annotated[str, typer.Argument(metavar="LIMIT", help="In whole units, such as 1000.")],
    account_id: Annotated[str, typer.Option("--account", help="A fund; * is all of them.", metavar="ID")] = "*",
    currency: Currency = "USD",
) -> None:
    """Set the most that may be spent in a window. Only the owner may.

    Exit codes: **0** done, **2** bad input.

    Example: `chimera treasury cap last_day 500 --account cash`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.set_cap(window, limit, account_id, currency))


@treasury.command("verify")
def verify(
    anchors: Annotated[
        Path | None, typer.Option(help="A file of heads that `anchor` has kept.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Work every row, signature, balance and cap out again, and say what is not as it should be.

    Exit codes: **0** all is well, **1** it is not (each finding is printed), **2** bad input, **3** a fault.

    Example: `chimera treasury verify --anchors /mnt/elsewhere/anchors`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.verify(anchors, as_json=as_json))


@treasury.command("anchor")
def anchor(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to keep it: another disk, or another machine's.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Who signs it: your own key, as `key` makes it.")],
) -> None:
    """Keep the ledger's head outside, signed: so it shows if all of the ledger is ever written anew.

    Example: `chimera treasury anchor /mnt/elsewhere/anchors --key ann.pem`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.keep_head(file, key))


@treasury.command("statement")
def statement(
    month: Annotated[str, typer.Option(help="Such as 2026-11 (default: this month, UTC).", metavar="YYYY-MM")] = "",
    csv: Annotated[Path | None, typer.Option(help="Write the transfers there.", metavar="FILE")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a picture there.", metavar="FILE.png")] = None,
    as_json: AsJson = False,
) -> None:
    """A month: balances, every transfer, spending by category, payee and mission, use of caps, cost of missions.

    Exit codes: **0** done, **2** bad input, **3** a fault.

    Example: `chimera treasury statement --month 2026-11 --csv november.csv --plot november.png`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.statement(month, csv, plot, as_json=as_json))


@treasury.command("key")
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, in a folder that is yours alone.")],
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="Its name, such as ann-1.")],
) -> None:
    """Make a key for a person, and print the line for `people` in treasury.yaml.

    Example: `chimera treasury key ~/.keys/ann.pem ann-1`
    """
    from chimera.cli.treasury import run

    raise typer.Exit(run.new_key(file, key_id))
