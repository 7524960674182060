"""Secrets taken out of what is written down: by the name of the field that holds them, and by their shape in any text.

A shape is only ever a guess, and a secret without one in a field with a harmless name gets through: who writes an
entry gives facts, not requests. What is written is bounded too, in depth, members and characters.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

REDACTED = "[redacted]"
CUT = "[cut]"

MAX_DEPTH = 6
MAX_MEMBERS = 200
MAX_TEXT = 2_000
MAX_ALL_TEXT = 16_000
"""Characters that are looked at, of one text and of one detail."""
MAX_KEY = 128

_NAMES = re.compile(
    "password|passwd|passphrase|pwd|secret|authorization|cookie|credential|apikey|accesskey|privatekey|signingkey|token"
    "|jwt|bearer|sessionid|mnemonic|seedphrase"
)
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]")
_HARMLESS = frozenset({"tokenid", "tokentype", "tokenkind"})

_NAMED = ("name", "key", "header", "field")
"""Members that name what another member of the same mapping holds, as lists of headers write it."""

_EDGE = r"(?:(?<![a-z0-9])|(?<=%[0-9a-f]{2}))"
"""`<` in a shape: it begins here. Not a word's edge, as a secret may come after `_`, and after a URL's `%3D`."""

_SHAPES = tuple(
    (markers.split(), re.compile(pattern.replace("<", _EDGE, 1), re.IGNORECASE))
    for markers, pattern in (
        ("-----begin", r"-----BEGIN[ A-Z0-9]{0,40}-----[\s\S]*?(?:-----END[ A-Z0-9]{0,40}-----|\Z)"),  # RFC 7468
        ("eyj", r"<eyJ[\w-]{8,}(?:\.[\w-]*){0,4}"),  # JWT (RFC 7519), JWE, cut off or not
        ("chim_", r"<chim_[\w.-]{8,}"),
        ("sk- sk_ rk_ hf_", r"<(?:sk-[\w-]{16,}|[sr]k_(?:live|test)_\w{16,}|hf_\w{20,})"),
        ("akia asia aroa aida", r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}"),  # AWS
        ("gh", r"\bgh[a-z]_\w{20,}|\bgithub_pat_\w{20,}"),
        ("glpat- xox aiza", r"\bglpat-[\w-]{16,}|\bxox[a-z]-[\w-]{10,}|\bAIza[\w-]{30,}"),
        ("://", r"://[^\s/@:]{0,256}:[^\s/@]{1,1024}@"),  # user and password in a URL
        ("authorization", r"authorization(?:\"|%22)?(?::|%3a)(?:\s|%20|\+){0,4}[^\r\n]{1,2048}"),  # all of the header
        ("cookie", r"cookie(?:\"|%22)?(?::|%3a)(?:\s|%20|\+){0,4}[^\r\n]{1,2048}"),
        ("bearer basic", r"<(?:bearer|basic)(?:\s|%20|\+){1,4}[\w+/.~-]{8,}=*"),  # RFC 6750, RFC 7617
        (
            "pass pwd secret token cookie key",  # name=value, and JSON in a text; encoded for a URL too
            r"(?:password|passwd|passphrase|pwd|secret|token|cookie|api[_-]?key|access[_-]?key)"
            r"""(?:\[\w*\]|%5b\w*%5d)?\\?(?:["']|%2[27])?\s{0,4}(?:[:=]|%3[ad])\s{0,4}"""
            r"""(?:\\?"[^"]*"?|\\?'[^']*'?|[^\s"',;&)}\]]+)""",
        ),
    )
)
"""What may be one of these is only looked for where a marker of it stands, in lower case: that takes a tenth."""

_LONG = re.compile(r"[\w+/-]{100,}={0,2}")
"""A long run of base64: capabilities, keys, ciphertext."""


def clean(text: str, most_chars: int = MAX_TEXT) -> str:
    """`text` with what looks like a secret replaced, and then cut to size: half a secret has no shape."""
    found = text[:MAX_ALL_TEXT]
    lower = found.casefold()
    for markers, pattern in _SHAPES:
        for marker in markers:
            if marker in lower:
                found = pattern.sub(REDACTED, found)
                break
    if len(found) >= 100:
        found = _LONG.sub(REDACTED, found)
    return found if len(found) <= most_chars else found[: most_chars - len(CUT)] + CUT


def clean_detail(detail: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A bounded copy of `detail` without secrets. What JSON cannot hold becomes text."""
    cleaned = _Cleaner().value(detail, MAX_DEPTH)
    return cleaned if isinstance(cleaned, dict) else {}


def is_secret_name(name: str, value: object = "") -> bool:
    """Whether a field of that name holds a secret. A number of tokens does not."""
    plain = _NOT_IN_NAMES.sub("", unicodedata.normalize("NFKD", name).casefold())
    if plain in _HARMLESS or (plain.endswith("tokens") and isinstance(value, (int, float))):
        return False
    return _NAMES.search(plain) is not None


class _Cleaner:
    """One detail's worth of members and text."""

    def __init__(self) -> None:
        self._members = MAX_MEMBERS
        self._chars = MAX_ALL_TEXT

    def value(self, value: Any, depth: int) -> JsonValue:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if -(2**63) <= value < 2**63 else self._text(hex(value))
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, (Mapping, list, tuple)):
            if depth == 0:
                return CUT
            return self._mapping(value, depth - 1) if isinstance(value, Mapping) else self._list(value, depth - 1)
        return self._text(f"({type(value).__name__})")

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, JsonValue]:
        cleaned: dict[str, JsonValue] = {}
        names = [value[name] for name in _NAMED if isinstance(value.get(name), str)]
        whose = next((name for name in names if is_secret_name(name[:1_000])), "")
        for key, member in value.items():
            if not self._room():
                cleaned[CUT] = len(value) - len(cleaned)
                break
            name = self._text(str(key)[: 4 * MAX_KEY], MAX_KEY)
            secret = is_secret_name(str(key)[:1_000], member) or (whose and str(key).casefold() == "value")
            cleaned[name] = REDACTED if secret else self.value(member, depth)
        return cleaned

    def _list(self, value: list[Any] | tuple[Any, ...], depth: int) -> list[JsonValue]:
        cleaned: list[JsonValue] = []
        if len(value) == 2 and isinstance(value[0], str) and is_secret_name(value[0][:1_000], value[1]):
            value = [value[0], REDACTED]  # a header, as a pair
        for member in value:
            if not self._room():
                cleaned.append(CUT)
                break
            cleaned.append(self.value(member, depth))
        return cleaned

    def _room(self) -> bool:
        self._members -= 1
        return self._members >= 0

    def _text(self, text: str, most_chars: int = MAX_TEXT) -> str:
        if self._chars <= 0:
            return CUT
        self._chars -= min(len(text), MAX_ALL_TEXT)
        return clean(text, most_chars)
