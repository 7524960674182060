"""The treasury's folder, and what is made in it before the first start: keys, settings, logins; whatever is missing.

`treasury.yaml` and `run/*.sock` are for whoever may connect; `vault/` is the vault's alone: the CFO's keys, the ledger
or the logins to its database, the log.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chimera.core.errors import InputError, SecurityError
from chimera.treasury.keys import FileKey, private_text, public_key
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.policy import Policy
from chimera.treasury.vault.config import DOORS, VaultConfig

MAX_LOGINS_BYTES = 100_000

LEDGER_URL = "CHIMERA_LEDGER_URL"
"""Where the ledger is, in the environment. No setting: those travel to every actor, and it may hold a password."""

_KEY = re.compile(r"cfo-(\d{1,6})\.(pem|pub)")

TEMPLATE = """\
# The treasury's settings. The vault reads them when it starts. Amounts are in whole units: 12.50.

# The most that may be spent. These are the ledger's first caps; later ones are set through the owner's socket.
# Windows that roll: last_day, last_week, last_month. Of UTC's calendar: day, week, month.
caps:
  - {{window: last_day, limit: 1000}}
  - {{window: last_week, limit: 5000}}
  - {{window: last_month, limit: 20000}}

# Above ask_over a person approves, above dual_over two keys do: two people's, or a person's and the CFO's.
rules:
  USD: {{ask_over: 50, dual_over: 500}}

# Accounts that are made at the first start: fund (ours), outside, metered (outside, and paid by use, as a model is).
accounts: []
#  - {{id: cash, kind: fund}}
#  - {{id: model, kind: metered}}

# Who signs their approvals, and their public keys in hex. With unsigned_approvals off nobody else approves.
people: {{}}
#  ann: {{ann-1: 5866666666666666666666666666666666666666666666666666666666666666}}
unsigned_approvals: true

# Which users (their numbers) may connect to which socket, besides root. One that is not named is for the vault's own
# user; agents that run as that user could connect too, so give the vault one of its own, or name nobody: {{owner: []}}.
connect: {connect}

# Empty: a SQLite file in the vault's folder. Or postgresql://HOST/DB: the logins are in vault/logins.json.
ledger_url: {ledger_url}

# From which risk on a person is asked, from which on it is refused; what a person always has to see.
policy: {{ask_at: {policy.ask_at}, refuse_at: {policy.refuse_at}, critical_categories: [], critical_payees: []}}
"""


@dataclass(frozen=True)
class VaultHome:
    """Where things are, below CHIMERA_HOME."""

    home: Path

    @classmethod
    def at(cls, home: Path) -> VaultHome:
        return cls(home.expanduser().absolute())

    @property
    def folder(self) -> Path:
        return self.home / "treasury"

    @property
    def config(self) -> Path:
        return self.folder / "treasury.yaml"

    @property
    def vault(self) -> Path:
        return self.folder / "vault"

    @property
    def ledger(self) -> Path:
        return self.vault / "ledger.db"

    @property
    def logins(self) -> Path:
        return self.vault / "logins.json"

    def socket(self, role: LedgerRole) -> Path:
        return self.folder / "run" / f"{role}.sock"

    def signing_key(self, passphrase: str = "") -> FileKey:
        """The newest of the CFO's keys. Raises SecurityError."""
        numbers = [number for number, end in self._keys() if end == "pem"]
        if not numbers:
            raise SecurityError(f"{self.vault} holds no key of the CFO: init makes one, or restore it")
        return FileKey.open(self.vault / f"cfo-{max(numbers)}.pem", passphrase)

    def cfo_keys(self) -> dict[str, bytes]:
        """The CFO's public keys, by key id: those of old keys too, whose words stay good."""
        found = {}
        for number, end in self._keys():
            if end == "pub":
                key_id, _, key = private_text(self.vault / f"cfo-{number}.pub").strip().partition(" ")
                found[key_id] = public_key(key)
        return found

    def new_key(self, passphrase: str = "") -> FileKey:
        """A new key for the CFO, with which the vault signs from its next start on. The old secrets are removed."""
        number = max((number for number, _ in self._keys()), default=0) + 1
        key = FileKey.create(self.vault / f"cfo-{number}.pem", f"cfo-{number}", passphrase)
        _write_new(self.vault / f"cfo-{number}.pub", f"{key.key_id} {key.public.hex()}\n", 0o600)
        for old, end in self._keys():
            if end == "pem" and old < number:
                (self.vault / f"cfo-{old}.pem").unlink()
        return key

    def role_urls(self) -> dict[LedgerRole, str]:
        """The login of each role to the ledger's database. Raises SecurityError."""
        try:
            told = json.loads(private_text(self.logins, MAX_LOGINS_BYTES))
            return {role: str(told[role.value]) for role in LedgerRole}
        except (ValueError, KeyError, TypeError):
            names = ", ".join(LedgerRole)
            raise SecurityError(f"{self.logins} is to hold a login for each of {names}: restore it") from None

    def _keys(self) -> list[tuple[int, str]]:
        names = sorted(os.listdir(self.vault)) if self.vault.is_dir() else []
        return [(int(match[1]), match[2]) for name in names if (match := _KEY.fullmatch(name))]


