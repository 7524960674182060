"""What the commands `chimera treasury` do."""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.settings import read_settings
from chimera.cli.treasury import shown as views
from chimera.cli.treasury.opening import open_for_audit, open_treasury, turn
from chimera.cli.watch.run import Ending
from chimera.core.clock import SystemClock
from chimera.core.errors import InputError, MissingExtra, SecurityError, StorageError
from chimera.storage.journal import open_journal
from chimera.system.mission_outcomes import read_with_outcomes
from chimera.system.treasury import Treasury, running
from chimera.treasury.anchors import HeadAnchor, anchor, read_anchors
from chimera.treasury.auditing import audit_ledger
from chimera.treasury.keys import FileKey, verifies
from chimera.treasury.payment import Payment, PaymentState
from chimera.treasury.statement_lines import Statement, csv_head, csv_line
from chimera.treasury.types import Account, AccountKind, Cap, Id, Window, nano
from chimera.treasury.vault import home as vault_home
from chimera.treasury.vault.config import read_config
from chimera.treasury.vault.home import VaultHome

DONE, NO, WAITS = 0, 1, 4

NAME = TypeAdapter(Id)


def init(user: str, postgres: str) -> int:
    async def work() -> int:
        place = VaultHome.at(read_settings().home)
        url = postgres or os.environ.get(vault_home.LEDGER_URL, "")
        if url and not url.startswith(("postgres://", "postgresql://")):
            raise InputError("the ledger is in a SQLite file, or at postgresql://USER:PASSWORD@HOST/DATABASE")
        if place.config.exists():
            vault_home.check_ledger(read_config(place.config), url)
        await vault_home.init(place.home, user=user, superuser_url=url)
        render.note(f"the treasury is in {place.folder}; its settings, with comments: {place.config}")
        render.note("next: `chimera treasury account add cash --kind fund`, and one for each payee")
        return DONE

    return command.run(work(), as_json=False)


def serve(user: str, passphrase_file: Path | None, address: str | None) -> int:
    async def work() -> int:
        settings = read_settings(address=address)
        ending = Ending()
        place = VaultHome.at(settings.home)
        async with AsyncExitStack() as stack:
            async with turn(place) if place.vault.is_dir() else nullcontext():
                await stack.enter_async_context(running(settings, user=user, passphrase_file=passphrase_file))
            ending.heed_signals()
            render.note(f"the treasury runs: the vault of {place.folder}, its CFO in the cluster")
            await ending.now.wait()
        render.note("the treasury has ended")
        return DONE

    return command.run(work(), as_json=False)


def status(*, as_json: bool) -> int:
    async def work(treasury: Treasury) -> int:
        accounts, caps, stopped = await treasury.accounts(), await treasury.caps(), await treasury.stopped()
        if as_json:
            told = {
                "stopped": stopped.model_dump(mode="json") if stopped else None,
                "caps": [each.model_dump(mode="json") for each in caps],
                "accounts": [each.model_dump(mode="json") for each in accounts],
            }
            render.line(render.to_line(told))
        else:
            views.status(accounts, caps, stopped)
        return DONE

    return _run(work, as_json=as_json)


def add_account(account_id: str, kind: str, currency: str, title: str) -> int:
    async def work(treasury: Treasury) -> int:
        _named(account_id, "ID")
        with command.options():
            made = Account(id=account_id, kind=_one_of(AccountKind, kind, "--kind"), currency=currency, title=title)
        await treasury.add_account(made)
        render.note(f"the account {account_id} is there")
        return DONE

    return _run(work)


def pay(told: dict[str, Any], *, as_json: bool) -> int:
    async def work(treasury: Treasury) -> int:
        asked = {**told, "requester": told["requester"] or _me()}
        for field, name in (("category", "--category"), ("requester", "--as"), ("request_id", "--id")):
            if asked[field]:
                _named(asked[field], name)
        payment = await treasury.pay(**asked)
        views.payment(payment, as_json=as_json)
        return _exit_code(payment)

    return _run(work, as_json=as_json)


def payments(*, as_json: bool) -> int:
    async def work(treasury: Treasury) -> int:
        found = await treasury.in_hand()
        found.sort(key=lambda each: each.state is not PaymentState.WAITING)
        views.payments(found, as_json=as_json)
        return DONE

    return _run(work, as_json=as_json)


def show(request_id: str, *, as_json: bool) -> int:
    async def work(treasury: Treasury) -> int:
        views.payment(await treasury.payment(request_id), as_json=as_json, whole=True)
        return DONE

    return _run(work, as_json=as_json)


def answer(request_id: str, approver: str, key: Path | None, *, approve: bool, as_json: bool) -> int:
    key = _whole(key) if key else None

    async def work(treasury: Treasury) -> int:
        signing = _open_key(key) if key else None
        who = _named(approver or _me(), "--as")
        found = await treasury.answer(request_id, who, approve=approve, key=signing)
        views.payment(found, as_json=as_json)
        return _exit_code(found) if approve else DONE

    return _run(work, as_json=as_json)


def stop(why: str, by: str) -> int:
    async def work(treasury: Treasury) -> int:
        if not why.strip():
            raise InputError("say why: whoever starts spending again has to know")
        await treasury.stop(why, _named(by or _me(), "--as"))
        render.note("nothing is spent from now on, until `chimera treasury resume`")
        return DONE

    return _run(work)


def resume(by: str) -> int:
    async def work(treasury: Treasury) -> int:
        await treasury.resume(_named(by or _me(), "--as"))
        render.note("spending goes on")
        return DONE

    return _run(work)


