"""The vault's own process: takes the lock, the key and the ledger, serves until it is told to end, and watches."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import ChimeraError, LedgerError, LedgerUnavailable, SecurityError
from chimera.treasury.keys import Keyring
from chimera.treasury.ledger import Ledger, LedgerRole
from chimera.treasury.sqlite import SqliteLedger
from chimera.treasury.types import Approval, Cap, Refused, Rules
from chimera.treasury.vault.config import DOORS, VaultConfig, read_config
from chimera.treasury.vault.decide import Decider
from chimera.treasury.vault.home import VaultHome
from chimera.treasury.vault.records import LedgerRecords
from chimera.treasury.vault.server import Door, VaultServer
from chimera.treasury.vault.wire import PublicKeys

WATCH_S = 1.0

log = logging.getLogger(__name__)


class People:
    """Whose approvals count. Who has a key in the settings signs; who has none, only where that is allowed."""

    def __init__(self, keyring: Keyring, *, unsigned: bool) -> None:
        self._keyring = keyring
        self._unsigned = unsigned

    def refusing(self, word: Approval) -> str | None:
        """Why this approval is not taken; None if it is."""
        if word.signature:
            return None if self._keyring.verify(word) else f"this is not the signature of {word.approver}"
        if word.approver in self._keyring.people:
            return f"{word.approver} has a key, and signs with it"
        return None if self._unsigned else "approvals have to be signed: treasury.yaml says whose keys count"

    def trusted(self, word: Approval) -> bool:
        return self.refusing(word) is None


async def run(place: VaultHome, *, passphrase: str = "") -> None:
    """Serve until SIGTERM or SIGINT. Raises InputError, SecurityError, LedgerError, LedgerUnavailable."""
    ended = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    with locked(place.vault / "vault.lock"):
        async with vault(place, passphrase=passphrase) as decider:
            log.info("serving %s", place.folder)
            while not ended.is_set():
                try:
                    await decider.watch()
                except ChimeraError:
                    log.exception("watching the ledger")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), WATCH_S)
    log.info("ended")


@asynccontextmanager
async def vault(place: VaultHome, *, passphrase: str = "", clock: Clock | None = None) -> AsyncIterator[Decider]:
    """A vault that serves from this process, which has the lock."""
    clock = clock or SystemClock()
    config = read_config(place.config)
    key = place.signing_key(passphrase)
    known = place.cfo_keys()
    if known.get(key.key_id) != key.public:
        raise SecurityError(f"{place.vault}: the public key of {key.key_id} is not that of its file: restore both")
    keyring = config.keyring(known)
    people = People(keyring, unsigned=config.unsigned_approvals)
    async with AsyncExitStack() as stack:
        ledgers: dict[LedgerRole, Ledger] = {}
        for role in LedgerRole:  # the owner first, who makes the tables
            ledgers[role] = open_ledger(place, config, role, keyring, clock)
            stack.push_async_callback(ledgers[role].close)
            await ledgers[role].head()
        reading = open_ledger(place, config, LedgerRole.APP, keyring, clock)
        stack.push_async_callback(reading.close)
        records = LedgerRecords(ledger=reading, policy=config.policy, limits=config.breaker)
        await records.follow()
        await furnish(ledgers[LedgerRole.OWNER], ledgers[LedgerRole.APP], config, records)
        decider = Decider(key=key, ledger=ledgers[LedgerRole.CFO], records=records, trusted=people.trusted, clock=clock)
        doors = [
            Door(path=place.socket(role), role=role, uids=config.uids(role), for_cfo=role is LedgerRole.APP)
            for role in DOORS
        ]
        server = VaultServer(
            doors=doors,
            ledgers=ledgers,
            reading=reading,
            signer=decider,
            refusing=people.refusing,
            public_keys=_shown(keyring),
        )
        stack.push_async_callback(server.close)
        await server.start()
        yield decider


async def furnish(owner: Ledger, app: Ledger, config: VaultConfig, records: LedgerRecords) -> None:
    """What the settings name and the ledger has not: caps, rules, accounts. Where it has others, those stay."""
    caps, rules, accounts = config.standing()
    there = {(use.cap.account, use.cap.currency, use.cap.window): use.cap for use in await owner.caps()}
    for cap in caps:
        found = there.get((cap.account, cap.currency, cap.window))
        await _set(owner, cap, found)
    for rule in rules:
        await _set(owner, rule, records.rules(rule.currency))
    for account in accounts:
        known = await owner.account(account.id)
        if known is None:
            writer = owner if account.kind == "metered" else app
            [outcome] = await writer.write([account])
            if isinstance(outcome, Refused):
                raise LedgerError(f"the account {account.id} cannot be made: {outcome.detail}")
        elif known != account:
            _differs(account, known)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One vault at a time. Raises LedgerUnavailable."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise LedgerUnavailable(f"another vault (pid {holder}) serves {path.parent}: there is one") from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(file)


async def _set(owner: Ledger, wanted: Cap | Rules, found: Cap | Rules | None) -> None:
    if found is None:
        outcome = await (owner.set_cap(wanted) if isinstance(wanted, Cap) else owner.set_rules(wanted))
        if isinstance(outcome, Refused):
            raise LedgerError(f"{outcome.id} cannot be set: {outcome.detail}")
    elif found != wanted:
        _differs(wanted, found)


def _differs(wanted: object, found: object) -> None:
    log.warning(
        "the ledger has %r, and treasury.yaml %r: the ledger's holds, until its owner sets another", found, wanted
    )


def open_ledger(place: VaultHome, config: VaultConfig, role: LedgerRole, keyring: Keyring, clock: Clock) -> Ledger:
    """The vault's own ledger, as that role: for the vault, and for an audit while none runs."""
    if not config.ledger_url:
        return SqliteLedger(path=place.ledger, role=role, verify=keyring.verify, clock=clock)
    from chimera.treasury.postgres import PostgresLedger

    return PostgresLedger(url=place.role_urls()[role], role=role, verify=keyring.verify)


def _shown(keyring: Keyring) -> PublicKeys:
    def texts(keys: Mapping[str, bytes]) -> dict[str, str]:
        return {key_id: key.hex() for key_id, key in keys.items()}

    return PublicKeys(cfo=texts(keyring.cfo), people={who: texts(keys) for who, keys in keyring.people.items()})
