"""What the detector learns from: sentences of three kinds, and whole texts with and without something put into them.

Sources and their licences: the templates beside this file (Apache-2.0, as this repository); the folder of labelled
texts that `--data` names (BIPIA, MIT; PINT's public examples; jailbreak_llms, MIT); descriptions of data sets in
scikit-learn (BSD-3-Clause); spaCy's example sentences in its languages (MIT); Python's own help topics (PSF-2.0); and
the long descriptions of installed packages whose metadata say MIT, BSD, ISC or Apache. Nothing of them is kept but the
weights of hashed features.
"""

from __future__ import annotations

import ast
import json
import random
import zlib
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from pydoc_data.topics import topics
from typing import Literal

import sklearn
import spacy

from bench.injection.documents import document, mail_headers
from bench.injection.slots import drawn, grammar

FOLDS = 3
DRAWS = 20
PERMISSIVE = ("MIT", "BSD", "APACHE", "ISC")
Kind = Literal["attack", "request", "payload", "document"]


@dataclass(frozen=True)
class Piece:
    """A text of one kind. `fold` keeps what was made of one template, or taken from one text, together."""

    text: str
    kind: Kind
    source: str
    fold: int
    weight: float = 1.0


@dataclass(frozen=True)
class Sample:
    """A whole text with its label: 1 where it attacks. `channel` is `direct` or `indirect`."""

    text: str
    label: int
    source: str
    channel: str
    fold: int
    weight: float = 1.0


def fold_of(key: str) -> int:
    """The fold of everything made from `key`."""
    return zlib.crc32(key.encode()) % FOLDS