def set_cap(window: str, limit: str, account_id: str, currency: str) -> int:
    async def work(treasury: Treasury) -> int:
        with command.options():
            cap = Cap(
                account=account_id, currency=currency, window=_one_of(Window, window, "WINDOW"), limit=nano(limit)
            )
        if account_id != "*":
            found = await treasury.ledger().account(account_id)
            if found is None or (found.kind, found.currency) != (AccountKind.FUND, currency):
                raise InputError(f"{account_id} is no fund in {currency}: a cap on it would bound nothing")
        await treasury.set_cap(cap)
        render.note("the cap is set")
        return DONE

    return _run(work)


def verify(anchors: Path | None, *, as_json: bool) -> int:
    if anchors is not None:
        anchors = _whole(anchors)

    async def work() -> int:
        if anchors is not None and not anchors.is_file():
            raise InputError(f"{anchors} is not there: `chimera treasury anchor` makes one")
        async with open_for_audit() as (ledger, keys):
            public = {key_id: key for theirs in (keys.cfo, *keys.people.values()) for key_id, key in theirs.items()}

            def good(kept: HeadAnchor) -> bool:
                return kept.key_id in public and verifies(public[kept.key_id], kept.signature, kept.payload())

            known = read_anchors(anchors, good) if anchors else ()
            report = await audit_ledger(ledger, verify=keys.verify, anchors=known)
        if as_json:
            render.line(render.to_line(report.model_dump(mode="json")))
        else:
            views.report(report)
        return DONE if report.ok else NO

    return command.run(work(), as_json=as_json)


def keep_head(file: Path, key: Path) -> int:
    file, key = _whole(file), _whole(key)

    async def work(treasury: Treasury) -> int:
        signing = _open_key(key)
        _writing(file)
        head = await treasury.ledger().head()
        at = int(datetime.now(UTC).timestamp() * 1_000_000)
        made = await asyncio.to_thread(anchor, file, head, key=signing, at=at)
        render.note(f"row {made.seq} is kept in {file}, signed by {made.key_id}")
        return DONE

    return _run(work)


def statement(month: str, csv: Path | None, plot: Path | None, *, as_json: bool) -> int:
    month = month or datetime.now(UTC).strftime("%Y-%m")
    out = sys.stdout  # while a command runs, what else is printed goes to standard error

    async def work(treasury: Treasury) -> int:
        found = await _statement(treasury, month)
        if csv is not None:
            try:
                with _writing(csv).open("w", newline="", encoding="utf-8") as file:
                    file.write(csv_head())
                    file.writelines(map(csv_line, found.transfers))
            except OSError as error:
                raise InputError(f"{csv} cannot be written: {error.strerror}") from None
        if plot is not None:
            from chimera.treasury.statement_plot import plot_statement

            plot_statement(found, _writing(plot))
        if as_json:
            render.line(render.to_line(found.model_dump(mode="json")))
        else:
            from chimera.cli.treasury.statement import console, show

            show(found, console(out))
        return DONE

    return _run(work, as_json=as_json)


def new_key(file: Path, key_id: str) -> int:
    file = _whole(file)

    async def work() -> int:
        try:
            made = FileKey.create(file, key_id)
        except SecurityError as error:
            raise InputError(str(error)) from None
        render.note("for `people` in treasury.yaml, below your name; the vault reads it when it starts:")
        render.line(f"{made.key_id}: {made.public.hex()}")
        return DONE

    return command.run(work(), as_json=False)


async def _statement(treasury: Treasury, month: str) -> Statement:
    """With what missions came to, where the swarm's journal can be read."""
    settings = read_settings()
    default = settings.journal if (settings.home / "journal.db").exists() else "memory://"
    try:
        journal = open_journal(settings.journal_url or default, create=False)
        try:
            at = int(SystemClock().now() * 1_000_000)
            return await read_with_outcomes(treasury.ledger(), journal, month=month, at=at)
        finally:
            await journal.close()
    except (StorageError, MissingExtra) as error:
        render.note(f"without the tasks of missions, as the journal cannot be read: {error}")
        return await treasury.statement(month)


def _run(work: Callable[[Treasury], Awaitable[int]], *, as_json: bool = False) -> int:
    async def with_treasury() -> int:
        async with open_treasury() as treasury:
            return await work(treasury)

    return command.run(with_treasury(), as_json=as_json)


def _exit_code(payment: Payment) -> int:
    match payment.state:
        case PaymentState.PAID | PaymentState.RESERVED | PaymentState.AGREED:
            return DONE
        case PaymentState.WAITING:
            return WAITS
        case _:
            return NO


def _one_of(kinds: Any, value: str, name: str) -> Any:
    try:
        return kinds(value)
    except ValueError:
        raise InputError(f"{name}: {value!a:.60} is none of {', '.join(kinds)}") from None


def _named(value: str, name: str) -> str:
    """The value, if it can be the name of something in the ledger."""
    try:
        return NAME.validate_python(value)
    except ValidationError:
        told = "a name has letters, digits and . _ - : /, at most 96, and begins with a letter or digit"
        raise InputError(f"{name}: {value!a:.60}: {told}") from None


def _open_key(path: Path) -> FileKey:
    """A person's key; one that is not there, or that others can read, is bad input of theirs."""
    if not path.exists():
        raise InputError(f"{path} is not there: `chimera treasury key` makes a key")
    try:
        return FileKey.open(path)
    except SecurityError as error:
        raise InputError(str(error)) from None


def _writing(path: Path) -> Path:
    path = path.expanduser()
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder: make it first")
    return path


def _whole(path: Path) -> Path:
    return path.expanduser().absolute()


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"
