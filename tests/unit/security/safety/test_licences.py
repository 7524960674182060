"""Long quotes of protected texts and code under foreign licences do not go out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.security.safety.licences import foreign_licences
from chimera.security.safety.quotes import SURE_SLACK_WORDS, ProtectedTexts
from chimera.security.safety.views import View, plain, raw

MIN_WORDS = 20
RNG = random.Random(7)
SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe qui ro su ta ve wi xo zu".split()
BOOK = ["".join(RNG.choices(SYLLABLES, k=3)) for _ in range(600)]
OTHER = ["".join(RNG.choices(SYLLABLES, k=4)) for _ in range(600)]
PROTECTED = ProtectedTexts([" ".join(OTHER[:300]), " ".join(BOOK)], min_words=MIN_WORDS)


def quotes(text: str | View) -> list[tuple[int, int, int]]:
    return list(PROTECTED.search(raw(text) if isinstance(text, str) else text, lambda: None))


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(MIN_WORDS + SURE_SLACK_WORDS, 90), st.integers(0, 50))
def test_a_long_quote_is_found_wherever_it_stands(start: int, length: int, before: int) -> None:
    quoted = BOOK[start : start + length]
    text = " ".join([*OTHER[400 : 400 + before], ", ".join(quoted).upper(), *OTHER[500:550]])
    if len(quoted) < MIN_WORDS + SURE_SLACK_WORDS:
        return
    [(number, first, last)] = quotes(text)
    assert number == 1
    found = text[first:last].lower().split(", ")
    assert set(found) <= set(quoted)
    assert len(found) >= MIN_WORDS


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, MIN_WORDS - 1))
def test_a_short_quote_is_free(start: int, length: int) -> None:
    assert quotes(" ".join([*OTHER[400:450], *BOOK[start : start + length], *OTHER[450:500]])) == []


def test_short_quotes_do_not_add_up() -> None:
    pieces = [" ".join([*BOOK[at : at + 12], *OTHER[400 + at : 406 + at]]) for at in range(0, 120, 12)]
    assert quotes(" ".join(pieces)) == []


def test_what_is_invisible_does_not_break_a_quote() -> None:
    text = " ".join(word[:2] + "\u200b" + word[2:] for word in BOOK[40:90])
    assert quotes(plain(raw(text))) == [(1, 0, len(text))] or quotes(plain(raw(text)))[0][2] > 300


def test_the_index_is_bounded() -> None:
    with pytest.raises(InputError, match="too long for 50 fingerprints"):
        ProtectedTexts([" ".join(BOOK)], max_fingerprints=50)


GPL = (
    "This program is free software: you can redistribute it\nand/or modify it under the terms of the GNU General\n"
    "Public License as published by the Free Software Foundation"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# SPDX-License-Identifier: MIT", []),
        ("// SPDX-License-Identifier: GPL-2.0-only\nint x;", ["GPL-2.0-only"]),
        ("// SPDX-License-Identifier: (MIT OR GPL-2.0-only)", []),
        ("// SPDX-License-Identifier: MIT AND GPL-2.0-only", ["MIT"]),
        (GPL, ["GPL-3.0"]),
        ("# " + GPL.replace("\n", "\n# "), ["GPL-3.0"]),
        ("/*\n * " + GPL.replace("\n", "\n * ") + "\n */", ["GPL-3.0"]),
        ("// Acme, proprietary and confidential", ["proprietary"]),
        ("The GNU General Public License is well known.", []),
        ("It is licensed under the MIT licence.", []),
    ],
)
def test_headers(text: str, expected: list[str]) -> None:
    found = list(foreign_licences(raw(text), {"MIT", "Apache-2.0"}))
    assert [name for name, *_ in found] == expected
    assert all(text[start:end].strip() for _, start, end in found)
