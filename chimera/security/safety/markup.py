"""What a reader of HTML or Markdown gets to see, in one pass and without a browser.

Two questions: which text is there at all (`written`, for finding what must not go out), and which text is certainly
seen (`shown`, for the disclosure). The second is careful: only elements and styles known to hide nothing count, so a
text may be seen that is not counted, and none is counted that a style of its own document hides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from chimera.security.safety.findings import MediaType
from chimera.security.safety.views import View, decoded, rebuilt

VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
INLINE = frozenset("a b em i strong small span u font wbr".split())
OPEN = INLINE | frozenset(
    "html body p div h1 h2 h3 h4 h5 h6 ul ol li blockquote article section main header footer br hr img table tbody"
    " thead tr td th figure figcaption pre".split()
)
"""Elements whose text is seen if nothing else hides it."""

RAW = frozenset({"script", "style", "title", "textarea", "noscript", "template", "iframe", "xmp"})
STYLERS = frozenset({"style", "script", "link", "base", "object", "embed"})
"""With one of these in the document, what it shows cannot be told without a browser."""

HARMLESS = frozenset("font-family font-style font-weight line-height text-align text-decoration".split())
COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "blue": (0, 0, 255),
    "navy": (0, 0, 128),
    "green": (0, 128, 0),
    "gray": (128, 128, 128),
    "grey": (128, 128, 128),
    "yellow": (255, 255, 0),
    "silver": (192, 192, 192),
}
MIN_CONTRAST = 3.0
"""Between text and background, as WCAG 2.2 counts it (1.4.3 allows 3 for large text)."""

MIN_FONT_PX = 9.0

_TAG = re.compile(r"[a-zA-Z][a-zA-Z0-9-]{0,30}")
_ATTRIBUTE = re.compile(r"""([^\s=>"'/]{1,64})(?:\s{0,8}=\s{0,8}(?:"([^"]*)"|'([^']*)'|([^\s>"']{0,2000})))?""")
_REFERENCE = re.compile(r"(?m)^[ \t]{0,3}\[[^\]\n]{0,300}\]:[^\n]*$|!\[[^\]\n]{0,300}\](?:\([^)\n]{0,2000}\))?")
_LINK_TARGET = re.compile(r"(?<=\])\([^)\n]{0,2000}\)")
Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag or a comment at `start:end`. `name` is empty for a comment; `closing` for `</p>`."""

    start: int
    end: int
    name: str
    closing: bool
    attributes: str


def tags(text: str) -> Iterator[Tag]:
    """The tags of HTML, in order. What follows a tag or a comment that never ends is a part of it."""
    at = 0
    while (start := text.find("<", at)) >= 0:
        if text.startswith("<!--", start):
            end = text.find("-->", start + 4)
            end = len(text) if end < 0 else end + 3
            yield Tag(start, end, "", False, "")
        elif (named := _TAG.match(text, start + 2 if text.startswith("</", start) else start + 1)) is not None:
            end = _end_of_tag(text, named.end())
            name, closing = named[0].lower(), text[start + 1] == "/"
            yield Tag(start, end, name, closing, text[named.end() : end - 1])
            if name in RAW and not closing:
                closes = re.compile(f"</{name}", re.IGNORECASE).search(text, end)
                body_end = len(text) if closes is None else closes.start()
                yield Tag(end, body_end, "", False, "")
                end = body_end
        elif text.startswith(("<!", "<?", "</"), start):
            end = text.find(">", start)
            end = len(text) if end < 0 else end + 1
            yield Tag(start, end, "", False, "")
        else:
            end = start + 1
        at = end


def _end_of_tag(text: str, at: int) -> int:
    before = ""
    while at < len(text):
        char = text[at]
        if char == ">":
            return at + 1
        if char in "\"'" and before == "=":
            at = text.find(char, at + 1)
            if at < 0:
                break
        before = before if char.isspace() else char
        at += 1
    return len(text)


def written(view: View, media_type: MediaType) -> View:
    """The text without tags and comments, hidden or not, with character references resolved."""
    if media_type not in ("text/html", "text/markdown") or "<" not in view.text:
        return view
    edits = ((tag.start, tag.end, "" if tag.name in INLINE or not tag.name else "\n") for tag in tags(view.text))
    return decoded(rebuilt(view, edits))


