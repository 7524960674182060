"""The accounts that content goes out by: each declared once, as automated, with somebody who answers for it.

Platforms ask of automated accounts that they say what they are and whose they are. So there is one identity to an
account and one account to an identity, and a file that says otherwise is not loaded:

    accounts:
      - name: acme.bluesky
        platform: bluesky
        server: https://bsky.social
        handle: acme.example
        operator: {name: Acme GmbH, contact: press@acme.example}
        brand: Acme
        automated: true
        disclosure: AI-generated.
        credentials: bluesky.json
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from chimera.core.errors import Forbidden, InputError
from chimera.core.types import Frozen
from chimera.security.safety.disclosures import BY_LANGUAGE, DISCLOSURES
from chimera.security.safety.policy import Channel, Disclosure, SafetyPolicy
from chimera.security.safety.views import plain, raw

MAX_FILE_BYTES: Final = 1_000_000
MAX_ACCOUNTS: Final = 100
MAX_PER_HOUR: Final = 12
MAX_PER_DAY: Final = 100
"""What no file can raise: above these, people call an account spam whatever it says."""

MAX_CHARS: Final = {"bluesky": 300, "mastodon": 500, "outbox": 5_000}
"""Of one post. Bluesky counts graphemes, of which a text never has more than characters."""

Platform = Literal["bluesky", "mastodon", "outbox"]
Word = Annotated[str, Field(min_length=1, max_length=100)]
TimeOfDay = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class Operator(Frozen):
    """Who answers for an account: a person or a company, and where they can be reached."""

    name: Annotated[str, Field(min_length=2, max_length=200)]
    contact: Annotated[str, Field(min_length=5, max_length=200, pattern=r"^(https://\S+|[^@\s]+@[^@\s]+\.[^@\s]+)$")]


class Caps(Frozen):
    """The most that goes out, each post of a thread counted, and the least time between two posts."""

    per_hour: Annotated[int, Field(ge=1, le=MAX_PER_HOUR)] = 4
    per_day: Annotated[int, Field(ge=1, le=MAX_PER_DAY)] = 24
    gap_s: Annotated[float, Field(ge=0.0, le=86_400.0)] = 300.0


class Quiet(Frozen):
    """The hours in which nothing goes out, by the account's time zone. They may pass midnight."""

    begins: TimeOfDay
    ends: TimeOfDay

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        if self.begins == self.ends:
            raise ValueError("quiet hours begin and end at different times, or nothing would ever go out")
        return self


class Topics(Frozen):
    """Words that say what an account is about. With `allowed`, a post has one of them; of `forbidden` it has none."""

    allowed: tuple[Word, ...] = Field(default=(), max_length=200)
    forbidden: tuple[Word, ...] = Field(default=(), max_length=200)


class Account(Frozen):
    """One automated account. `name` is the channel that its posts are reviewed for."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*$", max_length=64)]
    platform: Platform
    server: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+/?$", max_length=300)] = ""
    handle: Annotated[str, Field(pattern=r"^@?[A-Za-z0-9_.-]+(@[A-Za-z0-9.-]+)?$", max_length=253)]
    operator: Operator
    brand: Annotated[str, Field(min_length=1, max_length=100)]
    automated: Literal[True]
    disclosure: str = "AI-generated."
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en"
    topics: Topics = Topics()
    audience: Annotated[str, Field(min_length=1, max_length=256)] = "public"
    caps: Caps = Caps()
    quiet: Quiet | None = None
    time_zone: str = "UTC"
    credentials: Path | None = None

    @field_validator("server")
    @classmethod
    def _names_a_host(cls, server: str) -> str:
        try:
            _host(server)
        except ValueError:
            raise ValueError(f"{server} is no address of a server, such as https://bsky.social") from None
        return server

    @field_validator("disclosure")
    @classmethod
    def _says_so(cls, words: str) -> str:
        if words not in DISCLOSURES:
            raise ValueError(f"the disclosure is one of: {' | '.join(sorted(DISCLOSURES))}")
        return words

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{name} is no time zone of the IANA database, such as Europe/Berlin") from None
        return name

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        own = BY_LANGUAGE.get(self.language.partition("-")[0], ())
        if self.disclosure not in (*own, *BY_LANGUAGE["en"]):
            readable = " | ".join((*own, *BY_LANGUAGE["en"]))
            raise ValueError(f"readers of {self.language} cannot read {self.disclosure!r}: it is one of {readable}")
        return self

    @model_validator(mode="after")
    def _can_log_in(self) -> Self:
        if self.platform != "outbox" and not (self.server and self.credentials):
            raise ValueError(f"{self.name}: an account at {self.platform} needs `server` and `credentials`")
        return self

    @property
    def identity(self) -> str:
        """Who it is at its platform, in one spelling: what must not stand behind two accounts.

        At Bluesky a handle is one account on all servers: its data server and the entryway both log it in.
        """
        handle = plain(raw(self.handle)).text.casefold().lstrip("@").rstrip(".")
        if self.platform != "mastodon":
            return f"{self.platform}:{handle}"
        host = _host(self.server)
        return f"{self.platform}:{host}:{handle.removesuffix('@' + host)}"

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.time_zone)


def _host(server: str) -> str:
    """The server's name in one spelling, with its port if that is not the usual one. Raises ValueError for none."""
    address = urlsplit(server)
    name = (address.hostname or "").encode("idna").decode().rstrip(".")
    usual = {"http": 80, "https": 443}.get(address.scheme)
    return name if address.port in (None, usual) else f"{name}:{address.port}"


