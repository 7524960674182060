"""What the commands `chimera treasury` do."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chimera.cli import render
from chimera.cli.arena import command
from chimera.cli.settings import read_settings
from chimera.cli.treasury import shown as views
from chimera.cli.watch.run import Ending
from chimera.core.errors import InputError
from chimera.system.treasury import Treasury, running
from chimera.treasury.anchors import HeadAnchor, anchor, read_anchors
from chimera.treasury.keys import FileKey
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.payment import Payment, PaymentState
from chimera.treasury.statement_lines import csv_head, csv_line
from chimera.treasury.types import Account, AccountKind, Cap, Window, nano
from chimera.treasury.vault import home as vault_home
from chimera.treasury.vault.home import VaultHome
from chimera.treasury.vault.process import start_vault

DONE, NO, WAITS = 0, 1, 4


def init(user: str, postgres: str) -> int:
    async def work() -> int:
        home = read_settings().home
        place = await vault_home.init(home, user=user, superuser_url=postgres)
        render.note(f"the treasury is in {place.folder}; its settings, with comments: {place.config}")
        render.note("next: `chimera treasury account add cash --kind fund`, and one for each payee")
        return DONE

    return command.run(work(), as_json=False)


def serve(user: str, passphrase_file: Path | None, address: str | None) -> int:
    async def work() -> int:
        settings = read_settings(address=address)
        ending = Ending()
        async with running(settings, user=user, passphrase_file=passphrase_file):
            ending.heed_signals()
            render.note(f"the treasury runs: the vault of {VaultHome.at(settings.home).folder}, its CFO in the cluster")
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
        with command.options():
            made = Account(id=account_id, kind=_one_of(AccountKind, kind, "--kind"), currency=currency, title=title)
        await treasury.add_account(made)
        render.note(f"the account {account_id} is there")
        return DONE

    return _run(work)


def pay(told: dict[str, Any], *, as_json: bool) -> int:
    async def work(treasury: Treasury) -> int:
        payment = await treasury.pay(**{**told, "requester": told["requester"] or _me()})
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


def answer(request_id: str, approver: str, key: Path | None, *, approve: bool) -> int:
    key = _whole(key) if key else None

    async def work(treasury: Treasury) -> int:
        signing = FileKey.open(key) if key else None
        views.payment(await treasury.answer(request_id, approver or _me(), approve=approve, key=signing), as_json=False)
        return DONE

    return _run(work)


def stop(why: str, by: str) -> int:
    async def work(treasury: Treasury) -> int:
        await treasury.stop(why, by or _me())
        render.note("nothing is spent from now on, until `chimera treasury resume`")
        return DONE

    return _run(work)


def resume(by: str) -> int:
    async def work(treasury: Treasury) -> int:
        await treasury.resume(by or _me())
        render.note("spending goes on")
        return DONE

    return _run(work)


def set_cap(window: str, limit: str, account_id: str, currency: str) -> int:
    async def work(treasury: Treasury) -> int:
        with command.options():
            cap = Cap(
                account=account_id, currency=currency, window=_one_of(Window, window, "WINDOW"), limit=nano(limit)
            )
        await treasury.set_cap(cap)
        render.note("the cap is set")
        return DONE

    return _run(work)


def verify(anchors: Path | None, *, as_json: bool) -> int:
    async def work(treasury: Treasury) -> int:
        keys = await treasury.keyring()
        public = {key_id: key for theirs in (keys.cfo, *keys.people.values()) for key_id, key in theirs.items()}

        def good(kept: HeadAnchor) -> bool:
            return kept.key_id in public and views.verifies(public[kept.key_id], kept.signature, kept.payload())

        report = await treasury.verify(read_anchors(anchors, good) if anchors else ())
        if as_json:
            render.line(render.to_line(report.model_dump(mode="json")))
        else:
            views.report(report)
        return DONE if report.ok else NO

    return _run(work, as_json=as_json)


def keep_head(file: Path, key: Path) -> int:
    file, key = _whole(file), _whole(key)

    async def work(treasury: Treasury) -> int:
        signing = FileKey.open(key)
        head = await treasury.ledger().head()
        at = int(datetime.now(UTC).timestamp() * 1_000_000)
        made = await asyncio.to_thread(anchor, file, head, key=signing, at=at)
        render.note(f"row {made.seq} is kept in {file}, signed by {made.key_id}")
        return DONE

    return _run(work)


def statement(month: str, csv: Path | None, plot: Path | None, *, as_json: bool) -> int:
    month = month or datetime.now(UTC).strftime("%Y-%m")

    async def work(treasury: Treasury) -> int:
        found = await treasury.statement(month)
        if csv is not None:
            with _writing(csv).open("w", newline="", encoding="utf-8") as file:
                file.write(csv_head())
                file.writelines(map(csv_line, found.transfers))
        if plot is not None:
            from chimera.treasury.statement_plot import plot_statement

            plot_statement(found, _writing(plot))
        if as_json:
            render.line(found.model_dump_json())
        else:
            from chimera.cli.treasury.statement import show

            show(found)
        return DONE

    return _run(work, as_json=as_json)


def new_key(file: Path, key_id: str) -> int:
    file = _whole(file)

    async def work() -> int:
        made = FileKey.create(file, key_id)
        render.note("for `people` in treasury.yaml, below your name; the vault reads it when it starts:")
        render.line(f"{made.key_id}: {made.public.hex()}")
        return DONE

    return command.run(work(), as_json=False)


def _run(work: Callable[[Treasury], Awaitable[int]], *, as_json: bool = False) -> int:
    async def with_treasury() -> int:
        async with _open() as treasury:
            return await work(treasury)

    return command.run(with_treasury(), as_json=as_json)


@asynccontextmanager
async def _open() -> AsyncIterator[Treasury]:
    """The treasury of CHIMERA_HOME, with the vault that runs, or one that ends with this command."""
    settings = read_settings()
    place = VaultHome.at(settings.home)
    if not place.config.exists():
        raise InputError(f"there is no treasury in {place.folder}: `chimera treasury init` makes one")
    vault = None
    if not await _answers(place.socket(LedgerRole.APP)):
        if not os.access(place.vault, os.R_OK | os.X_OK):
            raise InputError(f"no vault runs on {place.folder}, and it is another user's: let them run it")
        vault = await asyncio.to_thread(start_vault, settings.home, end_with_me=True)
    try:
        async with Treasury(settings) as treasury:
            yield treasury
    finally:
        if vault is not None:
            await asyncio.to_thread(vault.stop)


async def _answers(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return False
    writer.close()
    return True


def _exit_code(payment: Payment) -> int:
    match payment.state:
        case PaymentState.PAID | PaymentState.RESERVED:
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
