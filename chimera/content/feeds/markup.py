"""Plain text out of HTML that somebody else wrote."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

MAX_RAW: Final = 32_768
"""Characters of markup that are looked at: what comes after them is not read."""

MAX_HREFS: Final = 32

_COMMENT: Final = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_UNCLOSED: Final = re.compile(r"<(?=[^<>]*(?:<|\Z))")
"""What begins like a tag and never ends. The parser would look for its end again at each of them, in quadratic time."""

SILENT: Final = frozenset({"script", "style", "template", "noscript", "svg", "math", "head"})
INLINE: Final = frozenset({"a", "b", "i", "em", "strong", "span", "u", "s", "code", "small", "sub", "sup", "mark"})


def plain(text: str, limit: int) -> str:
    """One line of what can be seen: spaces collapsed, controls and invisible characters left out, at most `limit`."""
    line = " ".join(text[:MAX_RAW].split())
    if not line.isprintable():
        line = " ".join("".join(letter for letter in line if letter.isprintable()).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def plain_html(html: str, limit: int) -> tuple[str, tuple[str, ...]]:
    """What HTML says as plain text of at most `limit` characters, and where its links lead."""
    if "<" not in html and "&" not in html:
        return plain(html, limit), ()
    reader = _Reader()
    reader.feed(_UNCLOSED.sub("&lt;", _COMMENT.sub("", html[:MAX_RAW])))
    reader.close()
    return plain("".join(reader.parts), limit), tuple(reader.hrefs)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hrefs: list[str] = []
        self._silent = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in SILENT and not self._silent:
            self._silent = tag
        if tag not in INLINE:
            self.parts.append(" ")
        if tag == "a" and len(self.hrefs) < MAX_HREFS:
            self.hrefs += [value for name, value in attrs if name == "href" and value]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in SILENT:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = ""
        if tag not in INLINE:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)