def labelled(data: Path) -> list[dict[str, str | int]]:
    """The labelled texts of a folder."""
    files = sorted(data.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").split("\n") if line]


def put_in(text: str, clean: str) -> str:
    """What was put into a clean text to make `text`; empty where it is not made from it."""
    added = len(text) - len(clean)
    if added <= 0:
        return ""
    start = next((at for at, pair in enumerate(zip(text, clean, strict=False)) if pair[0] != pair[1]), len(clean))
    return text[start : start + added].strip() if text[start + added :] == clean[start:] else ""


def pieces(data: Path, seed: int, without: frozenset[str] = frozenset()) -> list[Piece]:
    """Every text to learn from, but those of the sources `without`."""
    rng = random.Random(seed)
    made = [Piece(text, "attack", f"made-{family}", fold_of(key)) for family, key, text in drawn("attacks", DRAWS, rng)]
    kinds: dict[str, Kind] = {"plain": "request", "hard": "request", "payload": "payload"}
    made += [
        Piece(text, kinds[family], f"made-{family}", fold_of(key)) for family, key, text in drawn("prompts", DRAWS, rng)
    ]
    for family in grammar("documents").families:
        for number in range(500 if family == "prose" else 130):
            made.append(Piece(document(family, rng), "document", f"made-{family}", number % FOLDS))
    made += _packages(rng)
    made += _labelled(data)
    return [piece for piece in made if piece.source not in without]


def _labelled(data: Path) -> list[Piece]:
    found: list[Piece] = []
    rows = labelled(data)
    clean = sorted({str(row["text"]) for row in rows if row["label"] == 0 and "bipia" in str(row["source"])})
    put: set[str] = set()
    for row in rows:
        text, source = str(row["text"]), str(row["source"])
        if "bipia" in source:
            if row["label"]:
                put.add(next((odd for one in clean if len(odd := put_in(text, one)) > 8), ""))
            else:
                found.append(Piece(text, "document", source, fold_of(text)))
        elif "PINT" in source:
            benign: Kind = "request" if source == "PINT_chat" else "document"
            found.append(Piece(text, "attack" if row["label"] else benign, "pint", fold_of(text)))
        else:
            found.append(Piece(text, "attack", "wild", fold_of(text), 0.1))
    found += [Piece(text, "payload", "bipia-attack", fold_of(text), 8.0) for text in sorted(put - {""})]
    return found


def _packages(rng: random.Random) -> list[Piece]:
    """Prose of what is installed, cut to about two thousand characters a text, the same on the same pins."""
    whole = {f"help {name}": text for name, text in topics.items()}
    folder = Path(sklearn.__file__).parent / "datasets" / "descr"
    whole |= {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.rst"))}
    for path in sorted((Path(spacy.__file__).parent / "lang").glob("*/examples.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)]
        whole[f"spacy {path.parent.name}"] = "\n".join(text for one in lists for text in ast.literal_eval(one))
    for found in distributions():
        licence = f"{found.metadata['License-Expression']} {found.metadata['License']}".upper()
        licence += " ".join(found.metadata.get_all("Classifier") or []).upper()
        if any(word in licence for word in PERMISSIVE) and "GPL" not in licence:
            whole[found.metadata["Name"]] = found.metadata.json.get("description", "")  # type: ignore[assignment]
    cut = []
    for name in sorted(whole):
        text = whole[name]
        for at in range(0, min(len(text), 12_000), 2_000):
            part = text[at : at + rng.randint(400, 2_000)]
            if len(part) > 300:
                cut.append(Piece(part, "document", "packages", fold_of(name)))
    return cut


def samples(found: list[Piece], seed: int) -> list[Sample]:
    """Whole texts, label 0 and 1: alone, several together, and one put into a document beside the document clean."""
    rng = random.Random(seed)
    made: list[Sample] = []
    for fold in range(FOLDS):
        here = [piece for piece in found if piece.fold == fold]
        by = {kind: [piece for piece in here if piece.kind == kind] for kind in ("attack", "request", "payload")}
        papers = [piece for piece in here if piece.kind == "document"]
        made += _direct(by["attack"], by["request"], rng, fold)
        odd = by["payload"] * 3 + by["request"] + [piece for piece in by["attack"] if len(piece.text) < 400]
        for paper in papers:
            repeats = 6 if paper.source == "bipia-email" else 1
            for _ in range(repeats):
                text = _varied(paper.text, rng)
                if rng.random() < 0.2:  # long ones, so that length alone is no sign
                    text = "\n\n".join([text, *(rng.choice(papers).text for _ in range(rng.randint(1, 4)))])
                made.append(Sample(text, 0, paper.source, "indirect", fold))
                chosen = rng.choice(odd)
                made.append(Sample(inserted(text, chosen.text, rng), 1, paper.source, "indirect", fold))
    return made


def _direct(bad: list[Piece], good: list[Piece], rng: random.Random, fold: int) -> list[Sample]:
    made = []
    short = [piece for piece in bad if piece.source.startswith("made")]
    for piece in bad:
        text, roll = piece.text, rng.random()
        if short and piece.source.startswith("made") and roll < 0.5:
            others = [rng.choice(short) for _ in range(rng.choice((1, 1, 2, 4, 8, 16)))] if roll < 0.3 else []
            others += [rng.choice(good) for _ in range(rng.choice((1, 1, 2)))] if roll > 0.25 else []
            parts = [text, *(other.text for other in others)]
            rng.shuffle(parts)
            text = rng.choice((" ", " ", "\n", "\n\n")).join(parts)
        made.append(Sample(text, 1, piece.source, "direct", fold, piece.weight))
    for piece in good:
        text = piece.text
        for _ in range(rng.choice((0, 0, 0, 0, 1, 2, 6))):
            text += rng.choice((" ", "\n")) + rng.choice(good).text
        made.append(Sample(text, 0, piece.source, "direct", fold, 1.5 if piece.source == "made-hard" else 1.0))
    return made


def _varied(text: str, rng: random.Random) -> str:
    """A document, now and then cut short or given an e-mail's headers."""
    if rng.random() < 0.25 and len(text) > 900:
        text = text[: rng.randint(500, len(text))]
    return mail_headers(text, rng) if rng.random() < 0.08 else text


def inserted(text: str, put: str, rng: random.Random) -> str:
    """`put` at the start, between two lines or sentences, or at the end."""
    where = rng.choice(("start", "middle", "end"))
    gap = rng.choice(("\n", "\n\n", "\n", " "))
    if where == "start":
        return f"{put}{gap}{text}"
    if where == "end":
        return f"{text}{gap}{put}"
    places = [
        at + 1 for at, sign in enumerate(text) if sign == "\n" or (sign in ".!?" and text[at + 1 : at + 2] == " ")
    ]
    at = rng.choice(places) if places else 0
    return f"{text[:at]}{gap}{put}{gap}{text[at:]}"
