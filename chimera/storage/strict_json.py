"""JSON that comes back as it was, or an error: what is stored must not change on the way."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from pydantic_core import to_json

MAX_INTEGER_DIGITS = 4_300
"""Python reads no longer integers from text."""


def dumps(value: Any) -> bytes:
    """`value` as a line of UTF-8. Raises ValueError for NaN, infinity, a lone surrogate and what has no JSON form."""
    line = to_json(value)
    if len(line) > MAX_INTEGER_DIGITS or b"NaN" in line or b"Infinity" in line:  # words that text may hold, too
        json.loads(line, parse_constant=_refuse)
    return line


def loads(line: bytes | str) -> Any:
    """What `dumps` was given, of any depth that it takes: pydantic's own parser goes less deep. Raises ValueError."""
    return json.loads(line, parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
