"""`treasury.yaml`: caps, rules, whose word counts, who may connect. Strict: what it does not know is an error.

Amounts are in whole units, as people write them (12.50); what is made of them is in billionths.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from chimera.core.errors import InputError, SecurityError
from chimera.core.types import Frozen
from chimera.security.strangers import is_strangers
from chimera.treasury.breaker import BreakerLimits
from chimera.treasury.keys import MAX_KEYS_EACH, MAX_PEOPLE, Keyring, public_key
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.policy import Policy
from chimera.treasury.types import (
    DEFAULT_CAPS,
    MAX_AMOUNT,
    Account,
    AccountKind,
    Cap,
    Currency,
    Id,
    Line,
    Rules,
    Window,
    nano,
)

MAX_FILE_BYTES = 1_000_000
MAX_ERRORS_SHOWN = 5
MAX_EACH = 1_000
DOORS = (LedgerRole.APP, LedgerRole.APPROVER, LedgerRole.OWNER)
"""The roles that have a socket. The CFO's is the vault itself."""


def _billionths(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("write an amount, such as 12.50")
    try:
        return nano(value)
    except InputError as error:
        raise ValueError(str(error)) from None


def _spend_in_units(value: object) -> object:
    if isinstance(value, Mapping) and isinstance(value.get("spend"), Mapping):
        return {**value, "spend": {name: _billionths(amount) for name, amount in value["spend"].items()}}
    return value


Money = Annotated[int, BeforeValidator(_billionths), Field(ge=0, le=MAX_AMOUNT)]
Uids = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(max_length=MAX_EACH)]
Keys = Annotated[
    dict[Id, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]], Field(min_length=1, max_length=MAX_KEYS_EACH)
]


class CapSetting(Frozen):
    """A cap. Windows that roll: last_day, last_week, last_month; of UTC's calendar: day, week, month."""

    account: str = "*"
    currency: Currency = "USD"
    window: Window
    limit: Money

    def cap(self) -> Cap:
        return Cap(account=self.account, currency=self.currency, window=self.window, limit=self.limit)


class RuleSetting(Frozen):
    """Above `ask_over` a person approves, above `dual_over` two keys do."""

    ask_over: Money = Rules().ask_over
    dual_over: Money = Rules().dual_over


class AccountSetting(Frozen):
    """An account that is made at the first start."""

    id: Id
    kind: AccountKind
    currency: Currency = "USD"
    title: Line = ""


class VaultConfig(Frozen):
    """What a vault is told. The ledger's own caps and rules are made from it once; the ledger keeps what they become.

    `people`: approver -> key id -> public key, in hex; whoever is named there signs. Where `unsigned_approvals` is off,
    nobody else approves either. `connect`: role -> the users (by number) who may, instead of the vault's own. An empty
    `ledger_url` is a SQLite file in the vault's folder.
    """

    caps: Annotated[tuple[CapSetting, ...], Field(max_length=MAX_EACH)] = tuple(
        CapSetting.model_construct(account=cap.account, currency=cap.currency, window=cap.window, limit=cap.limit)
        for cap in DEFAULT_CAPS
    )
    rules: dict[Currency, RuleSetting] = Field(default_factory=lambda: {"USD": RuleSetting()}, max_length=MAX_EACH)
    accounts: Annotated[tuple[AccountSetting, ...], Field(max_length=MAX_EACH)] = ()
    people: dict[Id, Keys] = Field(default_factory=dict, max_length=MAX_PEOPLE)
    unsigned_approvals: bool = True
    connect: dict[LedgerRole, Uids] = Field(default_factory=dict)
    ledger_url: Annotated[str, Field(pattern=r"^(postgres(ql)?://.*)?$", max_length=2_000)] = ""
    policy: Policy = Policy()
    breaker: Annotated[BreakerLimits, BeforeValidator(_spend_in_units)] = BreakerLimits()

    @model_validator(mode="after")
    def _fits(self) -> VaultConfig:
        if LedgerRole.CFO in self.connect:
            raise ValueError("connect: nobody connects as the CFO: that is the vault itself")
        if "@" in self.ledger_url:
            raise ValueError("ledger_url: no user or password here: logins are in the vault's folder")
        return self

    def keyring(self, cfo: Mapping[str, bytes]) -> Keyring:
        """With the CFO's public keys. Raises InputError for a key that two have."""
        people = {who: {key_id: public_key(key) for key_id, key in keys.items()} for who, keys in self.people.items()}
        return Keyring(cfo=cfo, people=people)

    def uids(self, role: LedgerRole) -> frozenset[int]:
        """Who may connect to the socket of that role, root aside."""
        return frozenset(self.connect.get(role, (os.geteuid(),)))

    def standing(self) -> tuple[list[Cap], list[Rules], list[Account]]:
        """What the ledger is to have from its first day on."""
        rules = [
            Rules(currency=currency, ask_over=each.ask_over, dual_over=each.dual_over)
            for currency, each in self.rules.items()
        ]
        accounts = [
            Account(id=each.id, kind=each.kind, currency=each.currency, title=each.title) for each in self.accounts
        ]
        return [each.cap() for each in self.caps], rules, accounts