async def init(
    home: Path,
    *,
    user: str = "",
    connect: Mapping[LedgerRole, tuple[int, ...]] | None = None,
    superuser_url: str = "",
    passphrase: str = "",
) -> VaultHome:
    """Make what is missing below `home`: folders, a key for the CFO, settings, logins. Again, it changes nothing.

    With `user` (root only) the vault is to run as that user, and all but the settings becomes theirs. `connect` says
    who may connect to which socket. With `superuser_url` the ledger is in that PostgreSQL database, and a login with a
    password of its own is made there for each role. The ledger itself is made at the first start. Raises InputError,
    SecurityError, LedgerError, LedgerUnavailable.
    """
    if user and os.geteuid() != 0:
        raise SecurityError(f"only root can make a vault for {user}")
    if any(role not in DOORS for role in connect or {}):
        raise InputError(f"connect: the sockets are {', '.join(DOORS)}")
    place = VaultHome.at(home)
    place.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for folder, mode in ((place.vault, 0o700), (place.socket(LedgerRole.APP).parent, 0o755)):
        if not folder.exists():
            folder.mkdir(mode=mode)
            folder.chmod(mode)
    if superuser_url and not place.logins.exists():
        logins = await _make_logins(superuser_url)
        _write_new(place.logins, json.dumps(logins, indent=1) + "\n", 0o600)
    if not place._keys():
        place.new_key(passphrase)
    if not place.config.exists():
        told = {role.value: list(uids) for role, uids in (connect or {}).items()}
        url = _without_login(superuser_url) if superuser_url else ""
        _write_new(place.config, template(told, url), 0o644)
    if user:
        _give(place, user)
    return place


def check_ledger(config: VaultConfig, url: str) -> None:
    """Raises InputError where `url`, of the environment, is another ledger than that of the settings. Logins aside."""
    if url and _without_login(url) != config.ledger_url:
        there = config.ledger_url or "a SQLite file"
        raise InputError(
            f"{LEDGER_URL} is {_without_login(url)}, and treasury.yaml has {there}: a ledger does not move; unset the"
            " one, or make a treasury in another home"
        )


def template(connect: Mapping[str, list[int]], ledger_url: str) -> str:
    """A `treasury.yaml` that says what holds without one, for people to change."""
    return TEMPLATE.format(connect=json.dumps(connect), ledger_url=json.dumps(ledger_url), policy=Policy())


async def _make_logins(superuser_url: str) -> dict[str, str]:
    """A login for each role, in its group; the tables are made with it."""
    from chimera.treasury.postgres import PostgresLedger

    ledger = PostgresLedger(url=superuser_url, role=LedgerRole.OWNER, verify=lambda _: False)
    try:
        await ledger.head()  # makes the tables and the groups
    finally:
        await ledger.close()
    import psycopg
    from psycopg import sql

    logins = {}
    async with await psycopg.AsyncConnection.connect(superuser_url) as connection:
        for role in LedgerRole:
            name, password = f"chimera_{role}_{secrets.token_hex(4)}", secrets.token_urlsafe(32)
            statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
            group = sql.Identifier(f"chimera_treasury_{role}")
            await connection.execute(statement.format(sql.Identifier(name), sql.Literal(password), group))
            scheme, _, rest = _without_login(superuser_url).partition("://")
            logins[role.value] = f"{scheme}://{name}:{password}@{rest}"
    return logins


def _without_login(url: str) -> str:
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


def _write_new(path: Path, text: str, mode: int) -> None:
    """All of it or nothing, durably, in place of nothing."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    file = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        with open(file, "w") as writing:
            writing.write(text)
            writing.flush()
            os.fchmod(file, mode)
            os.fsync(file)
        os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give(place: VaultHome, user: str) -> None:
    """All of the folder to that user; links are not followed. Raises InputError.

    The settings stay root's: everybody goes by them, so nobody else may write them.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise InputError(f"there is no user {user!r:.60}: make one (useradd --system), or leave it out") from None
    for at, folders, files in os.walk(place.folder):
        for name in (at, *(os.path.join(at, each) for each in (*folders, *files))):
            if name != str(place.config):
                os.chown(name, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
