"""Lines of text out of HTML and PDF, with their place in the source."""

from __future__ import annotations

import html
import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from chimera.core.errors import UnreadableDocument

MAX_PAGES = 10_000

_BLOCKS = frozenset(
    "address article aside blockquote caption dd div dl dt figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr"
    " li main nav ol p pre section table tbody td tfoot th thead title tr ul".split()
)
_LINE_BREAK = re.compile(r"\r\n?")
_BLOCK_MARK = "\f"
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(?P<unseen>script|style|template|noscript)\b.*?(?:</(?P=unseen)\s*>|\Z)"
    r"|<[/!?]?(?P<tag>[a-z][a-z0-9]*)(?:[^<>\"']|\"[^\"<]*\"|'[^'<]*')*+>",
    re.DOTALL | re.IGNORECASE,
)
"""Comments, what is not shown, and tags. None scans a stretch twice, so broken pages take no longer than others."""


@dataclass(frozen=True)
class Line:
    """One line of text. `number` counts from 1, within `page` when the source has pages."""

    number: int
    text: str
    page: int | None = None


def html_lines(source: str) -> list[Line]:
    """The visible text of an HTML page, at the source's own line numbers; an empty line parts two blocks."""
    text = _MARKUP.sub(_replace_markup, _LINE_BREAK.sub("\n", source).replace(_BLOCK_MARK, " "))
    found: list[Line] = []
    for number, line in enumerate(text.split("\n"), start=1):
        for at, shown in enumerate(line.split(_BLOCK_MARK)):
            if at:
                found.append(Line(number, ""))
            if shown.strip():
                found.append(Line(number, html.unescape(shown)))
    return found


def _replace_markup(match: re.Match[str]) -> str:
    """What stands for a piece of markup: as many line breaks as it has, and a mark if it begins or ends a block."""
    tag = (match["tag"] or "").lower()
    mark = _BLOCK_MARK if tag in _BLOCKS else " " if tag == "br" else ""
    return mark + "\n" * match[0].count("\n")


def pdf_lines(name: str, data: bytes) -> list[Line]:
    """The text of a PDF, with page and line within the page. Raises UnreadableDocument for a locked or broken one."""
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableDocument(name, "it is locked with a password")
        if len(reader.pages) > MAX_PAGES:
            raise UnreadableDocument(name, f"it has more than {MAX_PAGES} pages")
        lines = list(_page_lines(reader))
    except UnreadableDocument:
        raise
    except Exception as error:  # pypdf lets many kinds through on broken files
        raise UnreadableDocument(name, f"it is not a PDF that can be read ({type(error).__name__})") from error
    if not any(line.text.strip() for line in lines):
        raise UnreadableDocument(name, "it has no text (scanned pages?)")
    return lines


def _page_lines(reader: object) -> Iterator[Line]:
    from pypdf import PdfReader

    assert isinstance(reader, PdfReader)
    for page, content in enumerate(reader.pages, start=1):
        text = content.extract_text()
        valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # a font may map to half a character
        for number, line in enumerate(valid.split("\n"), start=1):
            yield Line(number, line, page)
