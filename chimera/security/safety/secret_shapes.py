"""Secrets, by their shape: keys of known services, private keys, tokens, and values assigned to words like `password`.

Shapes follow what the services document and what secret scanners look for. None repeats a group inside a repetition,
and each begins where a word begins, so that a hostile text costs time in proportion to its length.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from chimera.security.safety.views import View

Span = tuple[int, int]

_SHAPES = (
    ("aws-access-key", r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("github-token", r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})"),
    ("gitlab-token", r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20,64}"),
    ("slack-token", r"(?<![A-Za-z0-9])(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,250}"),
    ("slack-webhook", r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,200}"),
    ("anthropic-key", r"(?<![A-Za-z0-9])sk-ant-[A-Za-z0-9_-]{20,250}"),
    ("stripe-key", r"(?<![A-Za-z0-9])(?:[sr]k_(?:live|test)_|whsec_)[A-Za-z0-9]{16,250}"),
    ("google-key", r"(?<![A-Za-z0-9])(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,250}|GOCSPX-[A-Za-z0-9_-]{28})"),
    ("huggingface-token", r"(?<![A-Za-z0-9])hf_[A-Za-z0-9]{30,64}"),
    ("npm-token", r"(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}"),
    ("chimera-key", r"(?<![A-Za-z0-9])chim_[A-Za-z0-9_.-]{20,250}"),
    ("jwt", r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{0,8192}"),
)
SHAPES = tuple((name, re.compile(pattern)) for name, pattern in _SHAPES)

_OPENAI = re.compile(r"(?<![A-Za-z0-9])sk-(?!ant-)(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,250}")
_URL = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/@]{0,64}:([^\s/@]{3,128})@")
_HEADER = re.compile(
    r"(?i)authorization[\"']?\s{0,4}:\s{0,4}[\"']?(?:bearer|basic|token)\s{1,4}([A-Za-z0-9._~+/=-]{16,4096})"
)
_ASSIGNED = re.compile(
    r"(?i)(?:password|passwd|passphrase|pwd|secret|token|api[_ -]?key|access[_ -]?key|private[_ -]?key)[\"']?\s{0,4}"
    r"(?::=|=>|==?|:|\bis\b)\s{0,4}([\"'`]?)([^\s\"'`,;()<>{}\[\]$]{7,200})"
)
_PLACEHOLDER = re.compile(r"(?i)your|example|change.?me|placeholder|redacted|xxx|\*\*\*|\.\.\.|env|https?://")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_NO_WORD = re.compile(r"[\W_]+")


def entropy_bits(text: str) -> float:
    """Shannon's entropy of the characters of `text`, in bits for each."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


class SecretShapes:
    """Finds secrets in views. `canaries` are texts that must never appear, however they are split or spelt."""

    def __init__(self, canaries: Iterable[str] = (), *, min_entropy_bits: float = 2.75) -> None:
        self._canaries = tuple(folded for canary in canaries if (folded := _NO_WORD.sub("", canary).casefold()))
        self._min_entropy_bits = min_entropy_bits

    def search(self, view: View, tick: Callable[[], None]) -> Iterator[tuple[str, int, int]]:
        """Each secret's kind, and its place in the original. `tick` is called between shapes."""
        for kind, start, end in self._in_text(view.text, tick):
            yield (kind, *view.span(start, end))
        yield from self._planted(view, tick)

    def _in_text(self, text: str, tick: Callable[[], None]) -> Iterator[tuple[str, int, int]]:
        for kind, shape in SHAPES:
            tick()
            yield from ((kind, *match.span()) for match in shape.finditer(text))
        for match in _OPENAI.finditer(text):
            if sum(map(str.isdigit, match[0])) >= 2 and entropy_bits(match[0]) >= 3.0:
                yield ("openai-key", *match.span())
        tick()
        yield from (("url-password", *match.span(1)) for match in _URL.finditer(text))
        yield from (("authorization", *match.span(1)) for match in _HEADER.finditer(text))
        tick()
        yield from (("assigned", *match.span(2)) for match in _ASSIGNED.finditer(text) if self._secretive(match))
        yield from (("private-key", start, end) for start, end in _private_keys(text))

    def _secretive(self, match: re.Match[str]) -> bool:
        """Whether what is assigned is no word: random enough, and with a digit or in quotes."""
        value = match[2].rstrip(".!?")
        if len(value) < 7 or _PLACEHOLDER.search(value) or entropy_bits(value) < self._min_entropy_bits:
            return False
        return (any(map(str.isdigit, value)) and not value.isdigit()) or bool(match[1])

    def _planted(self, view: View, tick: Callable[[], None]) -> Iterator[tuple[str, int, int]]:
        """Canaries, in what is left of the text without spaces, signs and case."""
        if not self._canaries:
            return
        letters: list[str] = []
        places: list[int] = []
        for at, char in enumerate(view.text):
            if char.isalnum():
                small = char.casefold()
                letters.append(small)
                places += [at] * len(small)
        text = "".join(letters)
        for canary in self._canaries:
            tick()
            at = text.find(canary)
            while at >= 0:
                yield ("canary", *view.span(places[at], places[at + len(canary) - 1] + 1))
                at = text.find(canary, at + len(canary))


def _private_keys(text: str) -> Iterator[Span]:
    """From BEGIN to END; a key without an end goes on to the end of the text."""
    at = 0
    while (begin := _PEM.search(text, at)) is not None:
        end = _PEM_END.search(text, begin.end())
        at = len(text) if end is None else end.end()
        yield begin.start(), at