def declared(accounts: Iterable[Account]) -> dict[str, Account]:
    """The accounts by name. Raises Forbidden for two names of one identity, or two identities of one name.

    A brand that speaks by several accounts has one operator for all of them, and no two accounts share credentials.
    """
    by_name: dict[str, Account] = {}
    owner: dict[str, str] = {}
    for one in accounts:
        claims = [f"the name {one.name}", f"the identity {one.identity}"]
        if one.credentials is not None:
            claims.append(f"the credentials {one.credentials}")
        for claim in claims:
            if claim in owner:
                raise Forbidden(f"{owner[claim]} and {one.name} both have {claim}: an account has one identity")
            owner[claim] = one.name
        by_name[one.name] = one
        brand = f"brand {plain(raw(one.brand)).text.casefold().strip()}"
        who = owner.setdefault(brand, one.operator.name)
        if who != one.operator.name:
            raise Forbidden(f"{who} and {one.operator.name} both answer for the {brand}: name one operator")
    if len(by_name) > MAX_ACCOUNTS:
        raise InputError(f"at most {MAX_ACCOUNTS} accounts")
    return by_name


def load_accounts(path: Path) -> dict[str, Account]:
    """The accounts in a YAML file, by name; paths of credentials are relative to it.

    Raises InputError for a file that cannot be read or says a thing twice, Forbidden where identities are shared.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: a file of accounts has at most {MAX_FILE_BYTES} bytes")
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        if not isinstance(data, dict) or set(data) != {"accounts"} or not isinstance(data["accounts"], list):
            raise InputError(f"{path}: a file of accounts is `accounts:` and a list of them")
        accounts = [Account.model_validate(one) for one in data["accounts"]]
    except (OSError, UnicodeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    here = path.parent.resolve()
    return declared(
        one.model_copy(update={"credentials": (here / one.credentials).resolve()}) if one.credentials else one
        for one in accounts
    )


class _Loader(yaml.SafeLoader):
    """The safe loader, less repeated keys, by which one account could be declared as two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        keys = [key.value for key, _ in node.value]
        if len(keys) != len(set(map(str, keys))):
            raise InputError(f"a key stands twice in one mapping (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


class Credentials(Frozen):
    """What an account logs in with: an app password at Bluesky, an access token at Mastodon."""

    secret: SecretStr


def load_credentials(path: Path) -> Credentials:
    """Those in a JSON file `{"secret": "..."}` that only its owner may read (0600).

    Raises Forbidden for one that others may read, InputError for one that is not there or holds something else.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode) or seen.st_mode & 0o077 or seen.st_uid != os.geteuid():
                raise Forbidden(f"{path} is not its owner's alone: chmod 600 {path}")
            return Credentials.model_validate(json.loads(file.read(10_000)))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: it holds the account's credentials") from None
    except ValueError:  # said without what stands there
        raise InputError(f'{path}: credentials are {{"secret": "..."}}') from None


def channels(accounts: Iterable[Account]) -> dict[str, Channel]:
    """A channel for each account, with its disclosure before everything else."""
    return {
        one.name: Channel(max_chars=MAX_CHARS[one.platform], disclosure=Disclosure(words=one.disclosure))
        for one in accounts
    }


def content_policy(accounts: Iterable[Account], policy: SafetyPolicy | None = None) -> SafetyPolicy:
    """`policy` with a channel for each account, in place of any of that name."""
    base = policy or SafetyPolicy()
    return base.model_copy(update={"channels": base.channels | channels(accounts)})
