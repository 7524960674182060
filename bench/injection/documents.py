"""What stands in honest documents: e-mails, tickets, pages, recipes, laws, security notes; imperatives between people.

A document is a handful of a family's sentences, laid out as such texts are: lines, paragraphs, an e-mail, a page.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from bench.injection.slots import grammar


def document(family: str, rng: random.Random) -> str:
    """Three to twelve different sentences of a family, in one of the layouts."""
    rules = grammar("documents")
    templates = rules.families[family]
    chosen = rng.sample(templates, min(len(templates), rng.randint(3, 12)))
    return rng.choice(LAYOUTS)([rules.draw(template, rng) for template in chosen], rng)


def mail_headers(body: str, rng: random.Random) -> str:
    """A body as an e-mail in one line of headers, such as a tool would return it."""
    rules = grammar("documents")
    subject = rules.draw("Your {thing} of {day}", rng)
    sender = rules.draw("{firm} <hello@{firm}.example>", rng)
    return f"SUBJECT: {subject}|EMAIL_FROM: {sender}|RECEIVED DATE: Tue, 01 Feb 2022 17:28:11 +0000|CONTENT: \n\n{body}"


def _lines(sentences: list[str], rng: random.Random) -> str:
    return rng.choice(("\n", "\n\n")).join(sentences)


def _flow(sentences: list[str], rng: random.Random) -> str:
    return rng.choice((" ", " ", "")).join(sentences)


def _paragraphs(sentences: list[str], rng: random.Random) -> str:
    return "".join(text + rng.choice((" ", " ", "\n\n")) for text in sentences).strip()


def _mail(sentences: list[str], rng: random.Random) -> str:
    return mail_headers(_lines(sentences, rng), rng)


def _page(sentences: list[str], rng: random.Random) -> str:
    return "<html><body>" + "\n".join(f"<p>{text}</p>" for text in sentences) + "</body></html>"


LAYOUTS: list[Callable[[list[str], random.Random], str]] = [_lines, _flow, _paragraphs, _paragraphs, _mail, _page]
