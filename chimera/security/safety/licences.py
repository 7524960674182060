"""Licences in code that goes out: a header whose licence is not on the allow-list.

SPDX identifiers are read as they are written (SPDX 2.3, annex E); the well-known licences are known by a line of their
own header. Prose that speaks about a licence is none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from chimera.security.safety.views import View, rebuilt

_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]{0,4}([A-Za-z0-9.+() -]{1,200})")
_OPERATORS = frozenset({"AND", "OR", "WITH"})
_HEADERS = (
    ("AGPL-3.0", r"GNU\s{1,4}Affero\s{1,4}General\s{1,4}Public\s{1,4}License\s{1,4}as\s{1,4}published"),
    ("LGPL-3.0", r"GNU\s{1,4}(?:Lesser|Library)\s{1,4}General\s{1,4}Public\s{1,4}License\s{1,4}as\s{1,4}published"),
    ("GPL-3.0", r"GNU\s{1,4}General\s{1,4}Public\s{1,4}License\s{1,4}as\s{1,4}published"),
    ("MPL-2.0", r"subject\s{1,4}to\s{1,4}the\s{1,4}terms\s{1,4}of\s{1,4}the\s{1,4}Mozilla\s{1,4}Public\s{1,4}License"),
    ("EPL-2.0", r"under\s{1,4}the\s{1,4}terms\s{1,4}of\s{1,4}the\s{1,4}Eclipse\s{1,4}Public\s{1,4}License"),
    (
        "CC-BY-NC-4.0",
        r"licensed\s{1,4}under\s{1,4}(?:a\s{1,4}|the\s{1,4})?Creative\s{1,4}Commons\s{1,4}\S{0,40}"
        r"\s{0,4}Non-?Commercial",
    ),
    (
        "proprietary",
        r"(?i:(?:unpublished\s{1,4})?proprietary\s{1,4}and\s{1,4}confidential"
        r"|confidential\s{1,4}and\s{1,4}proprietary)",
    ),
)
HEADERS = tuple((name, re.compile(pattern)) for name, pattern in _HEADERS)
_COMMENT = re.compile(r"\n[ \t]{0,40}(?:#|//|\*|--|;|%){1,4}[ \t]?")


def foreign_licences(view: View, allowed: Collection[str]) -> Iterator[tuple[str, int, int]]:
    """Each licence not in `allowed` that a header names, and its place in the original."""
    for match in _SPDX.finditer(view.text):
        first = match[1].splitlines()[0].strip()
        named = [part for part in re.split(r"[\s()]+", first) if part and part not in _OPERATORS]
        choices = first.split(" OR ")
        if not any(all(part in allowed for part in _parts(choice)) for choice in choices):
            yield (named[0] if named else "unnamed", *view.span(*match.span()))
    flat = rebuilt(view, ((match.start(), match.end(), " ") for match in _COMMENT.finditer(view.text)))
    for name, header in HEADERS:
        if name not in allowed:
            yield from ((name, *flat.span(*match.span())) for match in header.finditer(flat.text))


def _parts(choice: str) -> list[str]:
    return [part for part in re.split(r"[\s()]+", choice) if part and part not in _OPERATORS] or [""]
