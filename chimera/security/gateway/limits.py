"""How large what comes in may be, and JSON that keeps to it: depth and size are known before anything is built.

RFC 8259 leaves names that occur twice, NaN and the size of numbers to the reader. Here the first two are refused, as
two readers may take them differently, and a number has at most `MAX_DIGITS` digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from pydantic import JsonValue

from chimera.core.errors import InputError
from chimera.security.gateway.taint import Tainted

MAX_DIGITS: Final = 64
STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)


@dataclass(frozen=True)
class Limits:
    """Of one text or one JSON document. Characters are Unicode's, bytes are of UTF-8."""

    text_chars: int = 100_000
    json_bytes: int = 1_000_000
    depth: int = 32
    items: int = 10_000
    key_chars: int = 256

    def text(self, text: str) -> str:
        """The text as it is; `InputError` where it is too long or holds half a surrogate pair."""
        if len(text) > self.text_chars:
            raise InputError(f"a text of {len(text)} characters is too long: at most {self.text_chars}, divide it")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise InputError("the text holds half a surrogate pair, which is no character: send UTF-8")
        return text

    def json(self, document: bytes) -> JsonValue:
        """The value of a JSON document; `InputError` where it passes a limit or is not JSON."""
        if len(document) > self.json_bytes:
            raise InputError(f"{len(document)} bytes of JSON are too many: at most {self.json_bytes}")
        try:
            written = document.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError("this is not UTF-8, and so not JSON") from None
        self._shape(written)
        try:
            value: JsonValue = json.loads(
                written, object_pairs_hook=self._object, parse_constant=_constant, parse_int=_int, parse_float=_float
            )
        except (ValueError, RecursionError) as error:
            raise InputError(f"this is not JSON: {error}") from None
        self._strings(value)
        return value

    def _shape(self, written: str) -> None:
        """Depth and number of values, from the signs outside of strings."""
        bare = STRING.sub("", written)
        depth = 0
        for sign in re.findall(r"[\[\]{}]", bare):
            depth += 1 if sign in "[{" else -1
            if depth > self.depth:
                raise InputError(f"JSON nested deeper than {self.depth} is not read")
        if bare.count(",") + bare.count("[") + bare.count("{") > self.items:
            raise InputError(f"JSON of more than {self.items} values is not read")

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise InputError("a name occurs twice in one JSON object: give each once")
        if any(len(name) > self.key_chars for name in made):
            raise InputError(f"a name in JSON has at most {self.key_chars} characters")
        return made

    def _strings(self, value: JsonValue) -> None:
        for text in strings(value):
            self.text(text)


def strings(value: object) -> list[str]:
    """Every text in a JSON value or in a call's arguments, names too."""
    found: list[str] = []
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str(text) | Tainted(text=text):
                found.append(text)
            case bytes(data):
                found.append(data.decode(errors="replace"))
            case Mapping() as members:
                waiting += [*members.keys(), *members.values()]
            case list() | tuple() | set() | frozenset() as members:
                waiting += members
    return found


def _constant(name: str) -> NoReturn:
    raise InputError(f"{name} is not JSON")


def _int(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise InputError(f"a number in JSON has at most {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits) if len(digits) <= MAX_DIGITS else float("inf")
    if number in (float("inf"), float("-inf")):
        raise InputError(f"a number in JSON has at most {MAX_DIGITS} digits and fits 64 bits")
    return number
