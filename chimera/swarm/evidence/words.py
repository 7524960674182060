"""Words and their stems: how questions and sentences are compared."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain

import Stemmer

_WORD = re.compile(r"\d+(?:[.,]\d+)+|[^\W_]+")

STOP_WORDS = frozenset(
    "a an and are as at be been being but by can could did do does for from had has have he her hers him his how"
    " i if in into is it its itself many may me might much must my of on or our s shall she should so such t than"
    " that the their them then there these they this those to too us was we were what when where which who whom"
    " whose why will with would you your".split()
)


def fold(text: str) -> str:
    """`text` without case and accents, so that "Zurich" finds "Zürich"."""
    text = text.casefold()
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def stems(text: str) -> list[str]:
    """Stems of the words of `text`, in order, with repeats (Snowball's English stemmer, Porter 2001)."""
    return stem_all([text])[0]


def stem_all(texts: Sequence[str]) -> list[list[str]]:
    """`stems` of many texts, each distinct word stemmed once."""
    words = [_WORD.findall(fold(text)) for text in texts]
    distinct = sorted(set(chain.from_iterable(words)))
    stem_of = dict(zip(distinct, _stem(distinct), strict=True))
    return [[stem_of[word] for word in row] for row in words]


def content_stems(question: str) -> list[str]:
    """The distinct stems that carry a question's meaning. One of nothing but stop words is taken as it is."""
    words = _WORD.findall(fold(question))
    return list(dict.fromkeys(_stem([word for word in words if word not in STOP_WORDS] or words)))


def _stem(words: Sequence[str]) -> list[str]:
    return [str(stem) for stem in Stemmer.Stemmer("english").stemWords(words)]  # one each: they are not thread-safe
