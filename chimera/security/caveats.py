"""What a capability may be narrowed by, and how that is written in a token: a closed language, read back line by line.

Biscuit's Datalog can say far more: `reject if` with a fact that nobody states passes, and one rule over 40 facts runs
for 13 s whatever its limits say, as they are looked at between rounds only. So a block that holds any line that is not
one of these is refused as a whole, before any of it runs. Every name is of a syntax without quotes, so that what is
written here is what biscuit reads. Source: the Biscuit specification 3.3, https://www.biscuitsec.org.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from chimera.core.errors import InputError

T = TypeVar("T")

MAX_RESOURCE_CHARS = 256
MAX_OPERATIONS = 16
MAX_LINES = 32
MAX_USD = 1e9
MAX_USES = 1_000_000_000
MAX_AT_S = 253_402_300_799  # the last second of the year 9999
READ_BEFORE = 512
"""Blocks, of at most 8 KB each, whose reading is kept for the next use of their token."""

_OPERATION = r"[a-z][a-z0-9_.\-]{0,31}(?::[a-z][a-z0-9_.\-]{0,31}){0,3}"
_SEGMENT = r"[A-Za-z0-9_@:+~\-](?:[A-Za-z0-9_.@:+~\-]*[A-Za-z0-9_@:+~\-])?"
_PATH = rf"{_SEGMENT}(?:/{_SEGMENT})*"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.@:+/\-]{0,127}"
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def check_operation(operation: str) -> str:
    """The name of an operation, such as `swarm:execute`. Raises InputError."""
    if not re.fullmatch(_OPERATION, operation):
        raise InputError(f"an operation is called {_told(operation)}: use small letters, such as `swarm:execute`")
    return operation


def check_path(resource: str) -> str:
    """The name of one resource, such as `missions/42`: no `.`, `..`, `*` or empty part. Raises InputError."""
    if len(resource) > MAX_RESOURCE_CHARS or not re.fullmatch(_PATH, resource):
        raise InputError(f"a resource is called {_told(resource)}: use a path such as `missions/42`, without `*`")
    return resource


def check_pattern(resource: str) -> str:
    """A resource, or with `*` as its last part all that is below it; `*` alone is everything. Raises InputError."""
    if resource != "*":
        path = resource.removesuffix("/*")
        if len(resource) > MAX_RESOURCE_CHARS or not re.fullmatch(_PATH, path):
            raise InputError(f"a resource is called {_told(resource)}: use `missions/42`, `missions/*` or `*`")
    return resource


def check_name(name: str, what: str) -> str:
    """The name of a subject, a verifier or a tenant. Raises InputError."""
    if not re.fullmatch(_NAME, name):
        raise InputError(f"a {what} is called {_told(name)}: use 1 to 128 letters, digits and _.@:+/-")
    return name


def micro_usd(usd: float) -> int:
    """Millionths of a dollar, rounded to the nearest: biscuit has whole numbers only. Raises InputError."""
    if not 0.0 <= usd <= MAX_USD:
        raise InputError(f"an amount of {usd} USD: give 0 to {MAX_USD:.0f}")
    return round(usd * 1_000_000)


def utc(at_s: float) -> datetime:
    """The whole second, in UTC."""
    return datetime.fromtimestamp(math.floor(at_s), UTC)


@dataclass(frozen=True, slots=True)
class ExpiresAt:
    """Of no use from `at_s` on: seconds since the epoch, rounded up to a whole one."""

    at_s: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.at_s <= MAX_AT_S:
            raise InputError(f"an expiry of {self.at_s} s: give seconds since the epoch")
        object.__setattr__(self, "at_s", float(math.ceil(self.at_s)))

    def lines(self) -> str:
        return f"check if time($t), $t < {self.time()};"

    def time(self) -> str:
        return f"{utc(self.at_s):%Y-%m-%dT%H:%M:%SZ}"

    def words(self) -> str:
        return f"until {self.time()}"


@dataclass(frozen=True, slots=True)
class OnResource:
    """Only this resource, or with `/*` at its end what is below it."""

    pattern: str

    def __post_init__(self) -> None:
        check_pattern(self.pattern)

    def lines(self) -> str:
        if self.pattern.endswith("*"):
            return f'check if resource($r), $r.starts_with("{self.pattern[:-1]}");'
        return f'check if resource("{self.pattern}");'

    def words(self) -> str:
        return f"on {self.pattern}"


@dataclass(frozen=True, slots=True)
class OnlyOperations:
    """Only these operations."""

    operations: tuple[str, ...]

    def __post_init__(self) -> None:
        check_operations(self.operations)

    def lines(self) -> str:
        alternatives = " or ".join(f'operation("{name}")' for name in self.operations)
        return f"check if {alternatives};"

    def words(self) -> str:
        return "only " + ", ".join(self.operations)


@dataclass(frozen=True, slots=True)
class MaxUsd:
    """No request of more than `usd`, to a millionth of a dollar. With `Uses`, that is a limit on all of them."""

    usd: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "usd", micro_usd(self.usd) / 1_000_000)

    def lines(self) -> str:
        return f"check if micro_usd($a), $a <= {micro_usd(self.usd)};"

    def words(self) -> str:
        return f"at most {self.usd:g} USD at once"


@dataclass(frozen=True, slots=True)
class Uses:
    """No more than `times` uses, of the token and all that is derived from it together."""

    times: int

    def __post_init__(self) -> None:
        if type(self.times) is not int or not 1 <= self.times <= MAX_USES:  # a bool is an int
            raise InputError(f"{self.times!r} uses: give a whole number, 1 to {MAX_USES}")

    def lines(self) -> str:
        return f"check if counted({self.times});"

    def words(self) -> str:
        return f"at most {self.times} uses"


@dataclass(frozen=True, slots=True)
class ForAudience:
    """Only at the verifier of this name."""

    audience: str

    def __post_init__(self) -> None:
        check_name(self.audience, "verifier")

    def lines(self) -> str:
        return f'check if audience("{self.audience}");'

    def words(self) -> str:
        return f"at {self.audience}"


@dataclass(frozen=True, slots=True)
class ForTenant:
    """Only for requests on behalf of this tenant."""

    tenant: str

    def __post_init__(self) -> None:
        check_name(self.tenant, "tenant")

    def lines(self) -> str:
        return f'check if tenant("{self.tenant}");'

    def words(self) -> str:
        return f"for tenant {self.tenant}"


Caveat: TypeAlias = ExpiresAt | OnResource | OnlyOperations | MaxUsd | Uses | ForAudience | ForTenant


class NotUnderstood(Exception):
    """A block holds a line that is none of these."""


@dataclass(frozen=True, slots=True)
class Right:
    """What the first block gives: operations on a resource, to a subject."""

    subject: str
    operations: tuple[str, ...]
    resource: str

    def __post_init__(self) -> None:
        check_name(self.subject, "subject")
        check_operations(self.operations)
        check_pattern(self.resource)

    def lines(self) -> str:
        fact, path = ("under", self.resource[:-1]) if self.resource.endswith("*") else ("right", self.resource)
        rights = (f'{fact}("{operation}", "{path}");' for operation in self.operations)
        return "\n".join((f'subject("{self.subject}");', *rights))

    def words(self) -> str:
        return f"{self.subject} may {', '.join(self.operations)} on {self.resource}"


def check_operations(operations: Sequence[str]) -> None:
    """Raises InputError unless there are 1 to MAX_OPERATIONS names, each once."""
    if isinstance(operations, str):
        raise InputError(f"operations {_told(operations)}: give a tuple of names, and not one text")
    if not 1 <= len(operations) <= MAX_OPERATIONS or len(set(operations)) != len(operations):
        raise InputError(f"{len(operations)} operations: name 1 to {MAX_OPERATIONS}, each once")
    for operation in operations:
        check_operation(operation)


def _expires(time: str) -> ExpiresAt:
    return ExpiresAt(datetime.fromisoformat(time).timestamp())


def _operations(alternatives: str) -> OnlyOperations:
    return OnlyOperations(tuple(re.findall(r'"([^"]*)"', alternatives)))


_READ: tuple[tuple[re.Pattern[str], Callable[[str], Caveat]], ...] = (
    (re.compile(rf"check if time\(\$t\), \$t < ({_TIME});"), _expires),
    (re.compile(rf'check if resource\(\$r\), \$r\.starts_with\("((?:{_PATH}/)?)"\);'), lambda p: OnResource(p + "*")),
    (re.compile(rf'check if resource\("({_PATH})"\);'), OnResource),
    (re.compile(rf'check if (operation\("{_OPERATION}"\)(?: or operation\("{_OPERATION}"\))*);'), _operations),
    (re.compile(r"check if micro_usd\(\$a\), \$a <= (\d{1,16});"), lambda micro: MaxUsd(int(micro) / 1_000_000)),
    (re.compile(r"check if counted\((\d{1,10})\);"), lambda times: Uses(int(times))),
    (re.compile(rf'check if audience\("({_NAME})"\);'), ForAudience),
    (re.compile(rf'check if tenant\("({_NAME})"\);'), ForTenant),
)
_SUBJECT = re.compile(rf'subject\("({_NAME})"\);')
_RIGHT = re.compile(rf'(right|under)\("({_OPERATION})", "((?:{_PATH}/?)?)"\);')


@lru_cache(maxsize=READ_BEFORE)
def read_caveats(source: str) -> tuple[Caveat, ...]:
    """The caveats of a later block: checks, at least one, and nothing else. Raises NotUnderstood."""
    lines = source.splitlines()
    if not 1 <= len(lines) <= MAX_LINES:
        raise NotUnderstood
    return tuple(_caveat(line) for line in lines)


@lru_cache(maxsize=READ_BEFORE)
def read_first(source: str) -> tuple[Right, tuple[Caveat, ...]]:
    """The right and the caveats of the first block, an expiry among them. Raises NotUnderstood."""
    lines = source.splitlines()
    subject = _SUBJECT.fullmatch(lines[0]) if lines else None
    rights = [right for line in lines[1 : MAX_OPERATIONS + 2] if (right := _RIGHT.fullmatch(line))]
    places = {(right[1], right[3]) for right in rights}
    if subject is None or len(places) != 1:
        raise NotUnderstood
    fact, path = places.pop()
    given = _made(Right, subject[1], tuple(right[2] for right in rights), path + "*" * (fact == "under"))
    caveats = read_caveats("\n".join(lines[1 + len(rights) :]))
    if given.lines().splitlines() != lines[: 1 + len(rights)] or not any(isinstance(c, ExpiresAt) for c in caveats):
        raise NotUnderstood
    return given, caveats


def _caveat(line: str) -> Caveat:
    for pattern, make in _READ:
        if match := pattern.fullmatch(line):
            caveat = _made(make, match[1])
            if caveat.lines() == line:
                return caveat
    raise NotUnderstood


def _made(make: Callable[..., T], *parts: Any) -> T:
    try:
        return make(*parts)
    except (InputError, ValueError):
        raise NotUnderstood from None


def _told(text: str) -> str:
    return repr(text[:80])
