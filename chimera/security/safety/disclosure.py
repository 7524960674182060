"""That what a machine wrote says so: in the required words, in the required place, where a reader sees it.

The words must stand there literally. Look-alikes or invisible characters in them, elements that hide them, and a place
below the channel's fold do not count, and neither does a sentence that only contains them ("this is not ...").
"""

from __future__ import annotations

import re

from chimera.core.types import Frozen
from chimera.security.safety.findings import MediaType
from chimera.security.safety.markup import shown, tags
from chimera.security.safety.policy import Disclosure
from chimera.security.safety.views import View, plain, raw

AFTER_END_CHARS = 200
"""What may follow a disclosure at the end: tags, a signature."""

LINE_CHARS = 40
"""What a line break counts for above the fold."""

_MAY_PRECEDE = "\n.!?#>*_([|-–—:"


class Disclosed(Frozen):
    """Whether the words are seen in their place; if not, `reason` is the rest of a rule's id."""

    reason: str = ""
    advice: str = ""


def disclosed(text: str, media_type: MediaType, wanted: Disclosure, fold_chars: int) -> Disclosed:
    """Look for the words that `wanted` asks for. With `fold_chars`, they must be whole within as many."""
    seen = shown(raw(text), media_type)
    places = [match.span(1) for match in _pattern(wanted.words).finditer(seen.text) if _stands_alone(seen, match)]
    if not places:
        anyhow = re.sub(r"\s+", " ", plain(raw(text)).text).casefold()
        if re.sub(r"\s+", " ", wanted.words).casefold() in anyhow:
            return Disclosed(reason="hidden", advice="show the disclosure in its plain words, where a reader sees it")
        return Disclosed(reason="missing", advice="add the words that the channel requires")
    start, end = places[0] if wanted.place == "start" else places[-1]
    before = seen.text[:start].strip(" \t\n#>*_-/([|") if wanted.place == "start" else ""
    if fold_chars and end + (LINE_CHARS - 1) * seen.text.count("\n", 0, end) > fold_chars:
        return Disclosed(reason="below-fold", advice=f"put the disclosure within the first {fold_chars} characters")
    if before and wanted.place == "start":
        return Disclosed(reason="misplaced", advice="put the disclosure before everything else")
    if wanted.place == "end" and len(seen.text[end:].strip()) > AFTER_END_CHARS:
        return Disclosed(reason="misplaced", advice="put the disclosure at the end")
    return Disclosed()


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(r"(?<!\w)(" + r"[ \t\n]{1,4}".join(map(re.escape, words.split())) + r")(?!\w)", re.IGNORECASE)


def _stands_alone(seen: View, match: re.Match[str]) -> bool:
    before = seen.text[max(0, match.start() - 8) : match.start()].rstrip(" \t")
    return not before or before[-1] in _MAY_PRECEDE or (match.start() <= 8 and not before.strip())


def with_disclosure(text: str, media_type: MediaType, wanted: Disclosure) -> str:
    """`text` with the words added in their place."""
    if media_type != "text/html":
        if media_type == "text/x-code":
            words = f"# {wanted.words}"
            return f"{words}\n{text}" if wanted.place == "start" else f"{text}\n{words}"
        return f"{wanted.words}\n\n{text}" if wanted.place == "start" else f"{text}\n\n{wanted.words}"
    words = f"<p>{_escaped(wanted.words)}</p>"
    bodies = [tag for tag in tags(text) if tag.name == "body" and tag.closing == (wanted.place == "end")]
    if wanted.place == "start":
        at = bodies[0].end if bodies else 0
        return f"{text[:at]}{words}\n{text[at:]}"
    at = bodies[-1].start if bodies else len(text)
    return f"{text[:at]}\n{words}{text[at:]}"


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