def shown(view: View, media_type: MediaType) -> View:
    """The text that a reader certainly sees."""
    if media_type == "text/markdown":
        view = rebuilt(view, ((m.start(), m.end(), "") for m in _REFERENCE.finditer(view.text)))
        view = rebuilt(view, ((m.start(), m.end(), "") for m in _LINK_TARGET.finditer(view.text)))
    if media_type not in ("text/html", "text/markdown") or "<" not in view.text:
        return view
    return decoded(rebuilt(view, _unseen(view.text)))


@dataclass(frozen=True, slots=True)
class _Element:
    name: str
    seen: bool
    colour: Colour
    background: Colour


def _unseen(text: str) -> Iterator[tuple[int, int, str]]:
    """The edits that leave what is certainly seen."""
    found = list(tags(text))
    if any(tag.name in STYLERS for tag in found):
        yield 0, len(text), ""
        return
    root = _Element("", True, COLOURS["black"], COLOURS["white"])
    stack, hidden_from = [root], -1
    for tag in found:
        if hidden_from < 0:
            yield tag.start, tag.end, "" if tag.name in INLINE or not tag.name else "\n"
        if tag.closing:
            _close(stack, tag.name)
        elif tag.name and tag.name not in VOID and len(stack) < 512:
            stack.append(_element(tag, stack[-1]))
        if stack[-1].seen == (hidden_from < 0):
            continue
        if hidden_from < 0:
            hidden_from = tag.end
        else:
            yield hidden_from, tag.end, "\n"
            hidden_from = -1
    if hidden_from >= 0:
        yield hidden_from, len(text), ""


def _close(stack: list[_Element], name: str) -> None:
    for depth in range(len(stack) - 1, 0, -1):
        if stack[depth].name == name:
            del stack[depth:]
            return


def _element(tag: Tag, parent: _Element) -> _Element:
    colour, background = parent.colour, parent.background
    seen = parent.seen and tag.name in OPEN
    for name, *values in _ATTRIBUTE.findall(tag.attributes):
        name, value = name.lower(), "".join(values).lower()
        if name in ("hidden", "aria-hidden", "inert", "popover", "color", "bgcolor", "background"):
            seen = False
        elif name == "style":
            for declaration in value.split(";"):
                key, _, what = (part.strip() for part in declaration.partition(":"))
                if key in ("color", "background", "background-color"):
                    given = _colour(what)
                    seen = seen and given is not None
                    if given is not None:
                        colour, background = (given, background) if key == "color" else (colour, given)
                elif key == "font-size":
                    seen = seen and _large_enough(what)
                elif key and key not in HARMLESS:
                    seen = False
    return _Element(tag.name, seen and _contrast(colour, background) >= MIN_CONTRAST, colour, background)


def _colour(value: str) -> Colour | None:
    value = value.strip()
    if value in COLOURS:
        return COLOURS[value]
    if re.fullmatch(r"#[0-9a-f]{3}", value):
        return int(value[1] * 2, 16), int(value[2] * 2, 16), int(value[3] * 2, 16)
    if re.fullmatch(r"#[0-9a-f]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
    match = re.fullmatch(r"rgb\(\s{0,4}(\d{1,3})[\s,]{1,4}(\d{1,3})[\s,]{1,4}(\d{1,3})\s{0,4}\)", value)
    return None if match is None else (min(255, int(match[1])), min(255, int(match[2])), min(255, int(match[3])))


def _contrast(one: Colour, other: Colour) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Colour) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2)."""
    parts = [part / 255 for part in colour]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _large_enough(size: str) -> bool:
    if size in ("small", "medium", "large", "x-large", "xx-large"):
        return True
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3})?)(px|pt|em|rem|%)", size)
    if match is None:
        return False
    px = {"px": 1.0, "pt": 4 / 3, "em": 16.0, "rem": 16.0, "%": 0.16}[match[2]]
    return float(match[1]) * px >= MIN_FONT_PX
