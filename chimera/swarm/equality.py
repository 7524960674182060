"""When two replies count as the same: each value has a canonical form, and equal forms are one candidate.

- `exact`: same JSON types and same content. 1, 1.0 and true are three values; the order of an object's keys is nothing.
- `json`: as `exact`, but numbers compare by value at every depth: 1 and 1.0 are one value, true is another.
- `text`: a string, or any other JSON scalar as its JSON text, without regard to case, to Unicode's compatible
  spellings (full-width, ligatures) and to the amount of white space. Punctuation counts.
- `numeric`: an integer, a float, or a string that holds just a decimal number. A string is read as JSON reads a
  number: digits alone are an exact integer, everything else is the nearest double. Booleans are not numbers.

The canonical form is itself a JSON value, and canonical forms are their own canonical form.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from fractions import Fraction

from pydantic import JsonValue

from chimera.core.errors import ReplyError
from chimera.core.hashing import canonical_json
from chimera.core.types import Equality, EqualityKind

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

_SMALL = 1 << 63


def canonical(value: JsonValue, equality: Equality) -> JsonValue:
    """The form of `value` that is compared and reported; it shares no list or dict with `value`.

    Raises ReplyError when `value` cannot be compared: not JSON (NaN, an infinity, a lone surrogate, nested too deep),
    an array or object under `text`, anything but a number under `numeric`.
    """
    if type(value) is int and abs(value) < _SMALL and equality.kind is not EqualityKind.TEXT:
        return value  # the most usual of all, and its own form
    try:
        match equality.kind:
            case EqualityKind.EXACT:
                form = value
            case EqualityKind.JSON:
                form = _unify_numbers(value)
            case EqualityKind.TEXT:
                form = _fold_text(value)
            case EqualityKind.NUMERIC:
                form = _read_number(value)
        result: JsonValue = json.loads(canonical_json(form).encode())
    except (ValueError, OverflowError, RecursionError) as error:
        raise ReplyError(f"the reply cannot be compared under {equality.kind.value} equality: {error}") from error
    return result


def key(form: JsonValue) -> str:
    """A hashable stand-in for a canonical form: keys are equal exactly when the forms are."""
    if type(form) is int and abs(form) < _SMALL:
        return str(form)
    return canonical_json(form)


def number(form: JsonValue) -> Fraction:
    """A canonical `numeric` form as an exact number. A float is the decimal that it prints as, so 0.1 is 1/10."""
    return Fraction(repr(form))


def anchors(weights: Mapping[str, int], numbers: Mapping[str, Fraction], reach: Fraction) -> dict[str, str]:
    """Which key each key counts for, when numbers no further than `reach` apart may count as one.

    Being near is not transitive, so the heaviest number (of equals, the smallest) becomes an anchor and absorbs every
    number within reach of it; then the heaviest of the rest does; and so on. Takes O(k log k) for k keys: anchors
    lie more than `reach` apart, so no number is within reach of more than two.
    """
    line = sorted(numbers, key=lambda k: numbers[k])
    points = [numbers[k] for k in line]
    anchor_of: dict[str, str] = {}
    for top in sorted(line, key=lambda k: (-weights[k], numbers[k])):
        if top in anchor_of:
            continue
        low = bisect_left(points, numbers[top] - reach)
        high = bisect_right(points, numbers[top] + reach)
        for near in line[low:high]:
            anchor_of.setdefault(near, top)
    return anchor_of


def _unify_numbers(value: JsonValue) -> JsonValue:
    """`value` with every float that is a whole number as that integer."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_unify_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: _unify_numbers(item) for name, item in value.items()}
    return value


def _fold_text(value: JsonValue) -> str:
    """Unicode's compatibility caseless match (Unicode Standard, section 3.13, D146), with white space collapsed."""
    if isinstance(value, list | dict):
        raise ValueError(f"{type(value).__name__} is not text")
    text = value if isinstance(value, str) else canonical_json(value)
    folded = unicodedata.normalize("NFD", text).casefold()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", folded).casefold())
    return " ".join(folded.split())


def _read_number(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        text = value.strip()
        if _INTEGER.fullmatch(text):
            return int(text)
        if not _DECIMAL.fullmatch(text):
            raise ValueError("the string is not a decimal number")
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{type(value).__name__} is not a number")
    return _unify_numbers(value)
