"""What a text says once its obvious encodings are undone: further views for the detector, each of them bounded.

A view is only looked at. What is passed on is the text as it came.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from chimera.security.gateway.normal import plain

MAX_VIEWS: Final = 8
MAX_VIEW_CHARS: Final = 20_000
MAX_DEPTH: Final = 2
MIN_DECODED: Final = 8

BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
HEX: Final = re.compile(r"(?:(?:0x|\\x)?[0-9a-fA-F]{2}[\s,:]?){8,}")
ESCAPES: Final = re.compile(r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}")
SPACED: Final = re.compile(r"\b(?:\w[ .\-_*]){4,}\w\b")
LEET_WORD: Final = re.compile(r"\b(?=\w{0,30}[a-zA-Z])(?=[\w@$!|]{0,30}[0-9@$!|])[\w@$!|]{3,40}")
LEET: Final = str.maketrans("01345789@$!|", "oieastbgasil")
TAG: Final = re.compile(r"<(\w{1,12})\b([^<>]{0,400})>")
UNSEEN: Final = re.compile(
    r"display\s{0,3}:\s{0,3}none|visibility\s{0,3}:\s{0,3}hidden|(?:font-size|opacity)\s{0,3}:\s{0,3}0(?![.\d])|"
    r"color\s{0,3}:\s{0,3}(?:white|#fff(?:fff)?)\b|aria-hidden\s{0,3}=\s{0,3}.?true|\bhidden\b",
    re.IGNORECASE,
)
ATTRIBUTE: Final = re.compile(
    r"\b(?:alt|title|content|aria-label|placeholder)\s{0,3}=\s{0,3}[\"']([^\"'<>]{12,1000})[\"']", re.IGNORECASE
)
MAX_HIDDEN: Final = 4_000
COMMON: Final = frozenset(
    "the and you your to of a in is all for that this with are not previous instructions ignore system prompt tell me "
    "what how please now it reveal password".split()
)


@dataclass(frozen=True)
class View:
    """A reading of the text. `how` is the chain of what was undone, `base64` or `url+base64`."""

    how: str
    text: str


def views(text: str) -> list[View]:
    """The further readings of a text, at most `MAX_VIEWS`, each of at most `MAX_VIEW_CHARS` characters."""
    found: list[View] = []
    seen = {text}
    layer = [View("", text)]
    for _ in range(MAX_DEPTH):
        layer = [view for source in layer for view in _undone(source, seen)]
        found += layer
        if len(found) >= MAX_VIEWS:
            break
    return found[:MAX_VIEWS]


def _undone(source: View, seen: set[str]) -> Iterator[View]:
    given = plain(source.text)
    for how, undo in UNDO.items():
        made = undo(given)[:MAX_VIEW_CHARS]
        if len(made) >= MIN_DECODED and made not in seen:
            seen.add(made)
            yield View(f"{source.how}+{how}" if source.how else how, made)


def _base64(text: str) -> str:
    parts = []
    for run in BASE64.findall(text):
        packed = run.rstrip("=").translate(str.maketrans("-_", "+/"))
        try:
            parts.append(_readable(base64.b64decode(packed[: MAX_VIEW_CHARS * 2] + "=" * (-len(packed) % 4))))
        except (binascii.Error, ValueError):
            continue
    return " ".join(part for part in parts if part)


def _hex(text: str) -> str:
    parts = []
    for run in HEX.findall(text):
        digits = re.sub(r"0x|\\x|[\s,:]", "", run)[: MAX_VIEW_CHARS * 2]
        parts.append(_readable(bytes.fromhex(digits[: len(digits) // 2 * 2])))
    return " ".join(part for part in parts if part)


def _readable(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    letters = sum(c.isalnum() or c.isspace() for c in text)
    return text if len(text) >= MIN_DECODED and letters >= 0.75 * len(text) else ""


def _url(text: str) -> str:
    return urllib.parse.unquote_plus(text) if len(re.findall(r"%[0-9a-fA-F]{2}", text)) >= 3 else ""


def _html(text: str) -> str:
    return html.unescape(text) if re.search(r"&#?\w{2,8};", text) else ""


def _escapes(text: str) -> str:
    if len(ESCAPES.findall(text)) < MIN_DECODED:
        return ""
    return ESCAPES.sub(lambda found: chr(int(found[0][2:], 16)), text)


def _rot13(text: str) -> str:
    return _if_plainer(text, codecs.decode(text[:MAX_VIEW_CHARS], "rot13"))


def _reversed(text: str) -> str:
    return _if_plainer(text, text[:MAX_VIEW_CHARS][::-1])


def _leet(text: str) -> str:
    words = LEET_WORD.findall(text)
    return LEET_WORD.sub(lambda found: found[0].translate(LEET), text) if len(words) >= 2 else ""


def _spaced(text: str) -> str:
    runs = SPACED.findall(text)
    if not runs:
        return ""
    apart = re.sub(r" {2,}", " \n ", text)
    return SPACED.sub(lambda found: re.sub(r"[ .\-_*]", "", found[0]), apart).replace(" \n ", " ")


def _hidden(text: str) -> str:
    if "<" not in text:
        return ""
    parts = [part.partition("-->")[0] for part in text.split("<!--")[1:]]
    for tag in TAG.finditer(text):
        if UNSEEN.search(tag[2]):
            end = text.find(f"</{tag[1]}", tag.end(), tag.end() + MAX_HIDDEN)
            parts.append(text[tag.end() : end if end >= 0 else tag.end() + MAX_HIDDEN])
    parts += ATTRIBUTE.findall(text)
    return "\n".join(part.strip() for part in parts)[:MAX_VIEW_CHARS]


def _if_plainer(text: str, made: str) -> str:
    """`made` where it has more of the commonest words than the text has, by some."""
    return made if _common(made) >= max(3, 3 * _common(text) + 1) else ""


def _common(text: str) -> int:
    return sum(word in COMMON for word in re.findall(r"[a-z]+", text[:MAX_VIEW_CHARS].lower()))


UNDO: Final[dict[str, Callable[[str], str]]] = {
    "hidden": _hidden,
    "html": _html,
    "url": _url,
    "base64": _base64,
    "hex": _hex,
    "escapes": _escapes,
    "spaced": _spaced,
    "leet": _leet,
    "rot13": _rot13,
    "reversed": _reversed,
}
