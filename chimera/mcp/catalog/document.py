"""What of a tool's definition is searched: its name, title, description and parameters, as words, within limits.

A definition is its server's own claim. Who writes 20,000 characters of keywords into it wants to be found for
everything, so only the beginning is indexed, and a word that is repeated counts a few times at most.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import Stemmer
from pydantic import JsonValue

from chimera.mcp.types import ToolDefinition

MAX_DESCRIPTION_CHARS = 1_000
MAX_PARAMETERS = 32
MAX_PARAMETER_CHARS = 120
MAX_EXAMPLE_CHARS = 400
MAX_REPEATS = 3
"""How often one word of a text counts."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"[\W_]+")
_WORD = re.compile(r"[^\W_]+")
STOP_WORDS = frozenset(
    "a an and are as at be been being but by can could did do does for from had has have he her him his how i if in"
    " into is it its me might must my of on or our shall she should so such t than that the their them then there"
    " these they this those to too us was we were what when where which who whom whose why will with would you"
    " your".split()
)


class Document(NamedTuple):
    """A tool as it is searched, the surest words first. `server` is what its user calls it, not what it claims."""

    server: str
    name: str
    title: str
    description: str
    parameters: str

    @property
    def words(self) -> str:
        """What BM25 reads: all of it. A word that all tools share weighs nothing there."""
        return ". ".join(part for part in self if part)

    @property
    def meaning(self) -> str:
        """What is embedded: not the server's name, which drew tools together that do different things."""
        return ". ".join(part for part in self[1:] if part)


def tool_id(tool: ToolDefinition) -> str:
    """`server/name`: what a tool is called among those of all servers."""
    return f"{tool.server}/{tool.name}"


def document_of(tool: ToolDefinition) -> Document:
    """The searched part of a definition. A schema that is not as it should be has no parameters; it is no error."""
    title = "" if split_name(tool.title).casefold() == split_name(tool.name).casefold() else tool.title
    return Document(
        server=split_name(tool.server),
        name=split_name(tool.name),
        title=_line(title, MAX_PARAMETER_CHARS),
        description=_line(tool.description, MAX_DESCRIPTION_CHARS),
        parameters=_parameters(tool.input_schema),
    )


def split_name(name: str) -> str:
    """`read_file`, `readFile` and `read-file` as the words "read file"; `PDFReader` as "PDF Reader"."""
    return _NOT_WORD.sub(" ", _CAMEL.sub(" ", name)).strip()


def stems(texts: Sequence[str]) -> list[list[str]]:
    """For each text the stems of its content words (Snowball's English stemmer, Porter 2001), in order.

    A stem stands there `MAX_REPEATS` times at most. A text of nothing but stop words is taken as it is.
    """
    words = [_words(text) for text in texts]
    distinct = sorted(set(chain.from_iterable(words)))
    # One stemmer a call: they are not thread-safe.
    stem_of = dict(zip(distinct, Stemmer.Stemmer("english").stemWords(distinct), strict=True))
    return [_bounded(str(stem_of[word]) for word in row) for row in words]


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKD", _CAMEL.sub(" ", text)).casefold()
    words = _WORD.findall("".join(c for c in folded if not unicodedata.combining(c)))
    return [word for word in words if word not in STOP_WORDS] or words


def _bounded(row: Iterable[str]) -> list[str]:
    counts: Counter[str] = Counter()
    kept = []
    for stem in row:
        counts[stem] += 1
        if counts[stem] <= MAX_REPEATS:
            kept.append(stem)
    return kept


def _parameters(schema: dict[str, JsonValue]) -> str:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return ""
    return ", ".join(_parameter(name, about) for name, about in list(properties.items())[:MAX_PARAMETERS])


def _parameter(name: str, about: JsonValue) -> str:
    description = about.get("description") if isinstance(about, dict) else None
    words = split_name(name[:MAX_PARAMETER_CHARS])
    return f"{words}: {_line(description, MAX_PARAMETER_CHARS)}" if isinstance(description, str) else words


def _line(text: str, limit: int) -> str:
    """The beginning of a text on one line, cut between words."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit else line[:limit].rsplit(" ", 1)[0]