def read_config(path: Path) -> VaultConfig:
    """The settings in the file at `path`.

    Raises InputError, which names the line of each mistake, and SecurityError for a file that others can write.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): init makes one") from None
    with open(file, "rb") as reading:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or is_strangers(status) or status.st_mode & 0o022:
            raise SecurityError(
                f"{path} can be written by others: whoever writes it, spends; chown it to root, chmod go-w it"
            )
        data = reading.read(MAX_FILE_BYTES + 1)
    try:
        if len(data) > MAX_FILE_BYTES:
            raise InputError(f"larger than {MAX_FILE_BYTES} bytes")
        return parse_config(data.decode())
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_config(text: str) -> VaultConfig:
    """The settings in a YAML document. Raises InputError, which names the line of each mistake."""
    try:
        root = yaml.compose(text, Loader=_Loader)
        told = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"not YAML: {line}{error.problem or error.context}") from None
    except InputError:
        raise
    except Exception as error:  # PyYAML's own constructors raise IndexError, KeyError and more on odd tags
        raise InputError(f"not YAML: {type(error).__name__}: {error!s:.300}") from None
    if told is not None and not isinstance(told, dict):
        raise InputError("a treasury is a table of settings, such as `caps:`")
    try:
        return VaultConfig.model_validate(told or {})
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        shown = "; ".join(_explain(each, root) for each in found[:MAX_ERRORS_SHOWN])
        more = f" (and {len(found) - MAX_ERRORS_SHOWN} more)" if len(found) > MAX_ERRORS_SHOWN else ""
        raise InputError(f"{shown}{more}") from None


class _Loader(yaml.SafeLoader):
    """The safe loader, less what lets a setting hide. Numbers stay text: an amount is exact, a key of digits a key."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            where = f"line {key.start_mark.line + 1}"
            if key.tag == "tag:yaml.org,2002:merge":
                raise InputError(f"{where}: merge keys (<<) cannot be used here")
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise InputError(f"{where}: {key.value!a:.100} stands there twice")
                seen.add(key.value)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise InputError(f"line {event.start_mark.line + 1}: aliases (*name) cannot be used here")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda _, node: node.value)


def _explain(details: Any, root: yaml.Node | None) -> str:
    name = ".".join(str(part) for part in details["loc"])
    line = _line(root, details["loc"])
    what = details["msg"].removeprefix("Value error, ")
    said = "there is no such setting" if details["type"] == "extra_forbidden" else what[:1].lower() + what[1:]
    return f"line {line}: {name:.200}: {said:.300}" if name else said[:300]


def _line(node: yaml.Node | None, where: tuple[str | int, ...]) -> int:
    """Where that field stands; where its parent does, if it is not there."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            pair = (node.value[part], node.value[part])
        else:
            pair = None
        if pair is None:
            break
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line
