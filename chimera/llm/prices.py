"""What models cost: US dollars per million tokens, by patterns of their names. What is not said is unknown, never 0.

Providers change prices without notice, so none are built in: they are configuration. Amounts are counted in whole
billionths of a dollar, rounded up, so that sums are exact and no rounding lets a cap be passed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from chimera.core.errors import InputError
from chimera.core.types import Frozen

MAX_PATTERNS = 1_000
MAX_CHARS = 1_000_000
"""Of a text with prices."""
MAX_ERRORS_SHOWN = 10

NANO = 1_000_000_000
"""The unit of money here: so many make a dollar."""

Usd = Annotated[float, Field(ge=0.0, le=1_000_000.0, allow_inf_nan=False)]

EXAMPLE = "{input: 1.25, output: 10}"


class Price(Frozen):
    """USD per million tokens read (`input`) and written (`output`), and USD for each `call` on top.

    `cached` is for tokens read that the provider had in its cache, `stored` for those that it put there; None: as
    `input`.
    """

    input: Usd
    output: Usd
    cached: Usd | None = None
    stored: Usd | None = None
    call: Usd = 0.0

    def cost(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0, tokens_stored: int = 0) -> int:
        """Billionths of a dollar for one call. `tokens_cached` and `tokens_stored` are among `tokens_in`."""
        stored = min(tokens_stored, tokens_in)
        cached = min(tokens_cached, tokens_in - stored)
        read = _pico(self.input) * (tokens_in - stored - cached)
        read += _pico(self.input if self.cached is None else self.cached) * cached
        read += _pico(self.input if self.stored is None else self.stored) * stored
        return -(-(read + _pico(self.output) * tokens_out) // 1_000) + nano(self.call)

    def most(self, tokens_in: int, tokens_out: int) -> int:
        """Billionths of a dollar that a call of at most so many tokens can cost."""
        ways = ((0, 0), (tokens_in, 0), (0, tokens_in))
        return max(self.cost(tokens_in, tokens_out, *way) for way in ways)


_BY_PATTERN: TypeAdapter[dict[str, Price]] = TypeAdapter(
    dict[Annotated[str, Field(min_length=1, max_length=512)], Price]
)


@dataclass(frozen=True)
class Prices:
    """Prices by pattern: a model's whole name, or one with `*`, `?` and `[...]` (fnmatch; case counts).

    Make it with `Prices.of` or `Prices.parse`. `Prices()` knows no price.
    """

    patterns: tuple[tuple[str, Price], ...] = ()

    @classmethod
    def of(cls, document: object) -> Prices:
        """From a mapping: `{"openai:gpt-5*": {"input": 1.25, "output": 10}}`. Raises InputError, naming each key."""
        if not isinstance(document, Mapping):
            raise InputError(f"prices are a mapping such as `'openai:gpt-5*': {EXAMPLE}`, not {_kind(document)}")
        if len(document) > MAX_PATTERNS:
            raise InputError(f"{len(document)} prices are too many; the limit is {MAX_PATTERNS}")
        try:
            return cls(tuple(_BY_PATTERN.validate_python(dict(document), strict=True).items()))
        except ValidationError as error:
            raise InputError(f"prices: {_explain(error)}") from None

    @classmethod
    def parse(cls, text: str) -> Prices:
        """From JSON (a text that starts with `{`), else YAML. Raises InputError, naming the line or the key."""
        if len(text) > MAX_CHARS:
            raise InputError(f"prices: {len(text)} characters are too many; the limit is {MAX_CHARS}")
        return cls.of(_json(text) if text.lstrip("\ufeff \t\r\n").startswith("{") else _yaml(text))

    def find(self, model: str) -> Price | None:
        """The price of `model`: of its own name, else of the longest pattern (of equals the first); None: unknown."""
        for pattern, price in self.patterns:
            if pattern == model:
                return price
        return next((price for matches, price in self._compiled if matches.match(model)), None)

    @cached_property
    def _compiled(self) -> list[tuple[re.Pattern[str], Price]]:
        longest_first = sorted(self.patterns, key=lambda pair: -len(pair[0]))
        return [(re.compile(translate(pattern)), price) for pattern, price in longest_first]


def nano(usd: float) -> int:
    """Billionths of a dollar, rounded up; more than a million million dollars count as so many."""
    return math.ceil(round(min(usd, 1e12) * NANO, 3))


def _pico(usd_per_million: float) -> int:
    """Million-millionths of a dollar for one token. What is not free costs at least one."""
    return math.ceil(round(usd_per_million * 1_000_000, 3)) or int(usd_per_million > 0)


def _json(text: str) -> object:
    try:
        return json.loads(text.lstrip("\ufeff"), object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise InputError(f"prices: not JSON: {error}") from None
    except (ValueError, RecursionError) as error:  # thousands of digits, thousands of brackets
        raise InputError(f"prices: not JSON: {error}") from None


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"prices: {twice!a:.100}: stands there twice")
    return fields


def _yaml(text: str) -> object:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(f"prices: not YAML: {line}{error.problem or error.context}") from None
    except InputError:
        raise
    except Exception as error:  # PyYAML's own constructors raise IndexError, KeyError and more on odd tags
        raise InputError(f"prices: not YAML: {type(error).__name__}: {error!s:.300}") from None


class _Loader(yaml.SafeLoader):
    """The safe loader; but a key that stands there twice is an error, as is a merge, which would hide one."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        seen: set[Hashable] = set()
        for key, _ in node.value:
            where = f"prices: line {key.start_mark.line + 1}"
            if key.tag == "tag:yaml.org,2002:merge":
                raise InputError(f"{where}: merge keys (<<) cannot be used here")
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise InputError(f"{where}: {key.value!a:.100} stands there twice")
                seen.add(key.value)


def _explain(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)
    told = [f"{'.'.join(ascii(at)[1:-1] for at in map(str, one['loc']))[:200]}: {one['msg']}" for one in found]
    more = f" (and {len(told) - MAX_ERRORS_SHOWN} more)" if len(told) > MAX_ERRORS_SHOWN else ""
    return "; ".join(told[:MAX_ERRORS_SHOWN]) + more


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
