"""How a reply writes a whole number: one way, so that no two readers disagree about what was said."""

from __future__ import annotations

import re

MAX_DIGITS = 1_000

_NUMERAL = re.compile(r"[ \t\r\n]*(0|[1-9][0-9]*)[ \t\r\n]*")


def whole_number(text: str, most_digits: int) -> int | None:
    """The number that `text` is: ASCII digits, with white space around them if need be. None for anything else.

    No sign, no leading zero, no separator, no other script's digits, and at most `most_digits` (1..1000) of them.
    """
    found = _NUMERAL.fullmatch(text)
    if found is None or len(found[1]) > min(most_digits, MAX_DIGITS):
        return None
    return int(found[1])
