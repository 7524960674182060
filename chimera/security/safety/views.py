"""A text as it can be read: without disguise, and with a map from every character back to where it stood.

A reader sees the same word in `kill`, in `k‌ill` with a zero-width character, in Cyrillic look-alikes, in `k1ll` and
in `k i l l`. Each view undoes one family of these; rules and shapes are looked for in all of them, and what is found
is told and redacted by its place in the original. Look-alikes are a small part of Unicode's confusables (UTS 39).
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

LOOK_ALIKES = str.maketrans(
    "аеорсухіѕјԁһӏквмнтѵԛԝгАВЕЅНІЈКМОРСТХУԌѴԜ" + "αβεικνορτυχγΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + "ıɡɑɩʟɴʀʏƖⅼ∕⁄∶ꓸ。׃։",
    "aeopcyxisjdhlkbmhtvqwrABESHIJKMOPCTXYGVW" + "abeikvoptuxyABEZHIKMNOPTYX" + "igailnryll//:..::",
)
BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f")
"""Letters that show nothing."""

LEET = {"0": "o", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "@": "a", "$": "s", "!": "i", "€": "e", "+": "t"}

_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_ENCODED = re.compile(
    r"&#[xX][0-9a-fA-F]{1,6};|&#[0-9]{1,7};|&[a-zA-Z]{2,8};|\\u[0-9a-fA-F]{4}|(?:%[0-9A-Fa-f]{2}){1,32}"
    r"|\s{0,3}[\[({](?:at|AT|dot|DOT)[\])}]\s{0,3}"
)
_SPACED = re.compile(r"(?<![^\W_])[^\s]([ \t.\-_*|/+~,·•])[^\s](?:\1[^\s])++")
_CHUNK = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class View:
    """A reading of a text. Character `i` of `text` stood at `starts[i]:ends[i]` of the original.

    `runs` are spans of this text that were letters set apart, whose ends of words are lost.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]
    runs: tuple[tuple[int, int], ...] = ()

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where `text[start:end]`, which is not empty, stood in the original."""
        return self.starts[start], self.ends[end - 1]


def raw(text: str) -> View:
    """The text itself."""
    return View(text, range(len(text)), range(1, len(text) + 1))


def rebuilt(view: View, edits: Iterable[tuple[int, int, str]]) -> View:
    """The view with `text[start:end]` replaced for each `(start, end, instead)`, in order and without overlaps."""
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    for start, end, instead in edits:
        pieces += (view.text[at:start], instead)
        starts += view.starts[at:start]
        ends += view.ends[at:start]
        if instead:
            first, last = view.span(start, end)
            starts += [first] * len(instead)
            ends += [last] * len(instead)
        at = end
    if not pieces:
        return view
    pieces.append(view.text[at:])
    starts += view.starts[at:]
    ends += view.ends[at:]
    return View("".join(pieces), starts, ends)


def decoded(view: View) -> View:
    """With character references, percent and \\u escapes, and `name (at) domain (dot) org` resolved."""
    return rebuilt(view, ((m.start(), m.end(), _decode(m[0])) for m in _ENCODED.finditer(view.text)))


def _decode(code: str) -> str:
    if code[0] == "&":
        return html.unescape(code)
    if code[0] == "%":
        return bytes.fromhex(code.replace("%", "")).decode("utf-8", "replace")
    if code[0] == "\\":
        return chr(int(code[2:], 16))
    return "@" if "a" in code.lower() else "."


def plain(view: View) -> View:
    """With look-alikes as the letters that they look like, and without what cannot be seen. Case is kept."""
    return rebuilt(view, ((m.start(), m.end(), _letter(m[0])) for m in _NOT_ASCII.finditer(view.text)))


@lru_cache(maxsize=4096)
def _letter(char: str) -> str:
    if char in BLANKS:
        return ""
    out = []
    for part in unicodedata.normalize("NFKD", char):
        category = unicodedata.category(part)
        if category in ("Cf", "Mn", "Me"):
            continue
        if category == "Nd":
            out.append(str(unicodedata.decimal(part)))
        elif category == "Pd":
            out.append("-")
        elif category == "Zs":
            out.append(" ")
        elif part in "‘’ʼ′":
            out.append("'")
        else:
            out.append(part.translate(LOOK_ALIKES))
    return "".join(out)


def joined(view: View) -> View:
    """With letters that were set apart (`k i l l`, `k.i.l.l`) put together."""
    edits: list[tuple[int, int, str]] = []
    runs: list[tuple[int, int]] = []
    shrunk = 0
    for match in _SPACED.finditer(view.text):
        start, end = match.span()
        if end < len(view.text) and view.text[end].isalnum() and view.text[end - 1].isalnum():
            end -= 2  # the last letter begins a word: it was not set apart
        if end - start < 5:
            continue
        edits += ((at, at + 1, "") for at in range(start + 1, end, 2))
        letters = (end - start + 1) // 2
        runs.append((start - shrunk, start - shrunk + letters))
        shrunk += letters - 1
    made = rebuilt(view, edits)
    return View(made.text, made.starts, made.ends, tuple(runs))


def unleet(view: View, one: str) -> View:
    """With digits and signs inside words as the letters that they stand for; `1` and `|` as `one`."""
    table = {**LEET, "1": one, "|": one}

    def edits() -> Iterator[tuple[int, int, str]]:
        for match in _CHUNK.finditer(view.text):
            chunk = match[0].rstrip("!.,?;:)\"'+")
            if chunk.isalpha() or not any(char.isalpha() for char in chunk):
                continue
            for at, char in enumerate(chunk, match.start()):
                if char in table:
                    yield at, at + 1, table[char]

    made = rebuilt(view, edits())
    return View(made.text, made.starts, made.ends, view.runs)


def readings(view: View) -> list[View]:
    """The views that secrets and personal data are looked for in: case kept, each text once."""
    plainly = plain(decoded(view))
    return _distinct([view, plain(view), plainly, joined(plainly)])


def wordings(views: Iterable[View]) -> list[View]:
    """The views that words are looked for in: those of `readings` and what they are without digits for letters."""
    found = list(views)
    return _distinct([*found, *(unleet(view, one) for view in found for one in "il")])


def _distinct(views: Iterable[View]) -> list[View]:
    once: dict[str, View] = {}
    for view in views:
        once.setdefault(view.text, view)
    return list(once.values())
